"""Residual networks for 32×32 images, and the plain networks they are compared with.

A 3×3 stem of 16 channels, three stages of n blocks with 16, 32 and 64 channels at 32², 16² and 8² pixels, global
average pooling and one linear layer: 6n + 2 layers.  A block is two 3×3 convolutions, each followed by batch
normalisation, and in the residual nets a shortcut around the two::

    x ─┬─ conv1 ─ bn1 ─ ReLU ─ conv2 ─ bn2 ─ + ─ ReLU ─
       └───────────── shortcut ──────────────┘

Where a stage begins, the block halves the image and doubles the channels, and the shortcut must do so too:
option A subsamples by 2 and fills the new channels with zeros (no parameters), option B is a 1×1 convolution of
stride 2 with batch normalisation.

**Memory.**  A block saves four arrays of its output's size; ``checkpointed=True`` saves one, its input, for one more
forward in backward.  A training step of ResNet-1202 on a CPU, SGD with momentum (whose three arrays of the parameters'
size are 0.2 GiB), takes

==========  ========  ============
batch       plain     checkpointed
==========  ========  ============
16          1.5 GiB   0.5 GiB
128         11.2 GiB  3.0 GiB
==========  ========  ============

the 11.2 GiB being extrapolated from batches of 16 and 32.

Source: He, Zhang, Ren & Sun 2016, "Deep residual learning for image recognition", sections 3.3 and 4.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from ..layers import BatchNormReLU2d
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network
from .resnet import Place, Rng, Where, basic_block, cifar_stem, network, stages, two_convolutions


@checked
def resnet_cifar(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    shortcut: Literal["A", "B", "none"] = "A",
    pad_where: Where = "both",
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build the network of 6n + 2 = ``depth`` layers.

    Args:
        depth: 20, 32, 44, 56, 110, 1202, or any other 6n + 2.
        num_classes: outputs.
        in_channels: channels of the 32×32 input.
        shortcut: option "A" (zero-padding) or "B" (projection) where the size changes; "none" leaves out all
            shortcuts: the plain network.
        pad_where: where option A puts the zero channels: half of them before and half after the old ones,
            as published PyTorch checkpoints have it, or all at the end.
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights, He-normal on fan-out; the last layer U(±1/√fan_in).

    Raises:
        ValueError: no such depth or shortcut.
    """
    if shortcut not in ("A", "B", "none"):
        raise ValueError(f"shortcut must be 'A', 'B' or 'none', got {shortcut!r}")
    rng = np.random.default_rng(rng)
    block: Callable[[Place], Layer] = partial(_plain_block, rng=rng)
    if shortcut != "none":
        block = partial(basic_block, shortcut=shortcut, pad_where=pad_where, rng=rng)
    return cifar_network(block, blocks_per_stage(depth), num_classes, in_channels, checkpointed, rng)


def blocks_per_stage(depth: int) -> int:
    """Return n of a network of 6n + 2 = ``depth`` layers.

    Raises:
        ValueError: there is none.
    """
    n, remainder = divmod(depth - 2, 6)
    if n < 1 or remainder:
        raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 26, …), got {depth}")
    return n


def cifar_network(
    block: Callable[[Place], Layer], n: int, num_classes: int, in_channels: int, checkpointed: bool, rng: Rng
) -> Network:
    """Return the network of the module docstring with any kind of block."""
    parts = cifar_stem(in_channels, 16, rng) | stages(block, 16, (16, 32, 64), (n, n, n), checkpointed)
    return network(parts, 64, num_classes, rng)


def _plain_block(at: Place, rng: Rng) -> Layer:
    return two_convolutions(at, rng).append(BatchNormReLU2d(at.OC), "bn2")


_PAPER = "He et al. 2016, Deep residual learning for image recognition"
_COST = {  # depth: parameters, multiply-adds
    20: (269_722, 40_551_040),
    32: (464_154, 68_862_592),
    44: (658_586, 97_174_144),
    56: (853_018, 125_485_696),
    110: (1_727_962, 252_887_680),
    1202: (19_421_274, 2_829_238_912),
}

ARCHITECTURES = {
    f"resnet{depth}": Architecture(partial(resnet_cifar, depth), (3, 32, 32), *cost, _PAPER)
    for depth, cost in _COST.items()
} | {
    f"plain{depth}": Architecture(partial(resnet_cifar, depth, shortcut="none"), (3, 32, 32), *cost, _PAPER)
    for depth, cost in _COST.items()
    if depth <= 110
}
