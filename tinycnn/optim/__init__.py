"""Optimizers, gradient clipping, weight averaging and learning-rate schedules; they know nothing of layers."""

from .adam import Adam, Adamax, AdamW, NAdam, RAdam
from .adaptive import Adadelta, Adagrad, RMSprop
from .base import Optimizer
from .clip import clip_grad_norm_, clip_grad_value_, grad_factor, grad_norm
from .composed import ChainedScheduler, SequentialLR
from .ema import EMA
from .groups import decay_groups, groups_by_name
from .policies import OneCycleLR, ReduceLROnPlateau
from .registry import Schedule, create, create_schedule, hyperparameters, names, schedule_names
from .scaler import GradScaler
from .schedules import (
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    ExponentialLR,
    InverseTimeDecay,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .sgd import SGD
from .state import join_state, split_state

__all__ = [
    "EMA",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "ExponentialLR",
    "GradScaler",
    "InverseTimeDecay",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "NAdam",
    "OneCycleLR",
    "Optimizer",
    "PolynomialLR",
    "RAdam",
    "RMSprop",
    "ReduceLROnPlateau",
    "Schedule",
    "SequentialLR",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "create",
    "create_schedule",
    "decay_groups",
    "grad_factor",
    "grad_norm",
    "groups_by_name",
    "hyperparameters",
    "join_state",
    "names",
    "schedule_names",
    "split_state",
]
