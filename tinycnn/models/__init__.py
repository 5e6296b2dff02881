"""Architectures: one family per file, by name in the registry."""

from .lenet import lenet5, lenet5_1998
from .registry import ARCHITECTURES, Architecture, architecture, create, names
from .resnet_cifar import resnet_cifar

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "architecture",
    "create",
    "lenet5",
    "lenet5_1998",
    "names",
    "resnet_cifar",
]
