"""Architectures by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..layers.base import Layer
from ..messages import nearest
from .lenet import lenet5, lenet5_1998
from .resnet_cifar import resnet_cifar


@dataclass(frozen=True)
class Architecture:
    """What the registry knows of an architecture.

    Attributes:
        build: makes the network from (num_classes, in_channels, rng=…, **options).
        input_shape: (C, H, W) it was designed for.
        parameters: trainable scalars with the default arguments, as published.
        source: the paper.
    """

    build: Callable[..., Layer]
    input_shape: tuple[int, int, int]
    parameters: int
    source: str


_LECUN = "LeCun et al. 1998, Gradient-based learning applied to document recognition"
_HE = "He et al. 2016, Deep residual learning for image recognition"
_CIFAR = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}

ARCHITECTURES: dict[str, Architecture] = {
    "lenet5": Architecture(lenet5, (1, 32, 32), 61_706, _LECUN),
    "lenet5_1998": Architecture(lenet5_1998, (1, 32, 32), 60_000, _LECUN),
    **{f"resnet{d}": Architecture(partial(resnet_cifar, d), (3, 32, 32), p, _HE) for d, p in _CIFAR.items()},
    **{
        f"plain{d}": Architecture(partial(resnet_cifar, d, shortcut="none"), (3, 32, 32), p, _HE)
        for d, p in _CIFAR.items()
        if d <= 110
    },
}


def names() -> list[str]:
    """Return every name that `create` knows."""
    return list(ARCHITECTURES)


def architecture(name: str) -> Architecture:
    """Return what is known of an architecture.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest.
    """
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown model {name!r}{nearest(name, names())} (tinycnn models lists all)")
    return ARCHITECTURES[name]


def create(
    name: str, num_classes: int = 10, in_channels: int | None = None, seed: int | None = 0, **options: Any
) -> Layer:
    """Build a network.

    Args:
        name: one of `names`.
        num_classes: outputs.
        in_channels: channels of the input; by default what the architecture was designed for.
        seed: of the initial weights and of dropout: the same seed gives the same network.  None for a new one
            each time.
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
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    channels = known.input_shape[0] if in_channels is None else in_channels
    model = known.build(num_classes, channels, rng=np.random.default_rng(seed), **options)
    model.architecture = {"name": name, "num_classes": num_classes, "in_channels": channels, **options}
    return model
