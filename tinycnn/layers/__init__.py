"""Layers: one family per file, forward and backward side by side."""

from .activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from .base import Layer, LayerError
from .batchnorm import BatchNorm2d, BatchNormReLU2d
from .combine import Add, Checkpointed, Concat, Residual, ResidualNormReLU, Sequential
from .conv import Conv2d
from .dense import DenseBlock, DenseLayer
from .dropout import Dropout, Dropout2d, StochasticDepth
from .layernorm import LayerNorm
from .linear import Linear
from .lrn import LocalResponseNorm
from .norm import GroupNorm, InstanceNorm2d
from .pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool, GlobalAvgPool2d, MaxPool2d
from .scale import Scale
from .shape import Flatten, Identity, PadShortcut, ZeroPad2d
from .stochastic import StochasticBranch

__all__ = [
    "GELU",
    "AdaptiveAvgPool2d",
    "Add",
    "AvgPool2d",
    "BatchNorm2d",
    "BatchNormReLU2d",
    "Checkpointed",
    "Concat",
    "Conv2d",
    "DenseBlock",
    "DenseLayer",
    "Dropout",
    "Dropout2d",
    "Flatten",
    "GlobalAvgPool",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Identity",
    "InstanceNorm2d",
    "Layer",
    "LayerError",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LocalResponseNorm",
    "MaxPool2d",
    "PadShortcut",
    "ReLU",
    "Residual",
    "ResidualNormReLU",
    "Scale",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StochasticBranch",
    "StochasticDepth",
    "Tanh",
    "ZeroPad2d",
]
