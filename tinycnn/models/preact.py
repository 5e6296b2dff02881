"""Residual networks whose blocks begin with their activations.

In a residual network as first published every sum passes a ReLU, so nothing but non-negative numbers goes on.  Put
normalisation and ReLU *before* each convolution, and the sum is left alone: from one block to any later one there is
a path that is the identity, forward and backward, and a thousand layers train.  The blocks::

    basic       x ─┬─ bn1 ─ ReLU ─ conv1 3×3 ─ bn2 ─ ReLU ─ conv2 3×3 ─ + ─
                   └────────────────────────────────────────────────────┘

    bottleneck  x ─┬─ bn1 ─ ReLU ─ conv1 1×1 ─ bn2 ─ ReLU ─ conv2 3×3 ─ bn3 ─ ReLU ─ conv3 1×1 ─ + ─
                   └─────────────────────────────────────────────────────────────────────────────┘

    first of    x ─ bn1 ─ ReLU ─┬─ conv1 ─ … ─ + ─
    a stage                     └─ downsample ─┘

The first block of a stage activates before the ways part, so that its shortcut too sees bn1 and ReLU.  If sizes change
there, the shortcut is a 1×1 convolution *without* normalisation (option B) or, without parameters, every other pixel
and zero channels (option A).  A bottleneck halves the image in its first convolution.  A last normalisation and ReLU
follow the last sum.

A 3×3 stem of 16 channels; three stages of n blocks at 32², 16² and 8² pixels, with 16, 32 and 64 channels, four times
that with bottlenecks; average; one linear layer.

====================  ==========  =========  ========  ==========  =============
network               block       depth      shortcut  parameters  multiply-adds
====================  ==========  =========  ========  ==========  =============
preact_resnet110      basic       6·18 + 2   A          1,727,962    252.9 · 10⁶
preact_resnet164      bottleneck  9·18 + 2   B          1,703,258    244.5 · 10⁶
preact_resnet1001     bottleneck  9·111 + 2  B         10,327,706  1,487.8 · 10⁶
====================  ==========  =========  ========  ==========  =============

**Memory.**  A training step of preact_resnet1001 on a CPU, SGD with momentum, takes 2.4 GiB at batch 16, and 0.9 GiB
with ``checkpointed=True``; at batch 128 6.3 GiB with it, without it (extrapolated from 16 and 32) 18.4 GiB.

Convolutions start He-normal on fan-out, as the authors' code has it, normalisations at γ = 1 and β = 0, and the
linear layer as PyTorch's, U(±1/√fan_in).  Names are those of ``PreResNet`` in github.com/bearpaw/pytorch-classification
(which, other than the authors' code, takes shortcuts before bn1 and halves the image in the 3×3 convolution).

Source: He, Zhang, Ren & Sun 2016, "Identity mappings in deep residual networks", figures 1 and 4, section 4.1 and
appendix.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

import numpy as np

from ..layers import BatchNormReLU2d, Dropout, Residual, Sequential
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network
from .resnet import Place, Rng, Shortcut, Where, conv, network, stages, way_past


@checked
def preact_resnet(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    block: Literal["basic", "bottleneck"] = "bottleneck",
    shortcut: Shortcut = "B",
    pad_where: Where = "both",
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build the network of 6n + 2 = ``depth`` layers with basic blocks, of 9n + 2 with bottlenecks.

    Args:
        depth: 110 with basic blocks, 164 or 1001 with bottlenecks, or any other that fits.
        num_classes: outputs.
        in_channels: channels of the 32×32 input.
        block: "basic" or "bottleneck".
        shortcut: option "A" (zero channels) or "B" (projection) where the size changes.
        pad_where: where option A puts the zero channels: half of them before and half after the old ones, or all
            at the "end".
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights.

    Raises:
        ValueError: no such depth, block or shortcut.
    """
    if block not in ("basic", "bottleneck"):
        raise ValueError(f"block must be 'basic' or 'bottleneck', got {block!r}")
    layers, expansion = (2, 1) if block == "basic" else (3, 4)
    n, remainder = divmod(depth - 2, 3 * layers)
    if n < 1 or remainder:
        raise ValueError(f"with {block} blocks depth must be {3 * layers}n + 2, got {depth}")
    rng = np.random.default_rng(rng)
    make = preact_basic if block == "basic" else preact_bottleneck

    def at_place(at: Place) -> Layer:
        way = way_past(at, shortcut, pad_where, rng, norm=False)
        return make(at, way, shared=at.number == 0 or at.resizes, rng=rng)

    widths = [expansion * OC for OC in (16, 32, 64)]
    stem = {"conv1": conv(in_channels, 16, 3, rng)}
    parts = stem | stages(at_place, 16, widths, (n, n, n), checkpointed) | {"bn": BatchNormReLU2d(widths[-1])}
    return network(parts, widths[-1], num_classes, rng)


def preact_basic(
    at: Place,
    way: Layer | None,
    *,
    shared: bool,
    dropout: float = 0.0,
    shortcut_name: str = "downsample",
    rng: Rng,
) -> Layer:
    """Return the basic block.

    Args:
        at: where it stands.
        way: its shortcut, if that is not the identity.
        shared: whether the ways part after the first activation.
        dropout: probability of dropping a number between the convolutions.
        shortcut_name: what ``way`` is called in paths.
        rng: generator of the initial weights, and of dropout.
    """
    main: dict[str, Layer] = {
        "conv1": conv(at.C, at.OC, 3, rng, at.stride),
        "bn2": BatchNormReLU2d(at.OC),
    }
    if dropout != 0:
        main["dropout"] = Dropout(dropout, rng=rng)
    main["conv2"] = conv(at.OC, at.OC, 3, rng)
    return _activated_first(at, main, way, shared, shortcut_name)


def preact_bottleneck(at: Place, way: Layer | None, *, shared: bool, rng: Rng) -> Layer:
    """Return the bottleneck; the arguments are those of `preact_basic`."""
    width = at.OC // 4
    main: dict[str, Layer] = {
        "conv1": conv(at.C, width, 1, rng, at.stride),
        "bn2": BatchNormReLU2d(width),
        "conv2": conv(width, width, 3, rng),
        "bn3": BatchNormReLU2d(width),
        "conv3": conv(width, at.OC, 1, rng),
    }
    return _activated_first(at, main, way, shared, "downsample")


def _activated_first(at: Place, main: Mapping[str, Layer], way: Layer | None, shared: bool, name: str) -> Layer:
    activation = BatchNormReLU2d(at.C)
    if shared:
        return Sequential({"bn1": activation, "": Residual(Sequential(main), way, name)})
    return Residual(Sequential({"bn1": activation, **main}), way, name)


_PAPER = "He et al. 2016, Identity mappings in deep residual networks"

ARCHITECTURES = {
    f"preact_resnet{depth}": Architecture(build, (3, 32, 32), parameters, macs, _PAPER)
    for depth, build, parameters, macs in (
        (110, partial(preact_resnet, 110, block="basic", shortcut="A"), 1_727_962, 252_887_680),
        (164, partial(preact_resnet, 164), 1_703_258, 244_500_992),
        (1001, partial(preact_resnet, 1001), 10_327_706, 1_487_849_984),
    )
}
