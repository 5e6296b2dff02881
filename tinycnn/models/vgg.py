"""VGG: nothing but 3×3 convolutions, and many of them.

Two 3×3 convolutions see as much of the image as one of 5×5, three as much as one of 7×7, with fewer parameters (27·C²
in place of 49·C²) and two more ReLUs between.  So a network is a column of one kind of layer: five stages, each of one
to four convolutions that keep height and width, then a max-pooling that halves both; where a stage begins, channels
double, up to 512.  Three fully connected layers classify the last 7×7 pixels::

    stage   pixels  channels   convolutions in VGG-11  VGG-13  VGG-16  VGG-19   (configuration A, B, D, E)
    1       224²    64                             1       2       2       2
    2       112²    128                            1       2       2       2
    3       56²     256                            2       2       3       4
    4       28²     512                            2       2       3       4
    5       14²     512                            2       2       3       4
            7²      linear 4096 ─ ReLU ─ dropout ─ linear 4096 ─ ReLU ─ dropout ─ linear 1000

The forms ending in ``_bn`` normalise between convolution and ReLU; the convolution keeps its bias, which the
normalisation then takes out again.  The forms for CIFAR end in 512×1×1 pixels and one linear layer (the form of
github.com/kuangliu/pytorch-cifar).

**Cost**: 133 to 144 million parameters, of which the first linear layer alone holds 103 million, and 7.6 to 19.6
billion multiply-adds, almost all of them in the convolutions.

Names of parameters are torchvision's.  So are the initial values: He-normal on fan-out for convolutions, N(0, 0.01²)
for linear layers, biases 0.  (The paper drew all weights from N(0, 0.01) of that *variance*, and had to start deep
networks from trained shallow ones.)

Sources: Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", table 1;
initial values, He et al. 2015, "Delving deep into rectifiers".
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..initializers import he_normal, normal
from ..layers import (
    AdaptiveAvgPool2d,
    BatchNormReLU2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Number of convolutions in each stage, by depth."""

_he = partial(he_normal, mode="fan_out")


@checked
def vgg(
    depth: int,
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    batch_norm: bool = False,
    dropout: float = 0.5,
    hidden: int = 4096,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build a network for images of 224×224 pixels, or any size from 32×32.

    Args:
        depth: 11, 13, 16 or 19 layers with weights.
        num_classes: outputs.
        in_channels: channels of the input.
        batch_norm: whether each convolution is normalised.
        dropout: share of the outputs of the two hidden linear layers that training drops.
        hidden: width of these two layers.
        rng: generator of the initial weights and of dropout.

    Raises:
        ValueError: no such depth.
    """
    rng = np.random.default_rng(rng)
    classifier = Sequential(
        *(Linear(512 * 7 * 7, hidden, init=normal, rng=rng), ReLU(), Dropout(dropout, rng=rng)),
        *(Linear(hidden, hidden, init=normal, rng=rng), ReLU(), Dropout(dropout, rng=rng)),
        Linear(hidden, num_classes, init=normal, rng=rng),
    )
    return Network(
        {
            "features": _features(depth, in_channels, batch_norm, rng),
            "avgpool": AdaptiveAvgPool2d(7),
            "flatten": Flatten(),
            "classifier": classifier,
        },
        features="features",
        classifier="classifier.6",
    )


@checked
def vgg_cifar(
    depth: int,
    num_classes: int = 10,
    in_channels: int = 3,
    *,
    batch_norm: bool = True,
    dropout: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build a network for images of 32×32 pixels.

    Args:
        depth: 11, 13, 16 or 19: the stages are those of that network for ImageNet.
        num_classes: outputs.
        in_channels: channels of the input.
        batch_norm: whether each convolution is normalised.
        dropout: share of the 512 features that training drops.
        rng: generator of the initial weights and of dropout.

    Raises:
        ValueError: no such depth.
    """
    rng = np.random.default_rng(rng)
    return Network(
        {
            "features": _features(depth, in_channels, batch_norm, rng),
            "flatten": Flatten(),
            "dropout": Dropout(dropout, rng=rng),
            "classifier": Linear(512, num_classes, init=normal, rng=rng),
        },
        features="features",
        classifier="classifier",
    )


def _features(depth: int, C: int, batch_norm: bool, rng: np.random.Generator) -> Sequential:
    """The five stages, numbered as PyTorch does: convolution, normalisation and ReLU count as three."""
    if depth not in CONVOLUTIONS:
        raise ValueError(f"depth must be one of {', '.join(map(str, CONVOLUTIONS))}, got {depth}")
    layers: dict[str, Layer] = {}
    i = 0
    for OC, convolutions in zip((64, 128, 256, 512, 512), CONVOLUTIONS[depth], strict=True):
        for _ in range(convolutions):
            layers[str(i)] = Conv2d(C, OC, 3, padding=1, init=_he, rng=rng)
            layers[str(i + 1)] = BatchNormReLU2d(OC) if batch_norm else ReLU()
            i, C = i + 2 + batch_norm, OC
        layers[str(i)] = MaxPool2d(2)
        i += 1
    return Sequential(layers)


_PAPER = "Simonyan & Zisserman 2015, Very deep convolutional networks for large-scale image recognition"
_COST = {  # depth: parameters without and with normalisation, multiply-adds
    11: (132_863_336, 132_868_840, 7_609_090_048),
    13: (133_047_848, 133_053_736, 11_308_466_176),
    16: (138_357_544, 138_365_992, 15_470_264_320),
    19: (143_667_240, 143_678_248, 19_632_062_464),
}
_COST_CIFAR = {16: (14_728_266, 313_201_664), 19: (20_040_522, 398_136_320)}

ARCHITECTURES = (
    {
        f"vgg{depth}": Architecture(partial(vgg, depth), (3, 224, 224), plain, macs, _PAPER, 1000)
        for depth, (plain, _, macs) in _COST.items()
    }
    | {
        f"vgg{depth}_bn": Architecture(
            partial(vgg, depth, batch_norm=True), (3, 224, 224), normalised, macs, _PAPER, 1000
        )
        for depth, (_, normalised, macs) in _COST.items()
    }
    | {
        f"vgg{depth}_bn_cifar": Architecture(partial(vgg_cifar, depth), (3, 32, 32), *cost, _PAPER)
        for depth, cost in _COST_CIFAR.items()
    }
)
