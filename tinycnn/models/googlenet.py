"""GoogLeNet: looking at several sizes at once, and spending little on it.

An Inception module looks at its input through windows of 1×1, 3×3 and 5×5 pixels side by side, and lets the next layer
choose.  Most of that would be expensive, so 1×1 convolutions reduce the channels first::

    x ─┬─ conv 1×1 ─────────────── branch1 ─┬─ concatenation
       ├─ conv 1×1 ─── conv 3×3 ── branch2 ─┤
       ├─ conv 1×1 ─── conv 5×5 ── branch3 ─┤
       └─ max 3×3 ──── conv 1×1 ── branch4 ─┘

Nine of these after a stem of three convolutions are 22 layers deep, with a ninth of AlexNet's parameters: in place of
fully connected layers there is the average of each channel, and one linear layer::

    3×224×224   conv1 7×7/2 ─ pool ─ conv2 1×1 ─ conv3 3×3 ─ pool
    192×28×28   inception3a ─ 3b ─ pool
    480×14×14   inception4a ─ 4b ─ 4c ─ 4d ─ 4e ─ pool
                          └─ aux1       └─ aux2
    832×7×7     inception5a ─ 5b ─ average ─ dropout ─ fc

Two auxiliary heads (``aux_heads=True``; `tinycnn.models.heads`) classify the features of 4a and 4d: average to 4×4,
conv 1×1 to 128 channels, linear 1024, dropout, linear.  Their losses count 0.3 in training, and that is all they do.
``tinycnn train`` builds the network with them.

==========================  ============================  ==========================
\\                           googlenet (torchvision's)     googlenet_2014 (the paper's)
==========================  ============================  ==========================
after a convolution         batch norm (ε = 1e-3), ReLU   ReLU; it has a bias
in the stem                                               local response norm, twice
third branch                3×3                           5×5
last pool                   2×2                           3×3
average in heads            adaptive                      5×5/3
dropout, in heads           0.2, 0.7                      0.4, 0.7
parameters, with heads      6,624,904, 13,004,888         6,998,552, 13,378,280
multiply-adds               1.50 · 10⁹                    1.58 · 10⁹
==========================  ============================  ==========================

**Initial values**, of which the paper says nothing.  ``googlenet`` starts as the networks of its authors and
torchvision's did: weights from a normal of σ = 0.01, drawn again beyond 2σ, biases 0.  (Torchvision's function takes
the 2 for an absolute bound by now, and cuts nothing.)  Without normalisation such weights would let the signal die out.
So ``googlenet_2014`` starts like its reimplementation in Caffe: weights U(±√(3/fan_in)), biases 0.2, in classifiers 0.
From there come also the constants of local response normalisation, n = 5, α = 1e-4 and β = 0.75.

Names of parameters are torchvision's.  Its published weights come from a network that was shown pixels as (p − 0.5)/0.5
with p from 0 to 1, and images must be normalised so for them.

Sources: Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke & Rabinovich 2015, "Going deeper with
convolutions", table 1, figure 3 and section 5; batch normalisation in it, Ioffe & Szegedy 2015, "Batch normalization";
initial values, github.com/tensorflow/models (slim, inception_v1) and github.com/BVLC/caffe (bvlc_googlenet).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from ..initializers import lecun_uniform, truncated_normal
from ..layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNormReLU2d,
    Checkpointed,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    Sequential,
)
from ..layers.base import Layer
from .arguments import checked
from .heads import NetworkWithHeads
from .network import Architecture


class Widths(NamedTuple):
    """Channels in an Inception module, a line of the paper's table 1.

    Attributes:
        one: of the 1×1 branch.
        three_reduce, three: of the 3×3 branch.
        five_reduce, five: of the 5×5 branch.
        pool: of the branch with the pooling.
    """

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int

    @property
    def total(self) -> int:
        """Channels of the module's output."""
        return self.one + self.three + self.five + self.pool


MODULES = {
    "inception3a": Widths(64, 96, 128, 16, 32, 32),
    "inception3b": Widths(128, 128, 192, 32, 96, 64),
    "inception4a": Widths(192, 96, 208, 16, 48, 64),
    "inception4b": Widths(160, 112, 224, 24, 64, 64),
    "inception4c": Widths(128, 128, 256, 24, 64, 64),
    "inception4d": Widths(112, 144, 288, 32, 64, 64),
    "inception4e": Widths(256, 160, 320, 32, 128, 128),
    "inception5a": Widths(256, 160, 320, 32, 128, 128),
    "inception5b": Widths(384, 192, 384, 48, 128, 128),
}
HEADS = {"inception4a": "aux1", "inception4d": "aux2"}
"""Heads, by the module that they look at."""
BIAS = 0.2
"""What biases of ``googlenet_2014`` start from, but for classifiers."""


Weighted = TypeVar("Weighted", Conv2d, Linear)


class Form(NamedTuple):
    """What sets the two forms apart.

    Attributes:
        conv: makes a convolution with what follows it, from (C, OC, kernel, stride).
        linear: makes a linear layer, from (in, out).
        bias: what the bias of the hidden linear layer in a head starts from.
        third: window of the third branch.
        last_pool: window of the pooling before 5a.
        head_pool: makes the pooling at the beginning of a head.
        response_norms: whether the stem has them.
    """

    conv: Callable[..., Sequential]
    linear: Callable[[int, int], Linear]
    bias: float
    third: int
    last_pool: int
    head_pool: Callable[[], Layer]
    response_norms: bool


@checked
def googlenet(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    aux_heads: bool = False,
    dropout: float = 0.2,
    aux_dropout: float = 0.7,
    checkpointed: bool = False,
    rng: np.random.Generator | None = None,
) -> NetworkWithHeads:
    """Build torchvision's form, for images of 224×224 pixels, or other sizes.

    Args:
        num_classes: outputs.
        in_channels: channels of the input.
        aux_heads: whether there are auxiliary heads; ``forward`` then returns (scores, aux2's, aux1's) in training.
        dropout: share of the 1024 features that training drops.
        aux_dropout: share of the 1024 hidden values of each head that training drops.
        checkpointed: save memory by repeating each module's forward during backward.
        rng: generator of the initial weights and of dropout.
    """
    rng = np.random.default_rng(rng)
    form = torchvisions_form(rng)
    trunk = _trunk(form, in_channels, checkpointed)
    return _network(form, trunk, num_classes, aux_heads, dropout, aux_dropout, rng)


@checked
def googlenet_2014(
    num_classes: int = 1000,
    in_channels: int = 3,
    *,
    aux_heads: bool = False,
    dropout: float = 0.4,
    aux_dropout: float = 0.7,
    checkpointed: bool = False,
    rng: np.random.Generator | None = None,
) -> NetworkWithHeads:
    """Build the paper's form; in training its heads want images of about 224×224 pixels, of which they see 4×4.

    Args:
        num_classes, in_channels, aux_heads, dropout, aux_dropout, checkpointed, rng: as for `googlenet`.
    """
    rng = np.random.default_rng(rng)
    form = papers_form(rng)
    trunk = _trunk(form, in_channels, checkpointed)
    return _network(form, trunk, num_classes, aux_heads, dropout, aux_dropout, rng)


# ---- the parts ---------------------------------------------------------------------------------------------


def torchvisions_form(rng: np.random.Generator) -> Form:
    """Return what makes ``googlenet``."""
    return Form(
        conv=partial(_normalised, rng=rng),
        linear=partial(Linear, init=truncated_normal, rng=rng),
        bias=0.0,
        third=3,
        last_pool=2,
        head_pool=partial(AdaptiveAvgPool2d, 4),
        response_norms=False,
    )


def papers_form(rng: np.random.Generator) -> Form:
    """Return what makes ``googlenet_2014``."""
    return Form(
        conv=partial(_biased, rng=rng),
        linear=partial(Linear, init=lecun_uniform, rng=rng),
        bias=BIAS,
        third=5,
        last_pool=3,
        head_pool=partial(AvgPool2d, 5, stride=3),
        response_norms=True,
    )


def _normalised(C: int, OC: int, kernel: int, stride: int = 1, *, rng: np.random.Generator) -> Sequential:
    conv = Conv2d(C, OC, kernel, stride, kernel // 2, bias=False, init=truncated_normal, rng=rng)
    return Sequential({"conv": conv, "bn": BatchNormReLU2d(OC, eps=1e-3)})


def _biased(C: int, OC: int, kernel: int, stride: int = 1, *, rng: np.random.Generator) -> Sequential:
    conv = _filled(Conv2d(C, OC, kernel, stride, kernel // 2, init=lecun_uniform, rng=rng), BIAS)
    return Sequential({"conv": conv, "relu": ReLU()})


def _filled(layer: Weighted, bias: float) -> Weighted:
    assert layer.bias is not None
    layer.bias.data[...] = bias
    return layer


def inception(form: Form, C: int, widths: Widths) -> Concat:
    """Return the module of the docstring above, for inputs of C channels."""
    conv = form.conv
    return Concat(
        {
            "branch1": conv(C, widths.one, 1),
            "branch2": Sequential(conv(C, widths.three_reduce, 1), conv(widths.three_reduce, widths.three, 3)),
            "branch3": Sequential(conv(C, widths.five_reduce, 1), conv(widths.five_reduce, widths.five, form.third)),
            "branch4": Sequential(MaxPool2d(3, stride=1, padding=1), conv(C, widths.pool, 1)),
        }
    )


def _trunk(form: Form, in_channels: int, checkpointed: bool) -> dict[str, Layer]:
    """Everything from the image to the last module."""
    layers: dict[str, Layer] = {"conv1": form.conv(in_channels, 64, 7, 2), "maxpool1": _halve(3)}
    if form.response_norms:
        layers["norm1"] = LocalResponseNorm(5)
    layers |= {"conv2": form.conv(64, 64, 1), "conv3": form.conv(64, 192, 3)}
    if form.response_norms:
        layers["norm2"] = LocalResponseNorm(5)
    layers["maxpool2"] = _halve(3)
    C = 192
    pools = {"inception4a": ("maxpool3", 3), "inception5a": ("maxpool4", form.last_pool)}
    for name, widths in MODULES.items():
        if name in pools:
            pool, kernel = pools[name]
            layers[pool] = _halve(kernel)
        module = inception(form, C, widths)
        layers[name] = Checkpointed(module) if checkpointed else module
        C = widths.total
    return layers


def _halve(kernel: int) -> MaxPool2d:
    return MaxPool2d(kernel, stride=2, ceil_mode=True)  # 112² -> 56², without padding


def _network(
    form: Form,
    trunk: dict[str, Layer],
    num_classes: int,
    aux_heads: bool,
    dropout: float,
    aux_dropout: float,
    rng: np.random.Generator,
) -> NetworkWithHeads:
    ending = {
        "avgpool": GlobalAvgPool2d(),
        "flatten": Flatten(),
        "dropout": Dropout(dropout, rng=rng),
        "fc": form.linear(1024, num_classes),
    }
    # drawn last: a network without them has the same weights elsewhere
    places = HEADS if aux_heads else {}
    heads = {name: _head(form, MODULES[at].total, num_classes, aux_dropout, rng) for at, name in places.items()}
    return NetworkWithHeads(
        {**trunk, **heads, **ending},
        places,
        features="inception5b",
        classifier="fc",
        auxiliary=[f"{name}.fc2" for name in heads],
        droppable=[] if aux_heads else [f"{name}.*" for name in HEADS.values()],
    )


def _head(form: Form, C: int, num_classes: int, dropout: float, rng: np.random.Generator) -> Sequential:
    return Sequential(
        {
            "pool": form.head_pool(),  # -> (N, C, 4, 4)
            "conv": form.conv(C, 128, 1),
            "flatten": Flatten(),
            "fc1": _filled(form.linear(128 * 4 * 4, 1024), form.bias),
            "relu": ReLU(),
            "dropout": Dropout(dropout, rng=rng),
            "fc2": form.linear(1024, num_classes),
        }
    )


_PAPER = "Szegedy et al. 2015, Going deeper with convolutions"

ARCHITECTURES = {
    name: Architecture(build, (3, 224, 224), parameters, macs, _PAPER, 1000, training={"aux_heads": True})
    for name, build, parameters, macs in (
        ("googlenet", googlenet, 6_624_904, 1_498_376_192),
        ("googlenet_2014", googlenet_2014, 6_998_552, 1_582_671_872),
    )
}
