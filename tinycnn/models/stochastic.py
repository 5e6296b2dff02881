"""Stochastic depth: residual networks for 32×32 images that are, in each training step, some shallower network.

A residual block that adds nothing is the identity, so blocks can be left out.  Do that at random in every step, for
the whole batch, and gradients have a short way down, steps are cheaper, and evaluation, with all blocks, averages over
very many networks: ResNet-110 errs on CIFAR-10 5.2 % in place of 6.4 %, and 1202 layers are better than 110::

    x ─┬─ conv1 ─ bn1 ─ ReLU ─ conv2 ─ bn2 ─ × m/(1 − p) ─ + ─ ReLU ─          m = 1 with probability 1 − p, else 0
       └──────────────────── shortcut ─────────────────────┘

Early blocks, whose features all later ones use, are kept more often: block l of L survives with probability
1 − l/L·(1 − p_L), falling linearly to p_L = 0.5; on average three quarters of the blocks are computed.

**Scale.**  The paper multiplies a kept branch by 1 and, in evaluation, by its probability of survival 1 − p; here, as
in dropout today, a kept branch is divided by 1 − p, and evaluation is the plain network of the same depth, for whose
names and shapes the weights fit.  As the branch ends in a normalisation, the two are one function: the paper's γ and β
of bn2 are these divided by 1 − p.  So that the first step is the paper's, with its γ = 1, bn2 starts at γ = 1 − p.
What differs from then on is how fast these two move: measured as the paper's γ and β, SGD takes steps 1/(1 − p)² times
as long, which is 1 in the first block and 4 in the last.

A block that is left out costs next to nothing on a CPU; on a GPU it is computed and multiplied by 0
(`tinycnn.layers.stochastic`).  Parameters, multiply-adds and, but for these γ, initialisation are those of
`resnet_cifar`.

Source: Huang, Sun, Liu, Sedra & Weinberger 2016, "Deep networks with stochastic depth", sections 3 and 4.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..layers import BatchNorm2d, ReLU, Residual, Sequential, StochasticBranch
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network
from .resnet import Place, Rng, Shortcut, Where, two_convolutions, way_past
from .resnet_cifar import blocks_per_stage, cifar_network


@checked
def stochastic_resnet(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    survival: float = 0.5,
    shortcut: Shortcut = "A",
    pad_where: Where = "both",
    checkpointed: bool = False,
    rng: Rng | None = None,
) -> Network:
    """Build the network of 6n + 2 = ``depth`` layers.

    Args:
        depth: 110, 1202, or any other 6n + 2.
        num_classes: outputs.
        in_channels: channels of the 32×32 input.
        survival: p_L, the probability with which the last block is kept; 1 is the plain network.
        shortcut: option "A" (zero channels) or "B" (projection) where the size changes.
        pad_where: where option A puts the zero channels: half of them before and half after the old ones, or all
            at the "end".
        checkpointed: save memory by repeating each block's forward during backward.
        rng: generator of the initial weights, and of the choices.

    Raises:
        ValueError: no such depth or shortcut; ``survival`` is no probability.
    """
    n = blocks_per_stage(depth)
    if not 0 <= survival <= 1:
        raise ValueError(f"survival is the probability of keeping the last block, from 0 to 1, got {survival}")
    rng = np.random.default_rng(rng)

    def block(at: Place) -> Layer:
        p = (at.number + 1) / (3 * n) * (1 - survival)
        norm = BatchNorm2d(at.OC)
        if norm.weight is not None:
            norm.weight.data[...] = 1 - p
        main = two_convolutions(at, rng).append(norm, "bn2")
        way = way_past(at, shortcut, pad_where, rng)
        return Sequential({"": Residual(StochasticBranch(main, p, rng=rng), way), "relu": ReLU()})

    return cifar_network(block, n, num_classes, in_channels, checkpointed, rng)


_PAPER = "Huang et al. 2016, Deep networks with stochastic depth"

ARCHITECTURES = {
    f"stochastic_resnet{depth}": Architecture(partial(stochastic_resnet, depth), (3, 32, 32), parameters, macs, _PAPER)
    for depth, parameters, macs in (
        (110, 1_727_962, 252_887_680),
        (1202, 19_421_274, 2_829_238_912),
    )
}
