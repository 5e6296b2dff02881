"""Twins of the functions of `tinycnn.kernels.dense`, and of `channel_moments` in `tinycnn.layers.dense`.

What stands for ``statistics`` are the vectors (5, C) that `channels.cuh` describes.
"""

from __future__ import annotations

import numpy as np

from ...backend import Array, array_module
from ..norm import Running, Sink
from .batchnorm import images
from .module import Kernel, kernel
from .norm import SUMMING, WRITING, Grid, divide, loadable, sums_dtype, tickets, variants, vector_width

VARIANTS = variants("dense")


class Parts:
    """Arrays (N, C, H, W) on channels-last memory as the kernels take them, parts of wider ones or contiguous.

    Args:
        parts: neighbouring channels of wider arrays.
        whole: contiguous ones, of the same shape.
    """

    def __init__(self, *parts: Array, whole: tuple[Array, ...] = ()) -> None:
        # (N, C, H, W) -> (N, H, W, C)
        self.parts = [x.transpose(0, 2, 3, 1) for x in parts]
        self.whole = [loadable(x.transpose(0, 2, 3, 1)) for x in whole]
        first = (*self.parts, *self.whole)[0]
        self.shape, self.C, self.dtype = first.shape, first.shape[3], first.dtype
        self.M, self.xp = first.size // self.C, array_module(first)
        self.pitches = [x.strides[2] // x.itemsize for x in self.parts]
        V = vector_width(self.C, self.dtype)
        fits = all(_is_loadable(x, pitch, V) for x, pitch in zip(self.parts, self.pitches, strict=True))
        self.V = V if fits else 1

    def kernel(self, name: str) -> Kernel:
        """Return a kernel for such arrays."""
        return kernel("dense", name, self.dtype, WIDTH=self.V)

    def grid(self, blocks: int) -> Grid:
        """Return how they are divided."""
        return divide(self.M, self.C, self.dtype, blocks, self.V)

    def empty(self) -> Array:
        """Return a contiguous one, (N, H, W, C)."""
        return self.xp.empty(self.shape, self.dtype)

    def sums(self, grid: Grid) -> Array:
        """Return memory for the two sums of every run."""
        return self.xp.empty((grid.runs, 2, self.C), np.float64)


def _is_loadable(x: Array, pitch: int, V: int) -> bool:
    """Whether each row of a part begins where a load of V numbers can."""
    return pitch % V == 0 and x.data.ptr % (V * x.itemsize) == 0


def _pitch(rows: Array | None) -> int:
    """Return how many numbers lie from one of two rows to the next."""
    return 0 if rows is None else rows.strides[0] // rows.itemsize


def channel_moments(x: Array, moments: Array) -> None:
    """Write the moments of x, which is contiguous."""
    own = Parts(whole=(x,))
    grid = own.grid(SUMMING)
    arguments = own.M, own.C, _pitch(moments), grid.R, tickets()
    own.kernel("measure_part")(*grid.launch, own.whole[0], own.sums(grid), moments, *arguments)


def channel_statistics(
    x: Array,
    moments: Array | None,
    w: Array | None,
    b: Array | None,
    running: Running | None,
    eps: float,
    momentum: float | None,
) -> Array:
    """Return the vectors."""
    C, A = x.shape[1], sums_dtype(x.dtype)
    vectors, share = array_module(x).empty((5, C), A), -1.0 if momentum is None else momentum
    know = kernel("dense", "know", x.dtype, WIDTH=vector_width(C, x.dtype))
    sizes = x.size // C, C, _pitch(moments)
    know(1, 256, moments, vectors, w, b, *(running or (None, None, None)), *sizes, eps, share)
    return vectors


def norm_relu_forward(x: Array, statistics: Array, w: Array | None, b: Array | None) -> Array:
    """Return y.  (γ and β are in the statistics.)"""
    own = Parts(x)
    y, grid = own.empty(), own.grid(WRITING)
    own.kernel("normalize_part")(*grid.launch, *own.parts, y, statistics, own.M, own.C, *own.pitches, grid.R)
    return images(y)


def norm_relu_backward(
    dy: Array,
    y: Array,
    x: Array,
    statistics: Array,
    w: Array | None,
    sinks: tuple[Sink, Sink],
    dx: Array | None = None,
    correction: Array | None = None,
) -> None:
    """Add to dx and to the correction; dγ and dβ go into the sinks."""
    own = Parts(*((x,) if dx is None else (x, dx)), whole=(dy,))
    (x_pitch, *others), grid = own.pitches, own.grid(SUMMING)
    (dw, add_w), (db, add_b) = (sink or (None, False) for sink in sinks)
    correction = None if dx is None else correction
    own.kernel("add_up_part")(
        *grid.launch,
        *(
            own.whole[0],
            own.parts[0],
            statistics,
            None if dx is None else own.parts[1],
            own.sums(grid),
            correction,
            dw,
            db,
        ),
        *(own.M, own.C, x_pitch, others[0] if others else 0, _pitch(correction), grid.R, add_w, add_b, tickets()),
    )


def corrected(dx: Array, x: Array, moments: Array | None, correction: Array) -> Array:
    """Return what is left of dx, contiguous and of the type of x."""
    own = Parts(x, dx)
    y, grid = own.empty(), own.grid(WRITING)
    sizes = own.M, own.C, *own.pitches, _pitch(correction), grid.R
    own.kernel("correct")(*grid.launch, *own.parts, moments, correction, y, *sizes)
    return images(y)
