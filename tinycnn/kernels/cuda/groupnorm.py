"""Twins of `group_norm_forward` and `group_norm_backward` in `tinycnn.layers.norm`.

What forward hands to backward as ``statistics`` is the array (3, N, G) that `groupnorm.cu` describes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...backend import Array, array_module
from ..norm import Running, Sink
from .module import kernel
from .norm import THREADS, TILE_BYTES, TILE_VECTORS, loadable, sums_dtype, variants, vector_width

VARIANTS = variants("groupnorm")
OVER_IMAGES = (32, 8)
"""The block of kernels that sum over images: channels, and images at a time."""


class Tiles(NamedTuple):
    """Blocks for images of C channels in G groups: vectors of V channels, tiles of ``span`` channels."""

    V: int
    span: int
    grid: int
    block: tuple[int, int]


def cut(N: int, C: int, G: int, dtype: np.dtype) -> Tiles:
    """Return how images are divided among blocks: whole groups, at least a line of the cache wide if there are more."""
    D, V = C // G, vector_width(C, dtype)
    if D % V and V % D:  # a vector may hold several groups or be part of one, but not both
        V = 1
    least = max(D, V)
    span = max(1, min(TILE_BYTES // dtype.itemsize, TILE_VECTORS * V) // least) * least
    span = min(span, C)
    TX = min(span // V, THREADS)
    return Tiles(V, span, N * -(-C // span), (TX, THREADS // TX))


def group_norm_forward(
    x: Array,
    G: int,
    w: Array | None,
    b: Array | None,
    eps: float,
    running: Running | None = None,
    share: float = 0.0,
) -> tuple[Array, Array]:
    """Return y and the statistics; move the running ones."""
    x, xp = loadable(x), array_module(x)
    (N, P, C), tiles = x.shape, cut(x.shape[0], x.shape[2], G, x.dtype)
    y, statistics = xp.empty(x.shape, x.dtype), xp.empty((3, N, G), sums_dtype(x.dtype))
    measured = None if running is None else xp.empty((2, N, G), np.float64)
    forward = kernel("groupnorm", "group_norm_forward", x.dtype, WIDTH=tiles.V)
    forward(tiles.grid, tiles.block, x, y, statistics, measured, w, b, N, P, C, G, tiles.span, eps)
    if running is not None:
        move = kernel("groupnorm", "move_averages", x.dtype, WIDTH=tiles.V)
        move(-(-C // OVER_IMAGES[0]), OVER_IMAGES, measured, running.mean, running.var, N, P, C, share)
    return y, statistics


def group_norm_backward(
    dy: Array, x: Array, statistics: Array, w: Array | None, sinks: tuple[Sink, Sink], needs_dx: bool = True
) -> Array:
    """Return dx; dγ and dβ go into the sinks."""
    dy, x, xp = loadable(dy), loadable(x), array_module(x)
    (N, P, C), G = x.shape, statistics.shape[2]
    tiles = cut(N, C, G, x.dtype)
    dx = xp.empty(x.shape, x.dtype) if needs_dx else None
    parts = xp.empty((N, 2, C), np.float64) if any(sinks) else None
    backward = kernel("groupnorm", "group_norm_backward", x.dtype, WIDTH=tiles.V)
    backward(tiles.grid, tiles.block, dy, x, statistics, w, dx, parts, N, P, C, G, tiles.span)
    if parts is not None:
        (dw, add_w), (db, add_b) = (sink or (None, False) for sink in sinks)
        add_up = kernel("groupnorm", "sum_images", x.dtype, WIDTH=tiles.V)
        add_up(-(-C // OVER_IMAGES[0]), OVER_IMAGES, parts, dw, db, N, C, add_w, add_b)
    return dx
