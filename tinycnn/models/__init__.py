"""Architectures: one family per file, by name in the registry."""

from .lenet import lenet5, lenet5_1998
from .network import Architecture, Network
from .registry import ARCHITECTURES, architecture, create, names
from .resnet_cifar import resnet_cifar

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Network",
    "architecture",
    "create",
    "lenet5",
    "lenet5_1998",
    "names",
    "resnet_cifar",
]
