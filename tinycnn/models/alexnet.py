"""AlexNet: the network that won ImageNet in 2012, and its later form for one GPU.

Five convolutions look ever more coarsely at ever more channels, three of them followed by a max-pooling; three fully
connected layers, which hold 96 % of the parameters, classify what is left: 6×6 pixels.  What was new was the size, ReLU
in place of tanh (training "several times faster"), dropout, and the two GPUs it took::

    alexnet_2012                          alexnet

    3×227×227                             3×224×224
    conv 11×11/4   96 ─ ReLU ─ LRN ─ pool conv 11×11/4   64 ─ ReLU ─ pool
    conv 5×5      256 ─ ReLU ─ LRN ─ pool conv 5×5      192 ─ ReLU ─ pool
    conv 3×3      384 ─ ReLU              conv 3×3      384 ─ ReLU
    conv 3×3      384 ─ ReLU              conv 3×3      256 ─ ReLU
    conv 3×3      256 ─ ReLU ─ pool       conv 3×3      256 ─ ReLU ─ pool ─ mean to 6×6
    linear 4096 ─ ReLU ─ dropout          dropout ─ linear 4096 ─ ReLU
    linear 4096 ─ ReLU ─ dropout          dropout ─ linear 4096 ─ ReLU
    linear 1000                           linear 1000

``alexnet_2012`` is the paper's.  Its convolutions 2, 4 and 5 saw only the channels that lay on their own GPU: two
groups.  After two layers the channels compete (`LocalResponseNorm`, whose α is here not divided by the size of the
neighbourhood).  Pools are 3×3 with stride 2, so that windows overlap.  The paper says 224 pixels, but its 55×55 outputs
need 227 without padding.

``alexnet`` is the sequel, as torchvision has it, with its names of parameters: fewer channels, no groups, no
normalisation; an adaptive pool admits images of other sizes.

**Cost**: 61 million parameters and 0.7 billion multiply-adds each, most of these in the convolutions.

Sources: Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks", section
3 and, for the initial values, 5; Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks",
footnote 1.
"""

from __future__ import annotations

import numpy as np

from ..initializers import normal
from ..layers import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU, Sequential
from .arguments import checked
from .network import Architecture, Network


@checked
def alexnet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    hidden: int = 4096,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build the form for one GPU.

    Args:
        num_classes: outputs.
        in_channels: channels of the input, of 224×224 pixels or any size from 63×63.
        dropout: share of the inputs of the two hidden linear layers that training drops.
        hidden: width of these two layers.
        rng: generator of the initial values, U(±1/√fan_in), PyTorch's, as the paper does not say, and of dropout.
    """
    rng = np.random.default_rng(rng)
    features = Sequential(
        *(Conv2d(in_channels, 64, 11, stride=4, padding=2, rng=rng), ReLU(), MaxPool2d(3, stride=2)),
        *(Conv2d(64, 192, 5, padding=2, rng=rng), ReLU(), MaxPool2d(3, stride=2)),
        *(Conv2d(192, 384, 3, padding=1, rng=rng), ReLU()),
        *(Conv2d(384, 256, 3, padding=1, rng=rng), ReLU()),
        *(Conv2d(256, 256, 3, padding=1, rng=rng), ReLU(), MaxPool2d(3, stride=2)),
    )
    classifier = Sequential(
        *(Dropout(dropout, rng=rng), Linear(256 * 6 * 6, hidden, rng=rng), ReLU()),
        *(Dropout(dropout, rng=rng), Linear(hidden, hidden, rng=rng), ReLU()),
        Linear(hidden, num_classes, rng=rng),
    )
    return Network(
        {"features": features, "avgpool": AdaptiveAvgPool2d(6), "flatten": Flatten(), "classifier": classifier},
        features="features",
        classifier="classifier.6",
    )


@checked
def alexnet_2012(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    dropout: float = 0.5,
    hidden: int = 4096,
    groups: int = 2,
    rng: np.random.Generator | None = None,
) -> Network:
    """Build the network of the paper.

    Args:
        num_classes: outputs.
        in_channels: channels of the 227×227 input.
        dropout: share of the outputs of the two hidden linear layers that training drops.
        hidden: width of these two layers.
        groups: in convolutions 2, 4 and 5; 1 joins what the paper split between two GPUs.
        rng: generator of the initial weights, N(0, 0.01²), and of dropout.  Biases are 1 in convolutions 2, 4 and 5
            and in the hidden linear layers, so that ReLU has something to pass on from the first step; 0 elsewhere.
    """
    rng = np.random.default_rng(rng)
    model = Network(
        {
            "conv1": Conv2d(in_channels, 96, 11, stride=4, init=normal, rng=rng),  # -> (N, 96, 55, 55)
            "relu1": ReLU(),
            "norm1": _response_norm(),
            "pool1": MaxPool2d(3, stride=2),  # -> (N, 96, 27, 27)
            "conv2": Conv2d(96, 256, 5, padding=2, groups=groups, init=normal, rng=rng),
            "relu2": ReLU(),
            "norm2": _response_norm(),
            "pool2": MaxPool2d(3, stride=2),  # -> (N, 256, 13, 13)
            "conv3": Conv2d(256, 384, 3, padding=1, init=normal, rng=rng),
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=groups, init=normal, rng=rng),
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=groups, init=normal, rng=rng),
            "relu5": ReLU(),
            "pool5": MaxPool2d(3, stride=2),  # -> (N, 256, 6, 6)
            "flatten": Flatten(),
            "fc6": Linear(256 * 6 * 6, hidden, init=normal, rng=rng),
            "relu6": ReLU(),
            "drop6": Dropout(dropout, rng=rng),
            "fc7": Linear(hidden, hidden, init=normal, rng=rng),
            "relu7": ReLU(),
            "drop7": Dropout(dropout, rng=rng),
            "fc8": Linear(hidden, num_classes, init=normal, rng=rng),
        },
        features="pool5",
        classifier="fc8",
    )
    for name, p in model.named_parameters():
        if name in ("conv2.bias", "conv4.bias", "conv5.bias", "fc6.bias", "fc7.bias"):
            p.data[...] = 1
    return model


def _response_norm() -> LocalResponseNorm:
    """The paper's: n = 5, k = 2, α = 1e-4 for the sum itself, β = 0.75."""
    return LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0, divide_alpha=False)


_PAPER = "Krizhevsky et al. 2012, ImageNet classification with deep convolutional neural networks"
_SEQUEL = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks"

ARCHITECTURES = {
    "alexnet": Architecture(alexnet, (3, 224, 224), 61_100_840, 714_188_480, _SEQUEL, 1000),
    "alexnet_2012": Architecture(alexnet_2012, (3, 227, 227), 60_965_224, 724_406_816, _PAPER, 1000),
}
