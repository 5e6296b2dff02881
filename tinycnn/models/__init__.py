"""Architectures: one family per file, by name in the registry."""

from .alexnet import alexnet, alexnet_2012
from .lenet import lenet5, lenet5_1998
from .network import Architecture, Network
from .nin import nin_cifar, nin_imagenet
from .registry import ARCHITECTURES, architecture, create, names
from .resnet_cifar import resnet_cifar
from .vgg import vgg, vgg_cifar

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Network",
    "alexnet",
    "alexnet_2012",
    "architecture",
    "create",
    "lenet5",
    "lenet5_1998",
    "names",
    "nin_cifar",
    "nin_imagenet",
    "resnet_cifar",
    "vgg",
    "vgg_cifar",
]
