"""Residual networks for 224×224 images, and the parts that all residual networks share.

A deeper network can do what a shallower one does if its further layers compute the identity; stacked layers learn
that badly.  A residual block learns what is to be *added* to its input, and does nothing by being zero.  There are
two blocks, here in the first place of a stage, where the image is halved::

    basic       x ─┬─ conv1 3×3 /2 ─ bn1 ─ ReLU ─ conv2 3×3 ─ bn2 ─ + ─ ReLU ─
                   └────────────── downsample ──────────────────────┘

    bottleneck  x ─┬─ conv1 1×1 ─ bn1 ─ ReLU ─ conv2 3×3 /2 ─ bn2 ─ ReLU ─ conv3 1×1 ─ bn3 ─ + ─ ReLU ─
                   └─────────────────────────── downsample ─────────────────────────────────┘

The bottleneck's 3×3 convolution works on a quarter of the block's channels, so that it costs about as much as a basic
block with a quarter of the channels.  The shortcut is the identity where sizes allow it.  Elsewhere option A keeps
every other pixel and fills new channels with zeros (no parameters); option B, the default, is a 1×1 convolution with
batch normalisation.

Around the blocks: a 7×7 stem of stride 2 and a 3×3 max-pool of stride 2, to 56² pixels; four stages of 64, 128, 256
and 512 channels (four times that with bottlenecks) at 56², 28², 14² and 7² pixels; the average of each channel, and
one linear layer.

==========  ==========  ================  ==========  =============  =======================
network     block       blocks per stage  parameters  multiply-adds  with the paper's stride
==========  ==========  ================  ==========  =============  =======================
resnet18    basic       2, 2, 2, 2        11,689,512   1.814 · 10⁹
resnet34    basic       3, 4, 6, 3        21,797,672   3.664 · 10⁹
resnet50    bottleneck  3, 4, 6, 3        25,557,032   4.089 · 10⁹    3.858 · 10⁹
resnet101   bottleneck  3, 4, 23, 3       44,549,160   7.801 · 10⁹    7.570 · 10⁹
resnet152   bottleneck  3, 8, 36, 3       60,192,808  11.514 · 10⁹   11.282 · 10⁹
==========  ==========  ================  ==========  =============  =======================

The paper halves the image in the first 1×1 convolution of a bottleneck (``stride_in="1x1"``), where three of four
pixels are then never looked at; since Gross & Wilber's implementation it is done in the 3×3 convolution
(``"3x3"``, "version 1.5"), which takes 6 % more multiply-adds at depth 50 and errs less.

Convolutions start He-normal on fan-out, as the authors' code has it, normalisations at γ = 1 and β = 0, and the
linear layer, of which the paper says nothing, as PyTorch's, U(±1/√fan_in).  Names are torchvision's.

Sources: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", table 1 and sections 3.3 and 4.1;
the stride, Gross & Wilber 2016, "Training and investigating residual nets"; γ = 0 at the end of a block, Goyal et al.
2017, "Accurate, large minibatch SGD", section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from ..initializers import Initializer, he_normal
from ..layers import (
    BatchNorm2d,
    BatchNormReLU2d,
    Checkpointed,
    Conv2d,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    PadShortcut,
    ResidualNormReLU,
    Sequential,
)
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network

Shortcut: TypeAlias = Literal["A", "B"]
Where: TypeAlias = Literal["both", "end"]
Rng: TypeAlias = np.random.Generator

he = partial(he_normal, mode="fan_out")
"""√(2/(k²·OC)), as the authors' code fills."""


class Place(NamedTuple):
    """Where a block stands in a network.

    Attributes:
        C, OC: channels of its input and its output.
        stride: 2 where it halves the image.
        number: of the block in its network, from 0.
    """

    C: int
    OC: int
    stride: int = 1
    number: int = 0

    @property
    def resizes(self) -> bool:
        """Whether the input cannot be added to the output as it is."""
        return self.stride != 1 or self.C != self.OC


# ---- the parts of a block ----------------------------------------------------------------------------------


def conv(C: int, OC: int, kernel: int, rng: Rng, stride: int = 1, groups: int = 1) -> Conv2d:
    """Return a convolution that keeps the image's size, but for the stride; no bias, as a normalisation follows."""
    return Conv2d(C, OC, kernel, stride, kernel // 2, groups=groups, bias=False, init=he, rng=rng)


def two_convolutions(at: Place, rng: Rng) -> Sequential:
    """Return the main branch of a basic block, without its last normalisation."""
    return Sequential(
        {
            "conv1": conv(at.C, at.OC, 3, rng, at.stride),
            "bn1": BatchNormReLU2d(at.OC),
            "conv2": conv(at.OC, at.OC, 3, rng),
        }
    )


def way_past(at: Place, shortcut: Shortcut, pad_where: Where, rng: Rng, norm: bool = True) -> Layer | None:
    """Return the shortcut of a block, option A or B; None where the input can pass as it is.

    Args:
        at: where the block stands.
        shortcut, pad_where: as for `basic_resnet`.
        rng: generator of a projection's initial weights.
        norm: whether a projection is normalised.

    Raises:
        ValueError: no such option.
    """
    if shortcut not in ("A", "B"):
        raise ValueError(f"shortcut must be 'A' (zero channels) or 'B' (projection), got {shortcut!r}")
    if not at.resizes:
        return None
    if shortcut == "A":
        return PadShortcut(at.C, at.OC, at.stride, pad_where)
    projection = Sequential(conv(at.C, at.OC, 1, rng, at.stride))
    return projection.append(BatchNorm2d(at.OC)) if norm else projection


def basic_block(
    at: Place, *, shortcut: Shortcut = "B", pad_where: Where = "both", zero_init: bool = False, rng: Rng
) -> Layer:
    """Return two 3×3 convolutions and a shortcut."""
    main = two_convolutions(at, rng)
    return ResidualNormReLU(main, _last_norm(at.OC, zero_init), way_past(at, shortcut, pad_where, rng))


def bottleneck(
    at: Place,
    *,
    groups: int = 1,
    width_per_group: int = 64,
    stride_in: Literal["1x1", "3x3"] = "3x3",
    shortcut: Shortcut = "B",
    pad_where: Where = "both",
    zero_init: bool = False,
    rng: Rng,
) -> Layer:
    """Return a 1×1 convolution to fewer channels, a 3×3 among them, a 1×1 back, and a shortcut.

    Args:
        at: the output has 4·64·2ⁱ channels in stage i of a network of the usual width.
        groups: of the 3×3 convolution.
        width_per_group: channels of each where the output has 4·64; elsewhere in proportion.
        stride_in: the convolution that halves the image.
        shortcut, pad_where, zero_init: as for `bottleneck_resnet`.
        rng: generator of the initial weights.
    """
    if stride_in not in ("1x1", "3x3"):
        raise ValueError(f"stride_in must be '3x3' or, as in the paper, '1x1', got {stride_in!r}")
    if groups < 1:
        raise ValueError(f"groups, those of the 3×3 convolutions, must be at least 1, got {groups}")
    width = at.OC // 4 * width_per_group // 64 * groups
    if width < 1:
        raise ValueError(
            f"width_per_group={width_per_group} leaves no channel in a block of {at.OC}: take a larger one"
        )
    first, second = (at.stride, 1) if stride_in == "1x1" else (1, at.stride)
    main = Sequential(
        {
            "conv1": conv(at.C, width, 1, rng, first),
            "bn1": BatchNormReLU2d(width),
            "conv2": conv(width, width, 3, rng, second, groups),
            "bn2": BatchNormReLU2d(width),
            "conv3": conv(width, at.OC, 1, rng),
        }
    )
    return ResidualNormReLU(main, _last_norm(at.OC, zero_init), way_past(at, shortcut, pad_where, rng), norm_name="bn3")


def _last_norm(C: int, zero_init: bool) -> BatchNormReLU2d:
    norm = BatchNormReLU2d(C)
    if zero_init and norm.weight is not None:
        norm.weight.data[...] = 0
    return norm


# ---- the parts of a network --------------------------------------------------------------------------------


def stages(
    block: Callable[[Place], Layer], C: int, widths: Sequence[int], counts: Sequence[int], checkpointed: bool = False
) -> dict[str, Layer]:
    """Return "layer1", "layer2", …, each a sequence of blocks; the first block of each but layer1 halves the image.

    Args:
        block: makes a block for its place.
        C: channels of the first block's input.
        widths: channels of each stage's output.
        counts: its blocks.
        checkpointed: wrap each block in `Checkpointed`.

    Raises:
        ValueError: a stage without blocks, or fewer of ``widths`` than of ``counts``.
    """
    if min(counts, default=0) < 1 or len(counts) > len(widths):
        raise ValueError(f"counts must be the blocks, 1 or more, of at most {len(widths)} stages, got {tuple(counts)}")
    found: dict[str, Layer] = {}
    number = 0
    for OC, count in zip(widths, counts, strict=False):
        blocks = []
        for j in range(count):
            layer = block(Place(C, OC, 2 if found and j == 0 else 1, number))
            blocks.append(Checkpointed(layer) if checkpointed else layer)
            C, number = OC, number + 1
        found[f"layer{len(found) + 1}"] = Sequential(*blocks)
    return found


def cifar_stem(in_channels: int, OC: int, rng: Rng) -> dict[str, Layer]:
    """Return the 3×3 convolution with normalisation and ReLU that networks for 32×32 images begin with."""
    return {"conv1": conv(in_channels, OC, 3, rng), "bn1": BatchNormReLU2d(OC)}


def network(parts: Mapping[str, Layer], C: int, num_classes: int, rng: Rng, init: Initializer | None = None) -> Network:
    """Return ``parts``, the last of C channels, followed by their average and one linear layer (``init`` is its)."""
    ending = {"avgpool": GlobalAvgPool2d(), "flatten": Flatten(), "fc": Linear(C, num_classes, init=init, rng=rng)}
    return Network({**parts, **ending}, features=list(parts)[-1], classifier="fc")


# ---- the networks ------------------------------------------------------------------------------------------


@checked
def basic_resnet(
    counts: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    width: int = 64,
    shortcut: Shortcut = "B",
    pad_where: Where = "both",
    zero_init_residual: bool = False,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build a residual network of basic blocks for images of 224×224 pixels, or other sizes.

    Args:
        counts: blocks of each stage, (2, 2, 2, 2) for ResNet-18; at most four stages.
        num_classes: outputs.
        in_channels: channels of the input.
        width: channels of the first stage; each further one has twice as many.
        shortcut: option "A" (zero channels) or "B" (projection) where the size changes.
        pad_where: where option A puts the zero channels: half of them before and half after the old ones, or all
            at the "end".
        zero_init_residual: start the last normalisation of each block at γ = 0, so that each block is the identity.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights.

    Raises:
        ValueError: no such shortcut, a stage without blocks.
    """
    rng = np.random.default_rng(rng)
    block = partial(basic_block, shortcut=shortcut, pad_where=pad_where, zero_init=zero_init_residual, rng=rng)
    return _imagenet(block, width, 1, counts, num_classes, in_channels, checkpointed, rng)


@checked
def bottleneck_resnet(
    counts: Sequence[int],
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    groups: int = 1,
    width_per_group: int = 64,
    stride_in: Literal["1x1", "3x3"] = "3x3",
    width: int = 64,
    shortcut: Shortcut = "B",
    pad_where: Where = "both",
    zero_init_residual: bool = False,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build a residual network of bottlenecks for images of 224×224 pixels, or other sizes.

    Args:
        counts: blocks of each stage, (3, 4, 6, 3) for ResNet-50.
        groups, width_per_group: the 3×3 convolutions of the first stage have ``groups`` groups of
            ``width_per_group`` channels; ResNeXt has more than one.
        stride_in: which convolution of a block halves the image, the "3x3" or, as in the paper, the first "1x1".
        num_classes, in_channels, width, shortcut, pad_where, zero_init_residual, checkpointed, rng: as for
            `basic_resnet`; the output of a stage has four times ``width`` channels.

    Raises:
        ValueError: no such shortcut or place of the stride, a stage without blocks.
    """
    rng = np.random.default_rng(rng)
    kind = partial(bottleneck, groups=groups, width_per_group=width_per_group, stride_in=stride_in, rng=rng)
    block = partial(kind, shortcut=shortcut, pad_where=pad_where, zero_init=zero_init_residual)
    return _imagenet(block, width, 4, counts, num_classes, in_channels, checkpointed, rng)


def _imagenet(
    block: Callable[[Place], Layer],
    width: int,
    expansion: int,
    counts: Sequence[int],
    num_classes: int,
    in_channels: int,
    checkpointed: bool,
    rng: Rng,
) -> Network:
    stem: dict[str, Layer] = {
        "conv1": Conv2d(in_channels, width, 7, 2, 3, bias=False, init=he, rng=rng),  # 224² -> 112²
        "bn1": BatchNormReLU2d(width),
        "maxpool": MaxPool2d(3, stride=2, padding=1),  # -> 56²
    }
    widths = [expansion * width * 2**i for i in range(4)]
    parts = stem | stages(block, width, widths, counts, checkpointed)
    return network(parts, widths[len(counts) - 1], num_classes, rng)


_PAPER = "He et al. 2016, Deep residual learning for image recognition"
_IMAGE = (3, 224, 224)

ARCHITECTURES = {
    name: Architecture(partial(build, counts), _IMAGE, parameters, macs, _PAPER, 1000)
    for name, build, counts, parameters, macs in (
        ("resnet18", basic_resnet, (2, 2, 2, 2), 11_689_512, 1_814_073_344),
        ("resnet34", basic_resnet, (3, 4, 6, 3), 21_797_672, 3_663_761_408),
        ("resnet50", bottleneck_resnet, (3, 4, 6, 3), 25_557_032, 4_089_184_256),
        ("resnet101", bottleneck_resnet, (3, 4, 23, 3), 44_549_160, 7_801_405_440),
        ("resnet152", bottleneck_resnet, (3, 8, 36, 3), 60_192_808, 11_513_626_624),
    )
}
