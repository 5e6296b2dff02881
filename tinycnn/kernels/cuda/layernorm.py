"""Twins of `layer_norm_forward` and `layer_norm_backward` in `tinycnn.layers.layernorm`.

What forward hands to backward as ``statistics`` is the array (3, N) that `layernorm.cu` describes.
"""

from __future__ import annotations

import numpy as np

from ...backend import Array, array_module
from ..norm import Sink
from .module import kernel
from .norm import SUMMING, THREADS, UNROLL, divide, loadable, sums_dtype, tickets, variants, vector_width

VARIANTS = variants("layernorm")


def threads_for(vectors: int) -> int:
    """Return how many threads work on an example: enough for UNROLL vectors each, in whole warps."""
    return min(THREADS, 32 * -(-vectors // (32 * UNROLL)))


def layer_norm_forward(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Array]:
    """Return y and the statistics."""
    x, xp, (N, M) = loadable(x), array_module(x), x.shape
    y, statistics, V = xp.empty(x.shape, x.dtype), xp.empty((3, N), sums_dtype(x.dtype)), vector_width(M, x.dtype)
    forward = kernel("layernorm", "layer_norm_forward", x.dtype, WIDTH=V)
    forward(N, (1, threads_for(M // V)), x, y, statistics, _packed(w), _packed(b), N, M, eps)
    return y, statistics


def layer_norm_backward(
    dy: Array, x: Array, statistics: Array, w: Array | None, sinks: tuple[Sink, Sink], needs_dx: bool = True
) -> Array:
    """Return dx; dγ and dβ go into the sinks."""
    dy, x, xp, (N, M) = loadable(dy), loadable(x), array_module(x), x.shape
    V = vector_width(M, x.dtype)
    if any(sinks):
        grid = divide(N, M, x.dtype, SUMMING)
        parts = xp.empty((grid.runs, 2, M), np.float64)
        (dw, add_w), (db, add_b) = (sink or (None, False) for sink in sinks)
        sums = kernel("layernorm", "weight_gradients", x.dtype, WIDTH=V)
        sums(*grid.launch, dy, x, statistics, parts, dw, db, N, M, grid.R, add_w, add_b, tickets())
    if not needs_dx:
        return None
    dx = xp.empty(x.shape, x.dtype)
    gradient = kernel("layernorm", "input_gradient", x.dtype, WIDTH=V)
    gradient(N, (1, threads_for(M // V)), dy, x, statistics, _packed(w), dx, N, M)
    return dx


def _packed(v: Array | None) -> Array | None:
    return None if v is None else loadable(v)
