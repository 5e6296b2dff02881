"""Network in network: a small network slides over the image where a convolution had a single product.

A convolution is a linear model of the patch below it.  Here a perceptron takes its place: one convolution, then two
of 1×1, which mix the channels at each pixel (*cascaded cross-channel parametric* pooling, hence ``cccp``), each with
ReLU.  The last of these blocks has one channel per class, and the mean of that channel over the whole image is the
score of the class: there is no fully connected layer, hence nothing that sees where in the image a thing was, and
little to overfit::

    nin_cifar, 3×32×32                                        nin_imagenet, 3×224×224

    conv1 5×5     192 ─ cccp1 160 ─ cccp2 96 ─ max-pool       conv1 11×11/4  96 ─ cccp1  96 ─ cccp2  96 ─ max-pool
    dropout                                                   conv2 5×5     256 ─ cccp3 256 ─ cccp4 256 ─ max-pool
    conv2 5×5     192 ─ cccp3 192 ─ cccp4 192 ─ mean-pool     conv3 3×3     384 ─ cccp5 384 ─ cccp6 384 ─ max-pool
    dropout                                                   dropout
    conv3 3×3     192 ─ cccp5 192 ─ cccp6 10 ─ global mean    conv4 3×3    1024 ─ cccp7 1024 ─ cccp8 1000 ─ global mean

Pools are 3×3 with stride 2 and take in a last row and column that do not fill a window, 32 -> 16 -> 8.  ReLU comes
after every convolution, also after that of the classes.

**Cost**: 0.97 million parameters and 222 million multiply-adds; 7.6 million and 1.1 billion.

Names and sizes are those of the authors' definitions for Caffe, and so are the initial weights, where the paper is
silent: N(0, 0.05²), on ImageNet N(0, 0.01²) for conv1, conv3 and the classes; biases 0.

Source: Lin, Chen & Yan 2014, "Network in network".
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..initializers import normal
from ..layers import AvgPool2d, Conv2d, Dropout, Flatten, GlobalAvgPool2d, MaxPool2d, ReLU
from ..layers.base import Layer
from .arguments import checked
from .network import Architecture, Network

_wide, _narrow = partial(normal, std=0.05), partial(normal, std=0.01)


@checked
def nin_cifar(
    num_classes: int = 10, in_channels: int = 3, *, dropout: float = 0.5, rng: np.random.Generator | None = None
) -> Network:
    """Build the network of three blocks.  (The authors whiten its images first: global contrast, then ZCA.)

    Args:
        num_classes: outputs.
        in_channels: channels of the input, of 32×32 pixels or any other size.
        dropout: share of the inputs of the second and third block that training drops.
        rng: generator of the initial weights and of dropout.
    """
    rng = np.random.default_rng(rng)
    return Network(
        {
            **_relu("conv1", Conv2d(in_channels, 192, 5, padding=2, init=_wide, rng=rng)),
            **_mix("cccp1", 192, 160, rng),
            **_mix("cccp2", 160, 96, rng),
            "pool1": MaxPool2d(3, stride=2, ceil_mode=True),
            "drop1": Dropout(dropout, rng=rng),
            **_relu("conv2", Conv2d(96, 192, 5, padding=2, init=_wide, rng=rng)),
            **_mix("cccp3", 192, 192, rng),
            **_mix("cccp4", 192, 192, rng),
            "pool2": AvgPool2d(3, stride=2, ceil_mode=True),
            "drop2": Dropout(dropout, rng=rng),
            **_relu("conv3", Conv2d(192, 192, 3, padding=1, init=_wide, rng=rng)),
            **_mix("cccp5", 192, 192, rng),
            **_mix("cccp6", 192, num_classes, rng),
            "pool3": GlobalAvgPool2d(),
            "flatten": Flatten(),
        },
        features="relu_cccp5",
        classifier="cccp6",
    )


@checked
def nin_imagenet(
    num_classes: int = 1000, in_channels: int = 3, *, dropout: float = 0.5, rng: np.random.Generator | None = None
) -> Network:
    """Build the network of four blocks.

    Args:
        num_classes: outputs.
        in_channels: channels of the input, of 224×224 pixels or any size from 39×39.
        dropout: share of the inputs of the last block that training drops.
        rng: generator of the initial weights and of dropout.
    """
    rng = np.random.default_rng(rng)
    return Network(
        {
            **_relu("conv1", Conv2d(in_channels, 96, 11, stride=4, init=_narrow, rng=rng)),
            **_mix("cccp1", 96, 96, rng),
            **_mix("cccp2", 96, 96, rng),
            "pool1": MaxPool2d(3, stride=2, ceil_mode=True),
            **_relu("conv2", Conv2d(96, 256, 5, padding=2, init=_wide, rng=rng)),
            **_mix("cccp3", 256, 256, rng),
            **_mix("cccp4", 256, 256, rng),
            "pool2": MaxPool2d(3, stride=2, ceil_mode=True),
            **_relu("conv3", Conv2d(256, 384, 3, padding=1, init=_narrow, rng=rng)),
            **_mix("cccp5", 384, 384, rng),
            **_mix("cccp6", 384, 384, rng),
            "pool3": MaxPool2d(3, stride=2, ceil_mode=True),
            "drop3": Dropout(dropout, rng=rng),
            **_relu("conv4", Conv2d(384, 1024, 3, padding=1, init=_wide, rng=rng)),
            **_mix("cccp7", 1024, 1024, rng),
            **_relu("cccp8", Conv2d(1024, num_classes, 1, init=_narrow, rng=rng)),
            "pool4": GlobalAvgPool2d(),
            "flatten": Flatten(),
        },
        features="relu_cccp7",
        classifier="cccp8",
    )


def _mix(name: str, C: int, OC: int, rng: np.random.Generator) -> dict[str, Layer]:
    """A layer of the sliding perceptron: each pixel's C channels to OC."""
    return _relu(name, Conv2d(C, OC, 1, init=_wide, rng=rng))


def _relu(name: str, layer: Layer) -> dict[str, Layer]:
    return {name: layer, f"relu_{name}": ReLU()}


_PAPER = "Lin, Chen & Yan 2014, Network in network"

ARCHITECTURES = {
    "nin_cifar": Architecture(nin_cifar, (3, 32, 32), 966_986, 222_486_528, _PAPER),
    "nin_imagenet": Architecture(nin_imagenet, (3, 224, 224), 7_595_176, 1_100_188_800, _PAPER, 1000),
}
