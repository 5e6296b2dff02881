"""Twins of `tinycnn.kernels.dropout`."""

from __future__ import annotations

import math

from ...backend import Array, array_module
from ..dropout import scale_of, threshold
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("dropout", dtype, {}) for dtype in TYPES]
PACKS = 8
"""Loads of 16 bytes that a thread makes of an image, about, whose parts it has drawn for."""


def dropout(x: Array, place: Array, p: float, parts: tuple[int, ...]) -> tuple[Array, Array]:
    """Return x·m/(1 − p), and key and step, from which the mask m can be drawn again."""
    saved = array_module(x).empty(2, place.dtype)
    return _masked(x, place, saved, p, parts), saved


def dropout_backward(dy: Array, mask: Array, p: float, parts: tuple[int, ...]) -> Array:
    """Return dy·m/(1 − p), the mask drawn from the key and step that the forward noted."""
    return _masked(dy, mask, None, p, parts)


def _masked(x: Array, place: Array, saved: Array | None, p: float, parts: tuple[int, ...]) -> Array:
    x, (dtype, kept) = packed(x), threshold(p)
    y = array_module(x).empty_like(x)
    numbers = kept, scale_of(p), dtype.itemsize == 1
    if math.prod(parts) == x.size:
        per_thread = 32 // dtype.itemsize
        grid = blocks_for(-(-x.size // per_thread))
        kernel("dropout", "drop_each", x.dtype)(grid, THREADS, x, y, place, saved, x.size, *numbers)
    else:
        # parts is (N, 1, …, B), or all ones
        N, B = parts[0], parts[-1]
        D = x.size // N
        blocks = max(-(-D * x.itemsize // (16 * PACKS * THREADS)), -(-B // THREADS)), min(N, 65535)
        kernel("dropout", "drop_whole", x.dtype)(blocks, THREADS, x, y, place, saved, N, D, B, *numbers)
    return y
