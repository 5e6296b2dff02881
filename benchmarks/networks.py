"""The networks that are measured, made of tinycnn's public layers; their state dicts fit the twins in `twins`.

==============  =========================================================================================
lenet5          LeNet-5 with ReLU and max-pooling on 1×32×32 (28×28 digits, padded)
vgg16_bn_cifar  VGG-16 for 3×32×32: 13 convolutions 3×3 with bias, each with batch normalisation and ReLU, five
                2×2 max-pools, and one linear layer 512 → 10 (the form of github.com/kuangliu/pytorch-cifar,
                without its 1×1 average pool, which does nothing)
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
from tinycnn import (
    BatchNorm2d,
    BatchNormReLU2d,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    Linear,
    MaxPool2d,
    ResidualNormReLU,
    Sequential,
)


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


def resnet18(seed: int = 0) -> Sequential:
    """Build ResNet-18 for 1000 classes."""
    return _resnet((2, 2, 2, 2), _basic_block, 1, seed)


def resnet50(seed: int = 0) -> Sequential:
    """Build ResNet-50 for 1000 classes."""
    return _resnet((3, 4, 6, 3), _bottleneck, 4, seed)


def _resnet(depths: tuple[int, ...], block: Callable[..., Layer], expansion: int, seed: int) -> Sequential:
    rng = np.random.default_rng(seed)
    stages: dict[str, Layer] = {}
    C = 64
    for i, (n, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        blocks = []
        for j in range(n):
            blocks.append(block(C, width, 2 if i > 1 and j == 0 else 1, rng))
            C = expansion * width
        stages[f"layer{i}"] = Sequential(*blocks)
    return Sequential(
        {
            "conv1": Conv2d(3, 64, 7, stride=2, padding=3, bias=False, rng=rng),
            "bn1": BatchNormReLU2d(64),
            "maxpool": MaxPool2d(3, stride=2, padding=1),
            **stages,
            "avgpool": GlobalAvgPool2d(),
            "flatten": Flatten(),
            "fc": Linear(C, 1000, rng=rng),
        }
    )


def _basic_block(C: int, OC: int, stride: int, rng: np.random.Generator) -> Layer:
    main = Sequential(
        {
            "conv1": Conv2d(C, OC, 3, stride=stride, padding=1, bias=False, rng=rng),
            "bn1": BatchNormReLU2d(OC),
            "conv2": Conv2d(OC, OC, 3, padding=1, bias=False, rng=rng),
        }
    )
    return ResidualNormReLU(main, BatchNormReLU2d(OC), _projection(C, OC, stride, rng))


def _bottleneck(C: int, width: int, stride: int, rng: np.random.Generator) -> Layer:
    main = Sequential(
        {
            "conv1": Conv2d(C, width, 1, bias=False, rng=rng),
            "bn1": BatchNormReLU2d(width),
            "conv2": Conv2d(width, width, 3, stride=stride, padding=1, bias=False, rng=rng),
            "bn2": BatchNormReLU2d(width),
            "conv3": Conv2d(width, 4 * width, 1, bias=False, rng=rng),
        }
    )
    shortcut = _projection(C, 4 * width, stride, rng)
    return ResidualNormReLU(main, BatchNormReLU2d(4 * width), shortcut, norm_name="bn3")


def _projection(C: int, OC: int, stride: int, rng: np.random.Generator) -> Layer | None:
    """The shortcut of a block from C to OC channels; None where the image can pass as it is."""
    if stride == 1 and C == OC:
        return None
    return Sequential(Conv2d(C, OC, 1, stride=stride, bias=False, rng=rng), BatchNorm2d(OC))


def _created(name: str, seed: int = 0) -> Layer:
    return tinycnn.models.create(name, seed=seed)


CIFAR = (3, 32, 32)
DEPTHS = (20, 32, 56, 110)
NETS = {
    "lenet5": Net("LeNet-5", (1, 32, 32), 10, partial(_created, "lenet5")),
    "vgg16_bn_cifar": Net("VGG-16-BN (CIFAR)", CIFAR, 10, partial(_created, "vgg16_bn_cifar")),
    "resnet18": Net("ResNet-18", (3, 224, 224), 1000, resnet18),
    "resnet50": Net("ResNet-50", (3, 224, 224), 1000, resnet50),
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
