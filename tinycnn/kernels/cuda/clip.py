"""Twins of what `tinycnn.optim.clip` does to gradients, and of `tinycnn.kernels.finite`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...backend import Array, array_module
from .module import THREADS, TYPES, Variant, kernel
from .places import Places, is_dense, places, tile_size

VARIANTS: list[Variant] = [("clip", dtype, {"NORM": norm}) for dtype in TYPES for norm in range(4)]
BLOCKS = 1024
"""The most blocks of a launch."""
KINDS = {1.0: 1, 2.0: 2, math.inf: 3}
"""NORM in clip.cu, by norm_type; 0 for others."""


def _blocks(tiles: int) -> int:
    return max(1, min(tiles, BLOCKS))


def _launch(name: str, table: Places, x: Array, *args: object) -> None:
    if table.tiles:
        kernel("clip", name, x.dtype, NORM=2)(_blocks(table.tiles), THREADS, table.table, table.tiles, *args)


def _measure(
    gradients: Sequence[Array],
    norm_type: float,
    max_norm: float = math.inf,
    inv_scale: Array | None = None,
    factor: Array | None = None,
    found_inf: Array | None = None,
) -> tuple[Array, Array]:
    """Return the norm and the factor to clip by, both on the device; the factor in ``factor`` if that is given."""
    xp, g, table = array_module(gradients[0]), gradients[0], places(gradients)
    if not table.work:  # made once: a captured graph may use them again, and "done" is 0 between launches
        table.work = {"parts": xp.empty(_blocks(table.tiles)), "done": xp.zeros(1, np.uint32)}
    norm = xp.empty((), np.float64)
    if factor is None:
        factor = xp.empty((), g.dtype if g.dtype.name == "float64" else np.float32)
    numbers = (float(norm_type), float(max_norm), inv_scale)
    launch = kernel("clip", "gradient_norm", g.dtype, NORM=KINDS.get(float(norm_type), 0))
    scratch = (table.work["parts"], table.work["done"])
    launch(_blocks(table.tiles), THREADS, table.table, table.tiles, *numbers, *scratch, norm, factor, found_inf)
    return norm, factor


def gradient_norm(*gradients: Array, norm_type: float) -> Array:
    """Return the norm, on the device."""
    return _measure(gradients, norm_type)[0]


def clip_norm(*gradients: Array, max_norm: float, norm_type: float, error_if_nonfinite: bool) -> Array:
    """Return the norm before clipping, on the device; with ``error_if_nonfinite`` the host waits for it."""
    norm, factor = _measure(gradients, norm_type, max_norm)
    if error_if_nonfinite and not math.isfinite(value := float(norm)):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {value}: the loss or a layer has overflowed")
    _launch("scale", places(gradients), gradients[0], factor)
    return norm


def clip_values(*gradients: Array, clip_value: float) -> None:
    """Limit every entry."""
    _launch("limit", places(gradients), gradients[0], clip_value)


def measure(
    *gradients: Array, max_norm: float, inv_scale: Array | None, factor: Array, found_inf: Array | None
) -> Array:
    """Return the norm; write ``factor`` and ``found_inf``."""
    return _measure(gradients, 2.0, max_norm, inv_scale, factor, found_inf)[0]


def all_finite(x: Array) -> Array:
    """Whether all elements are finite, on the device."""
    xp = array_module(x)
    if x.dtype.name not in TYPES:
        return xp.isfinite(x).all()
    answer = xp.ones((), np.bool_)
    x, size = (x if is_dense(x) else x.copy()), tile_size(x.size)
    if x.size:
        kernel("clip", "check_finite", x.dtype, NORM=2)(_blocks(-(-x.size // size)), THREADS, x, x.size, size, answer)
    return answer
