"""Architectures by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..initializers import NoDraws
from ..layers.base import Layer
from ..messages import nearest
from . import lenet, preact, resnet, resnet_cifar, resnext, stochastic, wide
from .alexnet import ARCHITECTURES as ALEXNET
from .arguments import plain
from .densenet import ARCHITECTURES as DENSENET
from .googlenet import ARCHITECTURES as GOOGLENET
from .inception import ARCHITECTURES as INCEPTION
from .network import Architecture, checked_classes
from .nin import ARCHITECTURES as NIN
from .vgg import ARCHITECTURES as VGG

ARCHITECTURES: dict[str, Architecture] = {
    **lenet.ARCHITECTURES,
    **ALEXNET,
    **VGG,
    **NIN,
    **INCEPTION,
    **GOOGLENET,
    **resnet.ARCHITECTURES,
    **resnet_cifar.ARCHITECTURES,
    **preact.ARCHITECTURES,
    **wide.ARCHITECTURES,
    **resnext.ARCHITECTURES,
    **stochastic.ARCHITECTURES,
    **DENSENET,
}


def names() -> list[str]:
    """Return every name that `create` knows.

    >>> "resnet20" in names()
    True
    """
    return list(ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """Return what is known of an architecture.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest.

    >>> architecture("lenet5").input_shape
    (1, 32, 32)
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown model {name!r}{nearest(name, names())} (tinycnn models lists all)")
    return ARCHITECTURES[name]


def create(
    name: str,
    num_classes: int | None = None,
    in_channels: int | None = None,
    seed: int | None = 0,
    *,
    initialize: bool = True,
    **options: Any,
) -> Layer:
    """Build a network.

    Args:
        name: one of `names`.
        num_classes: outputs; by default what the architecture was designed for, 1000 for ImageNet's networks.
        in_channels: channels of the input; likewise.
        seed: of the initial weights and of dropout: the same seed gives the same network.  None for a new one
            each time.
        initialize: whether weights are drawn; otherwise they are 0, at once, for a network whose weights are loaded.
        options: further arguments of the architecture, such as ``shortcut="B"``.

    Returns:
        The network, in training mode, with the attribute ``architecture``: a dict of the arguments, from which
        `create` builds it anew.

    Raises:
        ValueError: the name is unknown, or an argument is out of range.
        TypeError: the architecture has no such option.

    >>> create("lenet5").num_parameters()
    61706
    """
    known = architecture(name)
    classes = checked_classes(known.num_classes if num_classes is None else num_classes)
    channels = known.input_shape[0] if in_channels is None else in_channels
    rng = np.random.default_rng(seed) if initialize else NoDraws(seed)
    model = known.build(classes, channels, rng=rng, **options)
    model.architecture = plain({"name": name, "num_classes": classes, "in_channels": channels, **options})
    return model
