"""The state of a network, every parameter and buffer by its path, out and in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, to_device, to_numpy
from ..messages import some
from .check import FLOATS, LayerError, as_numbers

if TYPE_CHECKING:
    from .base import Layer


def state_dict(layer: Layer) -> dict[str, np.ndarray]:
    """Return a copy of every parameter and buffer by its path (`Layer.state_dict`)."""
    return {name: np.array(to_numpy(value), order="C") for name, value in _own(layer).items()}


def load_state_dict(layer: Layer, values: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
    """Copy values in; nothing changes unless everything fits (`Layer.load_state_dict`)."""
    own = _own(layer)
    missing = [n for n in own if n not in values and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in values if n not in own]
    if own and not any(n in values for n in own):
        raise LayerError(f"{layer}: none of the {len(values)} names given belongs to it; it has {some(own)}")
    if strict and (missing or unexpected):
        raise LayerError(f"{layer}: state does not fit: missing {some(missing)}; unexpected {some(unexpected)}")
    for name in own:
        if name in values and tuple(own[name].shape) != tuple(np.shape(values[name])):
            raise LayerError(
                f"{layer}: {name} has shape {tuple(own[name].shape)}, the state's has {tuple(np.shape(values[name]))}"
            )
    new = {n: as_numbers(f"{layer}: {n}", values[n], value) for n, value in own.items() if n in values}
    for name, value in new.items():
        own[name][...] = value
    return missing, unexpected


def _own(layer: Layer) -> dict[str, Array]:
    return {name: p.data for name, p in layer.named_parameters()} | dict(layer.named_buffers())


def set_random_state(layer: Layer, positions: Mapping[str, list[int]]) -> None:
    """Set every random stream back to where it was found (`Layer.set_random_state`)."""
    for path, one in layer.named_layers():
        if hasattr(one, "stream"):
            if path not in positions:
                raise LayerError(f"{one}: the random state has no entry for it; it has {some(positions)}")
            one.stream.set_state(positions[path])


def to(layer: Layer, device: str) -> None:
    """Move parameters, gradients and buffers (`Layer.to`)."""
    for one in layer.layers():
        for p in one._parameters.values():
            p.to(device)
        for name, value in one._buffers.items():
            setattr(one, name, to_device(value, device))


def astype(layer: Layer, dtype: np.typing.DTypeLike) -> None:
    """Convert parameters, gradients and floating-point buffers (`Layer.astype`)."""
    if np.dtype(dtype).name not in FLOATS:
        raise ValueError(f"layers compute in float32 or float64, not in {np.dtype(dtype).name}")
    for one in layer.layers():
        for p in one._parameters.values():
            p.astype(dtype)
        for name, value in one._buffers.items():
            if value.dtype.kind == "f":
                setattr(one, name, value.astype(dtype))
