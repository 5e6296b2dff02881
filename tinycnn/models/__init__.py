"""Architectures: one family per file, by name in the registry."""

from .alexnet import alexnet, alexnet_2012
from .densenet import densenet, densenet_cifar
from .googlenet import googlenet, googlenet_2014
from .heads import NetworkWithHeads
from .inception import inception_resnet_v2, inception_v4
from .lenet import lenet5, lenet5_1998
from .network import Architecture, Network
from .nin import nin_cifar, nin_imagenet
from .preact import preact_resnet
from .registry import ARCHITECTURES, architecture, create, names
from .resnet import basic_resnet, bottleneck_resnet
from .resnet_cifar import resnet_cifar
from .resnext import resnext_cifar
from .stochastic import stochastic_resnet
from .vgg import vgg, vgg_cifar
from .wide import wide_resnet

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Network",
    "NetworkWithHeads",
    "alexnet",
    "alexnet_2012",
    "architecture",
    "basic_resnet",
    "bottleneck_resnet",
    "create",
    "densenet",
    "densenet_cifar",
    "googlenet",
    "googlenet_2014",
    "inception_resnet_v2",
    "inception_v4",
    "lenet5",
    "lenet5_1998",
    "names",
    "nin_cifar",
    "nin_imagenet",
    "preact_resnet",
    "resnet_cifar",
    "resnext_cifar",
    "stochastic_resnet",
    "vgg",
    "vgg_cifar",
    "wide_resnet",
]
