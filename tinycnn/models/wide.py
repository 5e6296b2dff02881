"""Wide residual networks: few, broad blocks in place of many narrow ones.

Doubling the depth of a residual network doubles its cost and, beyond some fifty layers, gains little.  Multiplying the
channels of every block by k multiplies parameters and multiply-adds by k², but those are large matrix products, which
hardware likes, one after another only a few times: WRN-28-10 errs less on CIFAR-10 than the pre-activation network of
1001 layers, and trains several times faster.  The block is the basic one of `preact`, with dropout (the paper's 0.3,
here by default off) between its convolutions::

    x ─┬─ bn1 ─ ReLU ─ conv1 3×3 ─ bn2 ─ ReLU ─ dropout ─ conv2 3×3 ─ + ─
       └──────────────────────────────────────────────────────────────┘

Where the size changes, the ways part after the first ReLU and the shortcut is a 1×1 convolution without normalisation.

A 3×3 stem of 16 channels; three stages of n blocks at 32², 16² and 8² pixels, with 16k, 32k and 64k channels; a last
normalisation and ReLU; average; one linear layer: WRN-d-k of depth d = 6n + 4, projections counted.

==========  ===  ===  ==========  =============
network     d    k    parameters  multiply-adds
==========  ===  ===  ==========  =============
wrn_16_8    16   8    10,961,370   1.548 · 10⁹
wrn_28_10   28   10   36,479,194   5.243 · 10⁹
wrn_40_4    40   4     8,949,210   1.299 · 10⁹
==========  ===  ===  ==========  =============

Convolutions start He-normal on fan-out and the linear layer's bias at 0, as the authors' code has it; normalisations
at γ = 1 and β = 0; the linear layer's weights as PyTorch's, U(±1/√fan_in).  Names are those of
github.com/xternalman/WideResNet-pytorch.

Source: Zagoruyko & Komodakis 2016, "Wide residual networks", figure 1d, table 1 and sections 2.4 and 3.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..initializers import default_uniform
from ..layers import BatchNormReLU2d, Sequential
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network
from .preact import preact_basic
from .resnet import Place, Rng, conv, network, stages


@checked
def wide_resnet(
    depth: int,
    widen: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    dropout: float = 0.0,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build WRN-d-k.

    Args:
        depth: d, 6n + 4.
        widen: k.
        num_classes: outputs.
        in_channels: channels of the 32×32 input.
        dropout: probability of dropping a number between the convolutions of a block.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights, and of dropout.

    Raises:
        ValueError: no such depth or width; ``dropout`` is no probability.
    """
    n, remainder = divmod(depth - 4, 6)
    if n < 1 or remainder:
        raise ValueError(f"depth must be 6n + 4 (10, 16, 22, 28, …), got {depth}")
    if widen < 1:
        raise ValueError(f"widen, the factor of all channels, must be at least 1, got {widen}")
    rng = np.random.default_rng(rng)

    def block(at: Place) -> Layer:
        way = conv(at.C, at.OC, 1, rng, at.stride) if at.resizes else None
        return preact_basic(at, way, shared=at.resizes, dropout=dropout, shortcut_name="convShortcut", rng=rng)

    widths = [OC * widen for OC in (16, 32, 64)]
    parts: dict[str, Layer] = {"conv1": conv(in_channels, 16, 3, rng)}
    for i, stage in enumerate(stages(block, 16, widths, (n, n, n), checkpointed).values(), start=1):
        parts[f"block{i}"] = Sequential({"layer": stage})
    # where an initialiser is given, be it the usual one, the bias starts at 0
    return network(parts | {"bn1": BatchNormReLU2d(widths[-1])}, widths[-1], num_classes, rng, default_uniform)


_PAPER = "Zagoruyko & Komodakis 2016, Wide residual networks"

ARCHITECTURES = {
    f"wrn_{depth}_{widen}": Architecture(partial(wide_resnet, depth, widen), (3, 32, 32), parameters, macs, _PAPER)
    for depth, widen, parameters, macs in (
        (16, 8, 10_961_370, 1_548_145_664),
        (28, 10, 36_479_194, 5_243_328_768),
        (40, 4, 8_949_210, 1_298_582_016),
    )
}
