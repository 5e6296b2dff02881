"""What the page has to know of a layer to draw it: its kind, its geometry, its own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backend import to_numpy
from ..kernels.pool import counts
from ..kernels.window import Window
from ..layers.activation import Activation, Softmax
from ..layers.base import Layer
from ..layers.batchnorm import BatchNorm2d
from ..layers.combine import Add, Checkpointed, Concat, Residual, ResidualNormReLU, Sequential
from ..layers.conv import Conv2d
from ..layers.dropout import RandomMask
from ..layers.linear import Linear
from ..layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from ..layers.shape import Identity
from .record import Visit

_KINDS: tuple[tuple[type[Layer], str], ...] = (
    (Conv2d, "conv"),
    (Linear, "linear"),
    (MaxPool2d, "maxpool"),
    (AvgPool2d, "avgpool"),
    (AdaptiveAvgPool2d, "binpool"),
    (BatchNorm2d, "batchnorm"),
    (RandomMask, "dropout"),
    (Softmax, "other"),
    (Activation, "activation"),
    (Concat, "concat"),
    (Residual, "residual"),
    (ResidualNormReLU, "residual"),
    (Add, "residual"),
)


def kind_of(layer: Layer) -> str:
    """Return the name of the way in which the page explains this layer; ``other`` if it only draws its arrays."""
    return next((name for base, name in _KINDS if isinstance(layer, base)), "other")


def is_drawn(layer: Layer) -> bool:
    """Whether the layer has a place of its own on the page: chains and wrappers are drawn as what is within."""
    return not isinstance(layer, Sequential | Checkpointed)


def geometry(layer: Layer, visit: Visit) -> dict[str, Any]:
    """Return the numbers that say which cells meet: the window of a convolution or pool, a normalisation's ε."""
    if isinstance(layer, Conv2d):
        return {**_window(layer.window), "groups": layer.groups}
    if isinstance(layer, MaxPool2d | AvgPool2d):
        found = _window(layer.window_on(*visit.x.shape[2:]))
        if isinstance(layer, AvgPool2d):
            found["divisors"] = _divisors(layer, visit)
        return found
    if isinstance(layer, BatchNorm2d):
        return {"eps": layer.eps, "relu": layer.relu, "measured": layer.measures}
    if isinstance(layer, RandomMask):
        return {"p": layer.p if layer.training else 0.0}
    if isinstance(layer, ResidualNormReLU):
        return {"relu": True}
    return {}


def _window(window: Window) -> dict[str, Any]:
    return {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
    }


def _divisors(layer: AvgPool2d, visit: Visit) -> list[list[float]]:
    """Return what each window's sum is divided by, (OH, OW)."""
    H, W = visit.x.shape[2:]
    found: list[list[float]] = counts(layer.divisor, layer.window_on(H, W), H, W, np.dtype(np.float64))[
        :, :, 0
    ].tolist()
    return found


def ways(layer: Layer, visits: dict[Layer, Visit]) -> list[tuple[str, Visit]]:
    """Return the branches of a layer that has several, by name, as far as something went through them."""
    if not isinstance(layer, Add | ResidualNormReLU):
        return []
    branches = {name or "main": child for name, child in layer._children.items()}
    if isinstance(layer, ResidualNormReLU):  # its normalisation is where they meet
        branches = {name: child for name, child in branches.items() if child is not layer._parts()[1]}
    named = {"identity" if isinstance(child, Identity) else name: child for name, child in branches.items()}
    return [(name, visits[child]) for name, child in named.items() if child in visits]


def own_numbers(layer: Layer) -> dict[str, np.ndarray]:
    """Return the layer's parameters by name."""
    return {name: to_numpy(p.data) for name, p in layer._parameters.items()}
