"""Twins of `batch_norm_forward` and `batch_norm_backward` in `tinycnn.layers.batchnorm`.

What forward hands to backward as ``statistics`` are the vectors (5, C) that `batchnorm.cu` describes and, where there
are both a ReLU and a shortcut, its gates.
"""

from __future__ import annotations

import numpy as np

from ...backend import Array, array_module
from ..norm import Running, Sink
from .module import Kernel, kernel
from .norm import SUMMING, WRITING, Grid, divide, loadable, sums_dtype, tickets, variants, vector_width

VARIANTS = variants("batchnorm")


class Pixels:
    """Activations (N, C, H, W) on channels-last memory as the kernels take them: matrices of M rows and C columns.

    Args:
        arrays: of one shape; some may be None.
    """

    def __init__(self, *arrays: Array) -> None:
        # (N, C, H, W) -> (N, H, W, C)
        self.arrays = [None if x is None else loadable(x.transpose(0, 2, 3, 1)) for x in arrays]
        first = next(x for x in self.arrays if x is not None)
        self.shape, self.C, self.dtype = first.shape, first.shape[3], first.dtype
        self.M, self.xp = first.size // self.C, array_module(first)
        self.V, self.A = vector_width(self.C, self.dtype), sums_dtype(self.dtype)

    def kernel(self, name: str) -> Kernel:
        """Return a kernel for such matrices."""
        return kernel("batchnorm", name, self.dtype, WIDTH=self.V)

    def grid(self, blocks: int) -> Grid:
        """Return how they are divided."""
        return divide(self.M, self.C, self.dtype, blocks)

    def empty(self) -> Array:
        """Return another one, (N, H, W, C)."""
        return self.xp.empty(self.shape, self.dtype)

    def parts(self, grid: Grid) -> Array:
        """Return memory for the two sums of every run."""
        return self.xp.empty((grid.runs, 2, self.C), np.float64)


def images(x: Array) -> Array:
    """Return (N, H, W, C) as (N, C, H, W), None as None."""
    return None if x is None else x.transpose(0, 3, 1, 2)


def batch_norm_forward(
    x: Array,
    w: Array | None,
    b: Array | None,
    running: Running | None,
    eps: float,
    momentum: float | None,
    measures: bool,
    shortcut: Array | None = None,
    relu: bool = False,
) -> tuple[Array, tuple[Array, Array]]:
    """Return y, and what backward needs."""
    pixels = Pixels(x, shortcut)
    x, shortcut = pixels.arrays
    M, C, xp = pixels.M, pixels.C, pixels.xp
    y, vectors, gates = pixels.empty(), xp.empty((5, C), pixels.A), None
    if relu and shortcut is not None:
        gates = xp.empty(x.size // pixels.V, np.uint8)
    writing = pixels.grid(WRITING)
    if not measures:
        mean, var, _ = running or (None, None, None)
        fixed = vectors, w, b, mean, var, M, C, writing.R, eps, relu
        pixels.kernel("normalize_fixed")(*writing.launch, x, shortcut, y, gates, *fixed)
        return images(y), (vectors, gates)
    mean, var, count = running or (None, None, None)
    grid = pixels.grid(SUMMING)
    parts, share = pixels.parts(grid), -1.0 if momentum is None else momentum
    pixels.kernel("measure")(
        *grid.launch, x, parts, vectors, w, b, mean, var, count, M, C, grid.R, eps, share, tickets()
    )
    arguments = vectors, count, M, C, writing.R, relu
    pixels.kernel("normalize")(*writing.launch, x, shortcut, y, gates, *arguments)
    return images(y), (vectors, gates)


def batch_norm_backward(
    dy: Array,
    x: Array,
    statistics: tuple[Array, Array],
    w: Array | None,
    sinks: tuple[Sink, Sink],
    y: Array | None = None,
    *,
    measured: bool = True,
    needs_dx: bool = True,
    shortcut: bool = False,
) -> tuple[Array, Array]:
    """Return dx, and ds if there was a shortcut; dγ and dβ go into the sinks.  (γ is in the statistics.)"""
    pixels = Pixels(dy, x)
    (dy, x), (vectors, gates) = pixels.arrays, statistics
    M, C, grid, relu = pixels.M, pixels.C, pixels.grid(SUMMING), y is not None
    qr = pixels.xp.empty((2, C), pixels.A)
    dx = pixels.empty() if needs_dx else None
    ds = pixels.empty() if needs_dx and shortcut else None
    (dw, add_w), (db, add_b) = (sink or (None, False) for sink in sinks)
    pixels.kernel("add_up")(
        *grid.launch,
        *(dy, x, gates, vectors, ds, None if measured else dx, pixels.parts(grid), qr, dw, db),
        *(M, C, grid.R, relu, add_w, add_b, tickets()),
    )
    if measured and needs_dx:
        g, writing = dy if ds is None else ds, pixels.grid(WRITING)
        arguments = vectors, qr, dx, M, C, writing.R, relu and ds is None
        pixels.kernel("input_gradient")(*writing.launch, g, x, *arguments)
    return images(dx), images(ds)
