"""Twins of `normalize_response` and `normalize_response_backward` in `tinycnn.layers.lrn`."""

from __future__ import annotations

from ...backend import Array, array_module
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("lrn", dtype, {}) for dtype in TYPES]
SHARED = 40 << 10
"""The most shared memory, in bytes, that a block takes for its terms."""


def normalize_response(x: Array, constants: tuple[int, int, float, float, float]) -> Array:
    """Return y."""
    x = packed(x)
    C, y = x.shape[3], array_module(x).empty(x.shape, x.dtype)
    kernel("lrn", "normalize_response", x.dtype)(blocks_for(x.size), THREADS, x, y, x.size, C, *_clipped(constants, C))
    return y


def normalize_response_backward(dy: Array, x: Array, constants: tuple[int, int, float, float, float]) -> Array:
    """Return dx."""
    dy, x = packed(dy), packed(x)
    C, dx = x.shape[3], array_module(x).empty(x.shape, x.dtype)
    before, after, *numbers = _clipped(constants, C)
    shared = (THREADS + before + after) * max(4, x.itemsize)
    staged = shared <= SHARED
    backward = kernel("lrn", "normalize_response_backward", x.dtype)
    arguments = dy, x, dx, x.size, C, before, after, *numbers, staged
    backward(blocks_for(x.size), THREADS, *arguments, shared=shared if staged else 0)
    return dx


def _clipped(constants: tuple[int, int, float, float, float], C: int) -> tuple[int, int, float, float, float]:
    """Return the constants, the neighbourhood no wider than C channels need."""
    before, after, alpha, beta, k = constants
    return min(before, C - 1), min(after, C - 1), alpha, beta, k
