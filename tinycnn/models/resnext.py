"""ResNeXt: residual networks whose bottlenecks work in many narrow paths instead of one wide one.

A bottleneck may be thought of as split into G paths of D channels each, all of one form, whose results are added up::

          ┌─ 1×1, D ─ 3×3, D ─ 1×1 ─┐
    x ─┬──┼─ 1×1, D ─ 3×3, D ─ 1×1 ─┼─ + ─ + ─ ReLU ─
       │  └─ …           (G of them)┘      │
       └───────────── shortcut ────────────┘

The first convolutions of all paths together are one 1×1 convolution to G·D channels, and the last ones, added up, one
from G·D channels; only the 3×3 convolutions are apart from each other, and those are one convolution of G groups.
So this is the bottleneck of `resnet`, with ``groups``.  "32×4d" says G = 32 and D = 4 in the first stage; D doubles
from stage to stage.  More paths at the same cost (fewer channels in each) err less.

==================  ====================  ==========  =============
network             blocks per stage      parameters  multiply-adds
==================  ====================  ==========  =============
resnext29_32x4d     3, 3, 3 (32²)          4,775,754   0.774 · 10⁹
resnext29_8x64d     3, 3, 3 (32²)         34,426,698   5.387 · 10⁹
resnext29_16x64d    3, 3, 3 (32²)         68,155,210  10.689 · 10⁹
resnext50_32x4d     3, 4, 6, 3 (224²)     25,028,904   4.230 · 10⁹
resnext101_32x8d    3, 4, 23, 3 (224²)    88,791,336  16.414 · 10⁹
==================  ====================  ==========  =============

The networks of depth 29 are for 32×32 images: a 3×3 stem of 64 channels, three stages of 256, 512 and 1024 channels
at 32², 16² and 8² pixels.  The others differ from ResNet-50 and -101 in nothing but groups and width.  All halve
the image in the 3×3 convolution, project where sizes change (option B), and start as `resnet` does.  Names are
torchvision's, also for depth 29, which it does not have.

Source: Xie, Girshick, Dollár, Tu & He 2017, "Aggregated residual transformations for deep neural networks", figure 3,
table 1, sections 4 and 5.3.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from .arguments import checked
from .network import Architecture, Network
from .resnet import Rng, bottleneck, bottleneck_resnet, cifar_stem, network, stages


@checked
def resnext_cifar(
    depth: int,
    groups: int,
    width_per_group: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    width: int = 64,
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build the network of 9n + 2 = ``depth`` layers for 32×32 images.

    Args:
        depth: 29, or any other 9n + 2.
        groups, width_per_group: G and D of the first stage.
        num_classes: outputs.
        in_channels: channels of the input.
        width: channels of the stem; the first stage has four times as many.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights.

    Raises:
        ValueError: no such depth.
    """
    n, remainder = divmod(depth - 2, 9)
    if n < 1 or remainder:
        raise ValueError(f"depth must be 9n + 2 (11, 20, 29, 38, …), got {depth}")
    rng = np.random.default_rng(rng)
    block = partial(bottleneck, groups=groups, width_per_group=width_per_group, rng=rng)
    widths = [4 * width * 2**i for i in range(3)]
    parts = cifar_stem(in_channels, width, rng) | stages(block, width, widths, (n, n, n), checkpointed)
    return network(parts, widths[-1], num_classes, rng)


_PAPER = "Xie et al. 2017, Aggregated residual transformations for deep neural networks"

ARCHITECTURES = {
    f"resnext29_{G}x{D}d": Architecture(partial(resnext_cifar, 29, G, D), (3, 32, 32), parameters, macs, _PAPER)
    for G, D, parameters, macs in (
        (8, 64, 34_426_698, 5_387_266_048),
        (16, 64, 68_155_210, 10_688_866_304),
        (32, 4, 4_775_754, 774_055_936),
    )
} | {
    name: Architecture(
        partial(bottleneck_resnet, counts, groups=32, width_per_group=D), (3, 224, 224), parameters, macs, _PAPER, 1000
    )
    for name, counts, D, parameters, macs in (
        ("resnext50_32x4d", (3, 4, 6, 3), 4, 25_028_904, 4_230_479_872),
        ("resnext101_32x8d", (3, 4, 23, 3), 8, 88_791_336, 16_414_015_488),
    )
}
