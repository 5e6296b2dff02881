"""Densely connected networks: every layer of a block reads the outputs of all layers before it.

A network is a stem, dense blocks with transitions between them, and a classifier of the mean over all pixels.  A layer
adds k channels, the *growth rate*, to those that are there; a transition halves the image and, in the networks called
DenseNet-C, the channels too (*compression*)::

    layer       ─┬─ norm1 ─ ReLU ─ conv1 1×1 to 4k ─ norm2 ─ ReLU ─ conv2 3×3 to k ─ concatenation ─
                 └────────────────────────────────────────────────────────────────────────┘
    transition  ─── norm ─ ReLU ─ conv 1×1 ─ average 2×2 ─

Without the bottleneck (it is what "B" stands for) a layer is ``norm1``, ReLU and ``conv1``, 3×3 to k.  The sum in a
residual network mixes what it adds; here everything stays as it was written, 12 to 32 channels a layer suffice, and
with 8 million parameters DenseNet-121 is as accurate as a ResNet of 25 million.

=====================  ======  ========================  ====  ===========================================
name                   images  layers of the blocks      k     stem
=====================  ======  ========================  ====  ===========================================
``densenet121``        224²    6, 12, 24, 16             32    conv 7×7/2 to 2k, norm, ReLU, max-pool 3×3/2
``densenet169``        224²    6, 12, 32, 32             32    the same
``densenet201``        224²    6, 12, 48, 32             32    the same
``densenet_bc_100_12`` 32²     16, 16, 16                12    conv 3×3 to 2k
``densenet_40_12``     32²     12, 12, 12                12    conv 3×3 to 16; neither bottleneck nor compression
=====================  ======  ========================  ====  ===========================================

**Names** are those of torchvision's networks (its older files say ``norm.1`` for ``norm1``, and so on); of the networks
for 32×32 images, whose last norm is ``norm_final``, those of Pleiss's implementation for the paper's authors.

**Dropout** is where the paper has it, behind every convolution but the stem's, at a rate of 0.2 for data that is not
augmented.  (torchvision drops behind ``conv2`` only.)

**Memory** is what these networks are notorious for: layer by layer, a block's concatenations and their norms would take
L²/2 times its output.  `tinycnn.layers.dense` says what is done about it, and what still grows so without
``checkpointed=True``, which costs a share of a forward.  What a process takes for training steps of ``densenet201`` on
224² images, in float32, besides what it had after the imports (weights, gradients and momentum are 0.22 GiB of that;
"concatenated": the same layers, each within a `Concat`; one run each on two cores of a Xeon)::

    images  concatenated     default          checkpointed
    4       1.0 GiB          0.8 GiB          0.5 GiB
    16      3.3 GiB, 7.3 s   2.3 GiB, 6.1 s   0.8 GiB, 7.1 s

Source: Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks", section 3, section 4.2
and table 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ..initializers import default_uniform, he_normal
from ..layers import (
    AvgPool2d,
    BatchNormReLU2d,
    Conv2d,
    DenseBlock,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    Sequential,
)
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network

LAYERS = {121: (6, 12, 24, 16), 161: (6, 12, 36, 24), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32), 264: (6, 12, 64, 48)}
"""Layers of the four blocks, by depth."""


@checked
def densenet(
    depth: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    growth_rate: int = 32,
    compression: float = 0.5,
    dropout: float = 0.0,
    checkpointed: bool = False,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build a network for ImageNet, with bottlenecks.

    Args:
        depth: 121, 169, 201 or 264; 161, which was published with a growth rate of 48.
        num_classes: outputs.
        in_channels: channels of the input, of 224×224 pixels or any size from 29×29.
        growth_rate: k.
        compression: share of the channels that a transition keeps.
        dropout: probability that a number behind a convolution, the stem's excepted, is dropped.
        checkpointed: save memory by repeating each layer's forward during backward.
        rng: generator of the initial weights and of dropout.  Filters are He-normal on fan-in, the last layer's
            weight is U(±1/√fan_in) and its bias 0, as torchvision reads the paper's "He et al.".

    Raises:
        ValueError: no such depth, or an argument out of range.
    """
    if depth not in LAYERS:
        raise ValueError(f"depth must be one of {', '.join(map(str, LAYERS))}, got {depth}")
    _check(growth_rate, compression, dropout)
    rng = np.random.default_rng(rng)
    stem = {
        "conv0": _conv(in_channels, 2 * growth_rate, 7, rng, stride=2),
        "norm0": BatchNormReLU2d(2 * growth_rate),
        "pool0": MaxPool2d(3, stride=2, padding=1),
    }
    body, C = _body(LAYERS[depth], 2 * growth_rate, growth_rate, 4, compression, dropout, checkpointed, rng)
    return _network({**stem, **body, "norm5": BatchNormReLU2d(C)}, C, num_classes, rng)


@checked
def densenet_cifar(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    growth_rate: int = 12,
    bottleneck: bool = True,
    compression: float = 0.5,
    dropout: float = 0.0,
    checkpointed: bool = False,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build a network for 32×32 images, of three blocks with as many layers each.

    Args:
        depth: 6n + 4 with bottlenecks, 3n + 4 without, for blocks of n layers.
        num_classes, in_channels: outputs, and channels of the input.
        growth_rate: k.
        bottleneck: whether layers have a 1×1 convolution to 4k channels first.
        compression: share of the channels that a transition keeps; 1 for the plain network.  With a bottleneck and
            compression the stem has 2k channels, otherwise 16.
        dropout, checkpointed, rng: as for `densenet`.

    Raises:
        ValueError: no such depth, or an argument out of range.
    """
    step = 6 if bottleneck else 3
    n, remainder = divmod(depth - 4, step)
    if n < 1 or remainder:
        which = "with bottlenecks" if bottleneck else "without bottlenecks"
        examples = ", ".join(str(step * i + 4) for i in (1, 2, 3))
        raise ValueError(f"depth must be {step}n + 4 {which} ({examples}, …), got {depth}")
    _check(growth_rate, compression, dropout)
    rng = np.random.default_rng(rng)
    C = 2 * growth_rate if bottleneck and compression < 1 else 16
    stem = {"conv0": _conv(in_channels, C, 3, rng)}
    width = 4 if bottleneck else None
    body, C = _body((n, n, n), C, growth_rate, width, compression, dropout, checkpointed, rng)
    return _network({**stem, **body, "norm_final": BatchNormReLU2d(C)}, C, num_classes, rng)


def _check(growth_rate: int, compression: float, dropout: float) -> None:
    if growth_rate < 1:
        raise ValueError(f"growth_rate must be at least 1, got {growth_rate}")
    if not 0 < compression <= 1:
        raise ValueError(f"compression must be greater than 0 and at most 1, got {compression}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and less than 1, got {dropout}")


def _conv(C: int, OC: int, size: int, rng: np.random.Generator, stride: int = 1) -> Conv2d:
    return Conv2d(C, OC, size, stride=stride, padding=size // 2, bias=False, init=he_normal, rng=rng)


def _body(
    layers: Sequence[int],
    C: int,
    growth_rate: int,
    bottleneck: int | None,
    compression: float,
    dropout: float,
    checkpointed: bool,
    rng: np.random.Generator,
) -> tuple[dict[str, Layer], int]:
    """Return the blocks and the transitions between them, and how many channels come out."""
    body: dict[str, Layer] = {}
    for i, L in enumerate(layers, start=1):
        if i > 1:
            OC = max(1, int(compression * C))
            body[f"transition{i - 1}"] = transition(C, OC, dropout, rng)
            C = OC
        body[f"denseblock{i}"] = DenseBlock(
            C, growth_rate, L, bottleneck, dropout, checkpointed=checkpointed, init=he_normal, rng=rng
        )
        C += L * growth_rate
    return body, C


def transition(C: int, OC: int, dropout: float, rng: np.random.Generator) -> Sequential:
    """The transition of the module docstring, from C to OC channels."""
    drop = {"drop": Dropout(dropout, rng=rng)} if dropout else {}
    return Sequential({"norm": BatchNormReLU2d(C), "conv": _conv(C, OC, 1, rng), **drop, "pool": AvgPool2d(2)})


def _network(features: dict[str, Layer], C: int, num_classes: int, rng: np.random.Generator) -> Network:
    return Network(
        {
            "features": Sequential(features),
            "avgpool": GlobalAvgPool2d(),
            "flatten": Flatten(),
            "classifier": Linear(C, num_classes, init=default_uniform, rng=rng),
        },
        features="features",
        classifier="classifier",
    )


_PAPER = "Huang et al. 2017, Densely connected convolutional networks"
_COST = {  # depth: parameters, multiply-adds
    121: (7_978_856, 2_834_161_664),
    169: (14_149_480, 3_359_843_328),
    201: (20_013_928, 4_291_365_888),
}

ARCHITECTURES = {
    f"densenet{depth}": Architecture(partial(densenet, depth), (3, 224, 224), *cost, _PAPER, num_classes=1000)
    for depth, cost in _COST.items()
} | {
    "densenet_bc_100_12": Architecture(partial(densenet_cifar, 100), (3, 32, 32), 769_162, 287_929_692, _PAPER),
    "densenet_40_12": Architecture(
        partial(densenet_cifar, 40, bottleneck=False, compression=1.0), (3, 32, 32), 1_019_722, 264_812_928, _PAPER
    ),
}
