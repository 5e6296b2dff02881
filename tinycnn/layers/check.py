"""Checks of what layers are given, and the words when it does not fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..backend import Array, array_module, is_device_array, place_of, place_words
from ..parameter import Parameter

FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")
"""What activations may be on a GPU while parameters are float32: mixed precision."""
FLOAT_DTYPES = tuple(map(np.dtype, FLOATS))


class LayerError(ValueError):
    """A layer was given something it cannot work with; the message names the layer, what it got and the cure."""


def check_array(owner: object, x: Array, ranks: tuple[int, ...] | None, channels: int | None) -> None:
    """Make sure that ``x`` is a floating-point array of an allowed rank, with ``channels`` on axis 1.

    Raises:
        LayerError: it is not; ``owner`` names the layer.
    """
    if not hasattr(x, "dtype") or (x.dtype not in FLOAT_DTYPES and not is_half(x)):
        got = getattr(x, "dtype", type(x).__name__)
        where = " (which only GPUs compute with)" if str(got) in HALVES else ""
        raise LayerError(f"{owner}: expected a float32 or float64 array, got {got}{where}: convert it with astype")
    if is_half(x) and not getattr(owner, "mixed", True):
        raise LayerError(f"{owner}: computes in the precision of its parameters, got {x.dtype}: use float32 or tf32")
    if ranks is not None and x.ndim not in ranks:
        wanted = " or ".join({2: "(N, features)", 4: "(N, C, H, W)"}.get(r, f"{r}-dimensional") for r in ranks)
        raise LayerError(f"{owner}: expected an input of shape {wanted}, got {tuple(x.shape)}")
    if channels is not None and x.shape[1] != channels:
        what = "channels" if x.ndim == 4 else "features"
        raise LayerError(f"{owner}: expected {channels} {what} on axis 1, got {x.shape[1]} in shape {tuple(x.shape)}")


def check_place(owner: object, what: str, x: Array, parameter: Array) -> None:
    """Make sure that ``x`` is where the parameters are.

    Raises:
        LayerError: it is not.
    """
    if place_of(x) != place_of(parameter):
        here, there = (place_words(place_of(a)) for a in (x, parameter))
        raise LayerError(
            f"{owner}: {what} is on {here}, parameters are on {there}: move the layers with .to('cpu') or .to('cuda'), "
            "or the array with tinycnn.to_device"
        )


def check_kind(owner: object, what: str, x: Array, parameters: Iterable[Parameter]) -> None:
    """Make sure that ``x`` is of the parameters' dtype (or has 16 bits where those have 32), and where they are.

    Raises:
        LayerError: it is not.
    """
    for p in parameters:
        if p.dtype != x.dtype and not (is_half(x) and p.dtype == np.float32):
            raise LayerError(f"{owner}: {what} is {x.dtype}, parameters are {p.dtype}: convert one with astype")
        check_place(owner, what, x, p.data)


def is_half(x: Array) -> bool:
    """Whether ``x`` holds numbers of 16 bits, on a GPU."""
    return x.dtype.itemsize == 2 and x.dtype.name in HALVES and is_device_array(x)


def refuse_empty(owner: object, x: Array) -> None:
    """Make sure that there is something in ``x`` to take statistics of.

    Raises:
        LayerError: there is not.
    """
    if x.size == 0:
        raise LayerError(f"{owner}: the input is empty, of shape {tuple(x.shape)}: leave empty batches out")


def as_numbers(what: str, value: Any, like: Array) -> Array:
    """Return ``value`` as an array of the dtype and on the device of ``like``.

    Raises:
        LayerError: it cannot be read as numbers; ``what`` names it.
    """
    try:
        array = array_module(like).asarray(value)
        return array.astype(like.dtype, casting="same_kind" if like.dtype.kind == "f" else "unsafe", copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise LayerError(f"{what} cannot be read as {like.dtype} numbers: {error}") from None


def whole(value: int, what: str, owner: object) -> int:
    """Return ``value`` after checking that it is an integer of at least 1.

    Raises:
        LayerError: it is not; ``what`` and ``owner`` name it.
    """
    if not isinstance(value, int | np.integer) or value < 1:
        raise LayerError(f"{owner}: {what} must be an integer of at least 1, got {value!r}")
    return int(value)


def pair(value: int | tuple[int, int], what: str, least: int, owner: object) -> tuple[int, int]:
    """Return ``value`` as (height, width): an int stands for both.

    Raises:
        LayerError: not one or two integers, or one below ``least``; ``what`` and ``owner`` name it.
    """
    both = value if isinstance(value, tuple | list) else (value, value)
    if len(both) != 2 or not all(isinstance(v, int | np.integer) for v in both):
        raise LayerError(f"{owner}: {what} must be an integer or a pair of them, got {value!r}")
    if min(both) < least:
        raise LayerError(f"{owner}: {what} must be at least {least}, got {value!r}")
    return int(both[0]), int(both[1])
