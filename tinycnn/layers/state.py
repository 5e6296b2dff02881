"""The state of a network: parameters, buffers and random streams by their paths, out and in; what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backend import Array, to_device, to_numpy
from ..messages import some
from .check import FLOATS, LayerError, as_numbers
from .mismatch import words_for

if TYPE_CHECKING:
    from .base import Layer


PIECE = 16 << 20
"""Bytes that are copied at a time, of a file that is mapped into memory."""


def arrays_of(layer: Layer) -> dict[str, Array]:
    """Return every parameter and buffer by its path: the arrays themselves."""
    return {name: p.data for name, p in layer.named_parameters()} | dict(layer.named_buffers())


def state_dict(layer: Layer) -> dict[str, np.ndarray]:
    """Return a copy of every parameter and buffer by its path (`Layer.state_dict`)."""
    return {name: np.array(to_numpy(value), order="C") for name, value in arrays_of(layer).items()}


def load_state_dict(layer: Layer, values: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
    """Copy values in; nothing changes unless everything fits (`Layer.load_state_dict`).

    Arrays go to their places one after another, without a copy between.  ``values`` may have a method ``release``,
    called as they are read: `tinycnn.train.mapped` says what for.
    """
    own = arrays_of(layer)
    given = {name: value if hasattr(value, "dtype") else np.asarray(value) for name, value in values.items()}
    missing = [n for n in own if n not in given and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in given if n not in own]
    shapes, theirs = ({n: tuple(x.shape) for n, x in arrays.items()} for arrays in (own, given))
    if own and len(unexpected) == len(given):
        words = words_for(shapes, theirs, missing, unexpected)
        raise LayerError(f"{layer}: none of the {len(given)} names given belongs to it; it has {some(own)}; {words}")
    either = (missing, unexpected) if strict else ((), ())
    if words := words_for(shapes, theirs, *either):
        raise LayerError(f"{layer}: state does not fit: {words}")
    fitting = {name: given[name] for name in own if name in given}
    if fixed := [name for name in fitting if isinstance(own[name], np.ndarray) and not own[name].flags.writeable]:
        words = "is read-only: load the weights into the network first, and call fuse() after that"
        raise LayerError(f"{layer}: {fixed[0]} {words}")
    for name, value in fitting.items():
        as_numbers(f"{layer}: {name}", value[(slice(0),) * value.ndim], own[name])  # its type, without a copy
    release = getattr(values, "release", None)
    for name, value in fitting.items():
        _copy(value, own[name], release)
    return missing, unexpected


def _copy(value: Any, place: Array, release: Callable[[], None] | None) -> None:
    if release is None or not isinstance(place, np.ndarray) or place.ndim == 0:
        place[...] = as_numbers("a value", value, place)
        return
    rows = max(1, PIECE * len(place) // max(place.nbytes, 1))
    for i in range(0, len(place), rows):
        place[i : i + rows] = value[i : i + rows]
        release()


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
