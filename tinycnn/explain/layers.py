"""What the page has to know of a layer to draw it: its kind, its geometry, its own numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from ..layers.dense import DenseBlock
from ..layers.dropout import RandomMask
from ..layers.layernorm import LayerNorm
from ..layers.linear import Linear
from ..layers.lrn import LocalResponseNorm
from ..layers.norm import GroupNorm, InstanceNorm2d
from ..layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from ..layers.shape import Identity
from ..models.lenet import SparseConv2d
from .record import Visit

_KINDS: tuple[tuple[type[Layer], str], ...] = (
    (Conv2d, "conv"),
    (SparseConv2d, "conv"),
    (Linear, "linear"),
    (MaxPool2d, "maxpool"),
    (AvgPool2d, "avgpool"),
    (AdaptiveAvgPool2d, "binpool"),
    (BatchNorm2d, "batchnorm"),
    (GroupNorm, "ownnorm"),
    (InstanceNorm2d, "ownnorm"),
    (LayerNorm, "ownnorm"),
    (LocalResponseNorm, "lrn"),
    (DenseBlock, "dense"),
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
    if isinstance(layer, Conv2d | SparseConv2d | MaxPool2d | AvgPool2d):
        return _meetings(layer, visit)
    if isinstance(layer, GroupNorm | InstanceNorm2d | LayerNorm):
        return _sharing(layer, visit)
    return _constants(layer)


def _meetings(layer: Conv2d | SparseConv2d | MaxPool2d | AvgPool2d, visit: Visit) -> dict[str, Any]:
    if isinstance(layer, Conv2d):
        return {**_window(layer.window), "groups": layer.groups}
    if isinstance(layer, SparseConv2d):
        return {**_window(layer.window), "groups": 1, "connected": _connections(layer).tolist()}
    found = _window(layer.window_on(*visit.x.shape[2:]))
    return found if isinstance(layer, MaxPool2d) else {**found, "divisors": _divisors(layer, visit)}


def _constants(layer: Layer) -> dict[str, Any]:
    if isinstance(layer, BatchNorm2d):
        return {"eps": layer.eps, "relu": layer.relu, "measured": layer.measures}
    if isinstance(layer, LocalResponseNorm):
        return dict(layer.constants._asdict())
    if isinstance(layer, RandomMask):
        return {"p": layer.p if layer.training else 0.0}
    return {"relu": True} if isinstance(layer, ResidualNormReLU) else {}


def _window(window: Window) -> dict[str, Any]:
    return {
        "kernel": window.kernel,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
    }


def _sharing(layer: GroupNorm | InstanceNorm2d | LayerNorm, visit: Visit) -> dict[str, Any]:
    """Return how many neighbouring numbers of one image share a mean and a variance, and what γ and β are there for."""
    item = visit.x[0].size
    if isinstance(layer, LayerNorm):
        return {"eps": layer.eps, "shared": math.prod(layer.normalized_shape), "by": "feature", "names": "this example"}
    if isinstance(layer, GroupNorm):
        shared, names = item // layer.num_groups, "its group of channels"
        return {"eps": layer.eps, "shared": shared, "by": "channel", "names": names}
    found = {"eps": layer.eps, "shared": item // layer.num_features, "by": "channel", "names": "its channel"}
    running = None if layer.measures else layer.running
    if running is None:
        return found
    return found | {"running": [to_numpy(a).astype(np.float64).tolist() for a in (running.mean, running.var)]}


def _connections(layer: SparseConv2d) -> np.ndarray:
    """Return whether output channel o sees input channel c, (OC, C)."""
    connected = np.zeros((layer.out_channels, layer.in_channels), bool)
    connected[layer.rows, layer.columns] = True
    return connected


def _divisors(layer: AvgPool2d, visit: Visit) -> list[list[float]]:
    """Return what each window's sum is divided by, (OH, OW)."""
    H, W = visit.x.shape[2:]
    found: list[list[float]] = counts(layer.divisor, layer.window_on(H, W), H, W, np.dtype(np.float64))[
        :, :, 0
    ].tolist()
    return found


def ways(layer: Layer, visits: dict[Layer, Visit]) -> list[tuple[str, Visit]]:
    """Return the branches of a layer that has several, by name, as far as something went through them."""
    if not isinstance(layer, Add | ResidualNormReLU | DenseBlock):
        return []
    branches = {name or "main": child for name, child in layer._children.items()}
    if isinstance(layer, ResidualNormReLU):  # its normalisation is where they meet
        branches = {name: child for name, child in branches.items() if child is not layer._parts()[1]}
    named = {"identity" if isinstance(child, Identity) else name: child for name, child in branches.items()}
    return [(name, visits[child]) for name, child in named.items() if child in visits]


def places(layers: Sequence[Layer]) -> list[tuple[int, int] | None]:
    """Return for each layer (the number of the block around it, which of its ways it is on); None outside of blocks.

    What a `ResidualNormReLU` normalises with belongs to its main way.  A block whose layers follow each other, as those
    of a `DenseBlock` do, has one way.
    """
    number, found = {layer: i for i, layer in enumerate(layers)}, dict[Layer, tuple[int, int]]()
    for i, block in enumerate(layers):  # inner blocks come before those around them
        norm = block._parts()[1] if isinstance(block, ResidualNormReLU) else None
        branches = [child for child in block._children.values() if child is not norm]
        for way, branch in enumerate(branches):
            for layer in branch.layers():
                if layer in number:
                    found.setdefault(layer, (i, 0 if isinstance(block, DenseBlock) else way))
        if norm is not None:
            found.setdefault(norm, (i, 0))
    return [found.get(layer) for layer in layers]


def own_numbers(layer: Layer, numbers: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
    """Return the layer's parameters by name, or other ``numbers`` of the same shapes, as the page draws them.

    Filters of which there is one for each connection are laid into those of a convolution, 0 elsewhere.
    """
    if numbers is None:
        numbers = {name: to_numpy(p.data) for name, p in layer._parameters.items()}
    if not isinstance(layer, SparseConv2d):
        return dict(numbers)
    dense = np.zeros((layer.out_channels, layer.in_channels, *layer.window.kernel), np.float32)
    dense[layer.rows, layer.columns] = numbers["weight"]
    return {**numbers, "weight": dense}
