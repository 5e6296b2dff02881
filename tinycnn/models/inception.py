"""Inception-v4 and Inception-ResNet-v2: many narrow branches side by side, and the same with shortcuts.

Both see an image at 35×35, 17×17 and 8×8 pixels, in three stages of equal blocks with a reduction between.  In a block
branches look through windows of different size; 1×1 convolutions first make them narrow, and in place of 7×7, of 49
weights, there are 1×7 and 7×1 one after the other, of 14.  Every convolution is followed by batch normalisation (ε =
1e-3) and ReLU.

In ``inception_v4`` the branches' outputs stand side by side::

    block A, 4 times     B, 7 times                          C, 3 times               reductions to 17² and 8²

    1×1                  1×1                                 1×1                      3×3/2
    1×1 ─ 3×3            1×1 ─ 1×7 ─ 7×1                     1×1 ─┬─ 1×3              1×1 ─ … ─ 3×3/2
    1×1 ─ 3×3 ─ 3×3      1×1 ─ 7×1 ─ 1×7 ─ 7×1 ─ 1×7              └─ 3×1              max 3×3/2
    mean ─ 1×1           mean ─ 1×1                          1×1 ─ 3×1 ─ 1×3 ─┬─ 1×3
                                                                              └─ 3×1
                                                             mean ─ 1×1

In ``inception_resnet_v2`` they make up one residual, scaled down before it is added, without which so wide a network
dies early in training::

    x ─┬─ 1×1 ────────────────┬─ 1×1 ─ ·s ─ + ─ ReLU ─          s      pixels   times
       ├─ 1×1 ─ 3×3 ──────────┤             │                   0.17   35²      10    (the block drawn here)
       ├─ 1×1 ─ 3×3 ─ 3×3 ────┘             │                   0.10   17²      20    1×1 and 1×1 ─ 1×7 ─ 7×1
       └────────────────────────────────────┘                   0.20   8²       10    1×1 and 1×1 ─ 1×3 ─ 3×1

The last block's s is 1, and no ReLU follows it.  So says the released network, which also has twice the paper's number
of blocks, a first block of its own at 35² (``mixed_5b``) and other widths.  It is the one built here.

**Cost**: 43 million parameters and 12.3 billion multiply-adds; 56 million and 13.2 billion.

Names of parameters are those of the usual PyTorch ports (pytorch-image-models).  The paper does not say how weights
start; the released code draws those of convolutions from He's normal on fan-in, cut at two standard deviations (which
are √1.3 times as large, to make up for the cut), and those of the last layer from Glorot's uniform; biases are 0.

Source: Szegedy, Ioffe, Vanhoucke & Alemi 2017, "Inception-v4, Inception-ResNet and the impact of residual connections
on learning", figures 3 to 9 and 15 to 19, sections 3.2 and 3.3; the released networks, github.com/tensorflow/models,
research/slim.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from ..initializers import Shape, fans, glorot_uniform, truncated_normal
from ..layers import (
    AvgPool2d,
    BatchNormReLU2d,
    Checkpointed,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Scale,
    Sequential,
)
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network

Size: TypeAlias = int | tuple[int, int]
Rng: TypeAlias = np.random.Generator
Step: TypeAlias = tuple[int, Size] | tuple[int, Size, int] | tuple[int, Size, int, int]
"""Of a branch: output channels, kernel, stride and padding of a convolution."""


@checked
def inception_v4(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    blocks: tuple[int, int, int] = (4, 7, 3),
    dropout: float = 0.2,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build Inception-v4 for images of 299×299 pixels, or any size from 75×75.

    Args:
        num_classes: outputs.
        in_channels: channels of the input.
        blocks: how many of A, B and C.
        dropout: share of the last features that training drops.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights and of dropout.

    Raises:
        ValueError: ``blocks`` are not three numbers from 1.
    """
    a, b, c = _checked(blocks)
    rng = np.random.default_rng(rng)
    wrap = Checkpointed if checkpointed else _as_is
    features = Sequential(
        conv(in_channels, 32, 3, 2, rng=rng),
        conv(32, 32, 3, 1, 0, rng=rng),
        conv(32, 64, 3, rng=rng),
        Concat({"maxpool": MaxPool2d(3, 2), "conv": conv(64, 96, 3, 2, rng=rng)}),
        _stem_branches(rng),
        Concat({"conv": conv(192, 192, 3, 2, rng=rng), "maxpool": MaxPool2d(3, 2)}),
        *(wrap(inception_a(rng)) for _ in range(a)),
        wrap(reduction_a(384, (192, 224, 256), rng)),
        *(wrap(inception_b(rng)) for _ in range(b)),
        wrap(_reduction_b(rng)),
        *(wrap(inception_c(rng)) for _ in range(c)),
    )
    return Network(
        {"features": features, **_head(1536, num_classes, dropout, "last_linear", rng)},
        features="features",
        classifier="last_linear",
    )


@checked
def inception_resnet_v2(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    blocks: tuple[int, int, int] = (10, 20, 10),
    dropout: float = 0.2,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build Inception-ResNet-v2 for images of 299×299 pixels, or any size from 75×75.

    Args:
        num_classes: outputs.
        in_channels: channels of the input.
        blocks: how many at 35², 17² and 8², the last one included; the paper has (5, 10, 5).
        dropout: share of the last features that training drops.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights and of dropout.

    Raises:
        ValueError: ``blocks`` are not three numbers from 1.
    """
    a, b, c = _checked(blocks)
    rng = np.random.default_rng(rng)
    wrap = Checkpointed if checkpointed else _as_is
    return Network(
        {
            "conv2d_1a": conv(in_channels, 32, 3, 2, rng=rng),
            "conv2d_2a": conv(32, 32, 3, 1, 0, rng=rng),
            "conv2d_2b": conv(32, 64, 3, rng=rng),
            "maxpool_3a": MaxPool2d(3, 2),
            "conv2d_3b": conv(64, 80, 1, rng=rng),
            "conv2d_4a": conv(80, 192, 3, 1, 0, rng=rng),
            "maxpool_5a": MaxPool2d(3, 2),
            "mixed_5b": _first_block(rng),
            "repeat": Sequential(*(wrap(block35(rng)) for _ in range(a))),
            "mixed_6a": wrap(reduction_a(320, (256, 256, 384), rng)),
            "repeat_1": Sequential(*(wrap(block17(rng)) for _ in range(b))),
            "mixed_7a": wrap(_last_reduction(rng)),
            "repeat_2": Sequential(*(wrap(block8(rng)) for _ in range(c - 1))),
            "block8": wrap(block8(rng, scale=1.0, relu=False)),
            "conv2d_7b": conv(2080, 1536, 1, rng=rng),
            **_head(1536, num_classes, dropout, "classif", rng),
        },
        features="conv2d_7b",
        classifier="classif",
    )


# ---- what blocks are made of -------------------------------------------------------------------------------


def he_truncated(shape: Shape, rng: Rng) -> np.ndarray:
    """He's normal on fan-in, cut at two standard deviations, with about the variance that it has uncut."""
    return truncated_normal(shape, rng, std=math.sqrt(1.3 * 2 / fans(shape)[0]))


def conv(C: int, OC: int, kernel: Size, stride: int = 1, padding: Size | None = None, *, rng: Rng) -> Sequential:
    """Convolution, normalisation, ReLU.  Unless told otherwise it keeps the size, or with a stride pads nothing."""
    if padding is None:
        KH, KW = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (KH // 2, KW // 2) if stride == 1 else 0
    layer = Conv2d(C, OC, kernel, stride, padding, bias=False, init=he_truncated, rng=rng)
    return Sequential({"conv": layer, "bn": BatchNormReLU2d(OC, eps=1e-3)})


def branch(C: int, *steps: Step, rng: Rng) -> Sequential:
    """Convolutions one after another."""
    return Sequential(*_convolutions(C, steps, rng))


def _convolutions(C: int, steps: tuple[Step, ...], rng: Rng) -> list[Layer]:
    widths = [C, *(step[0] for step in steps)]
    return [conv(width, *step, rng=rng) for width, step in zip(widths, steps, strict=False)]


def _averaged(C: int, OC: int, rng: Rng) -> Sequential:
    """The branch of 3×3 means, of what lies within the image."""
    return Sequential(AvgPool2d(3, 1, padding=1, count_include_pad=False), conv(C, OC, 1, rng=rng))


def _forked(C: int, *steps: Step, rng: Rng) -> Sequential:
    """Convolutions one after another, and at the end of them 1×3 and 3×1 side by side."""
    C_last, last = steps[-1][0], len(steps)
    layers = {str(i): layer for i, layer in enumerate(_convolutions(C, steps, rng))}
    ends = {f"{last}a": conv(C_last, 256, (1, 3), rng=rng), f"{last}b": conv(C_last, 256, (3, 1), rng=rng)}
    return Sequential({**layers, "": Concat(ends)})


# ---- Inception-v4 ------------------------------------------------------------------------------------------


def _stem_branches(rng: Rng) -> Concat:
    """From 160 to 192 channels, at 71×71 pixels."""
    return Concat(
        {
            "branch0": branch(160, (64, 1), (96, 3, 1, 0), rng=rng),
            "branch1": branch(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, 0), rng=rng),
        }
    )


def inception_a(rng: Rng) -> Concat:
    """384 channels to as many."""
    return Concat(
        {
            "branch0": conv(384, 96, 1, rng=rng),
            "branch1": branch(384, (64, 1), (96, 3), rng=rng),
            "branch2": branch(384, (64, 1), (96, 3), (96, 3), rng=rng),
            "branch3": _averaged(384, 96, rng),
        }
    )


def reduction_a(C: int, widths: tuple[int, int, int], rng: Rng) -> Concat:
    """C channels at 35×35 pixels to 384 + m + C at 17×17, of both networks; the widths are k, l and m of table 1."""
    first, second, third = widths
    return Concat(
        {
            "branch0": conv(C, 384, 3, 2, rng=rng),
            "branch1": branch(C, (first, 1), (second, 3), (third, 3, 2), rng=rng),
            "branch2": MaxPool2d(3, 2),
        }
    )


def inception_b(rng: Rng) -> Concat:
    """1024 channels to as many."""
    across, down = (1, 7), (7, 1)
    return Concat(
        {
            "branch0": conv(1024, 384, 1, rng=rng),
            "branch1": branch(1024, (192, 1), (224, across), (256, down), rng=rng),
            "branch2": branch(1024, (192, 1), (192, down), (224, across), (224, down), (256, across), rng=rng),
            "branch3": _averaged(1024, 128, rng),
        }
    )


def _reduction_b(rng: Rng) -> Concat:
    """1024 channels at 17×17 pixels to 1536 at 8×8."""
    return Concat(
        {
            "branch0": branch(1024, (192, 1), (192, 3, 2), rng=rng),
            "branch1": branch(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2), rng=rng),
            "branch2": MaxPool2d(3, 2),
        }
    )


def inception_c(rng: Rng) -> Concat:
    """1536 channels to as many.  The underscores join names as the ports have them: ``branch1_1a``."""
    return Concat(
        {
            "branch0": conv(1536, 256, 1, rng=rng),
            "branch1_": _forked(1536, (384, 1), rng=rng),
            "branch2_": _forked(1536, (384, 1), (448, (3, 1)), (512, (1, 3)), rng=rng),
            "branch3": _averaged(1536, 256, rng),
        }
    )


# ---- Inception-ResNet-v2 -----------------------------------------------------------------------------------


def _first_block(rng: Rng) -> Concat:
    """192 channels to 320."""
    return Concat(
        {
            "branch0": conv(192, 96, 1, rng=rng),
            "branch1": branch(192, (48, 1), (64, 5), rng=rng),
            "branch2": branch(192, (64, 1), (96, 3), (96, 3), rng=rng),
            "branch3": _averaged(192, 64, rng),
        }
    )


def block35(rng: Rng) -> Sequential:
    """The residual block at 35×35 pixels, of 320 channels."""
    branches = {
        "branch0": conv(320, 32, 1, rng=rng),
        "branch1": branch(320, (32, 1), (32, 3), rng=rng),
        "branch2": branch(320, (32, 1), (48, 3), (64, 3), rng=rng),
    }
    return _residual(320, 128, branches, 0.17, True, rng)


def block17(rng: Rng) -> Sequential:
    """The residual block at 17×17 pixels, of 1088 channels."""
    branches = {
        "branch0": conv(1088, 192, 1, rng=rng),
        "branch1": branch(1088, (128, 1), (160, (1, 7)), (192, (7, 1)), rng=rng),
    }
    return _residual(1088, 384, branches, 0.10, True, rng)


def block8(rng: Rng, scale: float = 0.20, relu: bool = True) -> Sequential:
    """The residual block at 8×8 pixels, of 2080 channels."""
    branches = {
        "branch0": conv(2080, 192, 1, rng=rng),
        "branch1": branch(2080, (192, 1), (224, (1, 3)), (256, (3, 1)), rng=rng),
    }
    return _residual(2080, 448, branches, scale, relu, rng)


def _residual(C: int, joined: int, branches: dict[str, Sequential], scale: float, relu: bool, rng: Rng) -> Sequential:
    """x + s·(the branches, ``joined`` channels side by side, mixed to C)."""
    mix = Conv2d(joined, C, 1, init=he_truncated, rng=rng)
    block = Sequential({"": Residual(Sequential({"": Concat(branches), "conv2d": mix, "scale": Scale(scale)}))})
    return block.append(ReLU(), "relu") if relu else block


def _last_reduction(rng: Rng) -> Concat:
    """1088 channels at 17×17 pixels to 2080 at 8×8."""
    return Concat(
        {
            "branch0": branch(1088, (256, 1), (384, 3, 2), rng=rng),
            "branch1": branch(1088, (256, 1), (288, 3, 2), rng=rng),
            "branch2": branch(1088, (256, 1), (288, 3), (320, 3, 2), rng=rng),
            "branch3": MaxPool2d(3, 2),
        }
    )


# ---- both --------------------------------------------------------------------------------------------------


def _head(C: int, num_classes: int, dropout: float, name: str, rng: Rng) -> dict[str, Layer]:
    return {
        "avgpool": GlobalAvgPool2d(),
        "flatten": Flatten(),
        "dropout": Dropout(dropout, rng=rng),
        name: Linear(C, num_classes, init=glorot_uniform, rng=rng),
    }


def _as_is(layer: Layer) -> Layer:
    return layer


def _checked(blocks: tuple[int, int, int]) -> tuple[int, int, int]:
    if len(blocks) != 3 or min(blocks) < 1:
        raise ValueError(f"blocks must be three numbers from 1, one for each stage, got {blocks}")
    return blocks


_PAPER = "Szegedy et al. 2017, Inception-v4, Inception-ResNet and the impact of residual connections on learning"

ARCHITECTURES = {
    "inception_v4": Architecture(inception_v4, (3, 299, 299), 42_679_816, 12_253_974_624, _PAPER, 1000),
    "inception_resnet_v2": Architecture(inception_resnet_v2, (3, 299, 299), 55_843_464, 13_155_794_016, _PAPER, 1000),
}
