"""The networks that are measured, from tinycnn's models; their state dicts fit the twins in `twins`.

==============  =========================================================================================
lenet5          LeNet-5 with ReLU and max-pooling on 1×32×32 (28×28 digits, padded)
vgg16_bn_cifar  VGG-16 for 3×32×32: 13 convolutions 3×3 with bias, each with batch normalisation and ReLU, five
                2×2 max-pools, and one linear layer 512 → 10 (the form of github.com/kuangliu/pytorch-cifar,
                without its 1×1 average pool, which does nothing)
vgg16           VGG-16 (configuration D) for 3×224×224 and 1000 classes, as torchvision has it
resnet18        ResNet-18 for 3×224×224 and 1000 classes, as torchvision has it
resnet50        ResNet-50 likewise, with the stride in the 3×3 convolution
resnet20 …      ResNet of depth 20, 32, 56, 110 for 3×32×32, parameter-free shortcuts (option A)
==============  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

import tinycnn
from tinycnn import Layer


@dataclass(frozen=True)
class Net:
    """A network to measure.

    Attributes:
        title: for people.
        image: (C, H, W) of its input.
        classes: number of outputs.
        build: makes it, given the seed of its weights.
    """

    title: str
    image: tuple[int, int, int]
    classes: int
    build: Callable[[int], Layer]


def _created(name: str, seed: int = 0) -> Layer:
    return tinycnn.models.create(name, seed=seed)


CIFAR = (3, 32, 32)
DEPTHS = (20, 32, 56, 110)
NETS = {
    "lenet5": Net("LeNet-5", (1, 32, 32), 10, partial(_created, "lenet5")),
    "vgg16_bn_cifar": Net("VGG-16-BN (CIFAR)", CIFAR, 10, partial(_created, "vgg16_bn_cifar")),
    "vgg16": Net("VGG-16", (3, 224, 224), 1000, partial(_created, "vgg16")),
    "resnet18": Net("ResNet-18", (3, 224, 224), 1000, partial(_created, "resnet18")),
    "resnet50": Net("ResNet-50", (3, 224, 224), 1000, partial(_created, "resnet50")),
} | {f"resnet{d}": Net(f"ResNet-{d} (CIFAR)", CIFAR, 10, partial(_created, f"resnet{d}")) for d in DEPTHS}

STEPS = (("lenet5", 64), ("lenet5", 256), ("vgg16_bn_cifar", 32), ("resnet18", 8), ("resnet20", 128))
"""Networks and batch sizes of the training steps that are measured."""


def batch(name: str, N: int, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return N standard normal images, channels-last in memory, and random labels, always the same ones.

    Args:
        name: a network of `NETS`.
        N: batch size.
        size: height and width, if not the network's own.
    """
    net = NETS[name]
    rng = np.random.default_rng(0)
    C, H, W = net.image
    # (N, H, W, C) -> (N, C, H, W)
    x = rng.standard_normal((N, size or H, size or W, C), np.float32).transpose(0, 3, 1, 2)
    return x, rng.integers(0, net.classes, N)
