"""The inner loops that all normalisation layers share, for one slice of the batch.

An array is seen here as (B, P, C): B blocks, P pixels, C channels.  Each block has statistics of its own: to
batch normalisation a slice is one block of many images, to the others every image is a block.

**Wide rows.**  Statistics are vectors over C, and C is often small, while NumPy and BLAS want long inner loops.
As memory is channels-last, k neighbouring pixels are k·C contiguous numbers, and (B, P, C) is as well
(B, P/k, k·C); a vector repeated k times, by `spread`, then meets rows k times as long.

**Accuracy.**  Sums over pixels are taken in the precision of the array over short runs and finished in float64, and
statistics stay float64.  Deviations are formed before they are squared, (x − m)², never as x² − m²: where the
mean is a thousand times the deviation, that difference would leave no digit of a float32.  The m that is
subtracted has the precision of x; what it misses of the mean is made up for in the vectors that follow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..parallel import each_slice, scratch
from .cuda import twin

Sink: TypeAlias = tuple[Array, bool] | None
"""Where a gradient goes: an array, and whether the gradient is added to what is there; None throws it away."""


class Running(NamedTuple):
    """Running statistics: mean and variance of every channel, (C,), and how many batches they come from, ()."""

    mean: Array
    var: Array
    count: Array


SUM_WIDTH = 512
"""Length of the rows that are summed up: short enough to finish in float64 at no cost."""


@functools.lru_cache(maxsize=256)
def fold(P: int, C: int, width: int) -> int:
    """Return how many pixels k to put into one row: the smallest divisor of P with k·C ≥ ``width``, or P."""
    return next((k for k in range(1, P) if P % k == 0 and k * C >= width), P)


def spread(v: Array, k: int, dtype: np.typing.DTypeLike) -> Array:
    """Return ``v`` (B, C) as rows of k pixels, (B, 1, k·C), in ``dtype``."""
    return array_module(v).tile(v.astype(dtype), (1, k))[:, None]


@twin("elementwise")
def channel_sums(x: Array) -> Array:
    """Return the sum over the pixels of ``x`` (B, P, C) as (B, C) in float64."""
    xp = array_module(x)
    B, P, C = x.shape
    k = fold(P, C, SUM_WIDTH)
    # (P/k,) @ (B, P/k, k·C) -> (B, k·C) -> (B, k, C) -> (B, C)
    sums = xp.matmul(xp.ones(P // k, x.dtype), x.reshape(B, P // k, k * C))
    return sums.reshape(B, k, C).sum(axis=1, dtype=np.float64)


def channel_dots(x: Array, y: Array) -> Array:
    """Return the sum over the pixels of x·y, both (B, P, C), as (B, C) in float64."""
    B, P, C = x.shape
    k = fold(P, C, SUM_WIDTH)
    rows, others = x.reshape(B, P // k, k * C), y.reshape(B, P // k, k * C)
    # (B, P/k, k·C) -> (B, k·C) -> (B, k, C) -> (B, C)
    dots = array_module(x).einsum("brc,brc->bc", rows, others)
    return dots.reshape(B, k, C).sum(axis=1, dtype=np.float64)


def moments(x: Array, G: int, k: int, d: Array) -> tuple[Array, Array, Array]:
    """Return m, mean and variance (biased) of each of G groups of channels in each block, three (B, G); write x − m.

    The mean is taken twice.  The first, rounded to the precision of x, is near enough to take deviations from; their
    own mean is what it was off by, and corrects both results (the "corrected two-pass algorithm" of Chan, Golub &
    LeVeque 1983, "Algorithms for computing the sample variance")::

        d = x − m,   mean = m + mean(d),   variance = mean(d²) − mean(d)²

    Args:
        x: (B, P, C).
        G: groups of C/G neighbouring channels.
        k: pixels in a row, a divisor of P.
        d: (B, P, C), where x − m goes.

    Returns:
        m in the precision of x, the others in float64.
    """
    xp = array_module(x)
    B, P, C = x.shape

    def mean(sums: Array) -> Array:
        # (B, C) -> (B, G, C/G) -> (B, G)
        return sums.reshape(B, G, C // G).sum(axis=2) / (P * C // G)

    m = mean(channel_sums(x)).astype(x.dtype)
    m_rows = spread(xp.repeat(m, C // G, axis=1), k, x.dtype)
    xp.subtract(as_rows(x, m_rows), m_rows, out=as_rows(d, m_rows))
    off = mean(channel_sums(d))
    return m, m + off, mean(channel_dots(d, d)) - off**2


def as_rows(x: Array, like: Array) -> Array:
    """Return ``x`` as the rows that a spread vector (B, 1, k·C) meets: (B, P/k, k·C)."""
    return x.reshape(len(like), -1, like.shape[2])


def scale_and_shift(d: Array, a: Array, c: Array) -> None:
    """Turn ``d`` into d·a + c; the vectors are spread."""
    rows = as_rows(d, a)
    rows *= a
    rows += c


def scaled(x: Array, a: Array) -> Array:
    """Return x·a, in scratch; ``a`` is spread."""
    out = scratch("scaled", x.shape, x.dtype, like=x)
    array_module(x).multiply(as_rows(x, a), a, out=as_rows(out, a))
    return out


def gradient_sums(dy: Array, x: Array, m: Array) -> tuple[Array, Array]:
    """Return Σ dy and Σ dy·(x − m) over the pixels: two (B, C) in float64; ``m`` is spread."""
    d = scratch("deviation", x.shape, x.dtype, like=x)
    array_module(x).subtract(as_rows(x, m), m, out=as_rows(d, m))
    return channel_sums(dy), channel_dots(dy, d)


def normalize_backward(dy: Array, x: Array, m: Array, q: Array, r: Array, a: Array, dx: Array) -> None:
    """Write a·(dy − (x − m)·q − r) into ``dx``; the vectors are spread."""
    xp, rows = array_module(x), as_rows(dx, m)
    xp.subtract(as_rows(x, m), m, out=rows)
    rows *= q
    rows += r
    xp.subtract(as_rows(dy, m), rows, out=rows)
    rows *= a


def forward_vectors(m: Array, mean: Array, inv_std: Array, w: Array | float, b: Array | float) -> tuple[Array, Array]:
    """Return a and c with w·x̂ + b = (x − m)·a + c, where x̂ = (x − mean)/σ."""
    a = inv_std * w
    return a, b + (m - mean) * a


def backward_vectors(m: Array, mean: Array, inv_std: Array, g: Array, gx: Array) -> tuple[Array, Array]:
    """Return q and r with g + x̂·gx = (x − m)·q + r, where x̂ = (x − mean)/σ."""
    q = inv_std * gx
    return q, g + (m - mean) * q


ROW = 2048
"""Length of a row of pixels: long enough for the inner loop of a ufunc, short enough to finish sums in float64."""


class Rows:
    """Images as batch normalisation sees them: (N·H·W/k, k·C), rows of k pixels, in slices of whole rows.

    Which image a pixel belongs to is of no interest there, so that slices may be cut anywhere.

    Args:
        shape: (N, C, H, W).
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        N, self.C, H, W = shape
        self.shape, self.M = (N, H, W, self.C), N * H * W
        self.k = fold(self.M, self.C, ROW)

    def of(self, x: Array) -> Array:
        """Return ``x`` (N, C, H, W) as rows."""
        # (N, C, H, W) -> (N, H, W, C) -> (N·H·W/k, k·C)
        return x.transpose(0, 2, 3, 1).reshape(-1, self.k * self.C)

    def images(self, rows: Array) -> Array:
        """Undo `of`."""
        # (N·H·W/k, k·C) -> (N, H, W, C) -> (N, C, H, W)
        return rows.reshape(self.shape).transpose(0, 3, 1, 2)

    def spread(self, v: Array, dtype: np.typing.DTypeLike) -> Array:
        """Return ``v`` (C,) as a row that others meet, (1, k·C)."""
        return spread(v[None], self.k, dtype)[0]

    def mean(self, rows: Array) -> Array:
        """Return the mean over the pixels of ``rows``, (C,) in float64."""
        # (k·C,) -> (k, C) -> (C,)
        return column_sums(rows).reshape(self.k, self.C).sum(axis=0, dtype=np.float64) / (len(rows) * self.k)

    def sums(self, task: Callable[[slice], tuple[Array, ...]], rows: Array) -> Array:
        """Return the sums over all pixels of the sums over rows, (k·C,), that ``task`` returns of each slice.

        Args:
            task: gets a slice of the rows.
            rows: any array of the rows' shape.

        Returns:
            One row of C sums in float64 for each array that ``task`` returns.
        """
        xp = array_module(rows)
        parts: dict[int, Array] = {}

        def one_slice(s: slice) -> None:
            parts[s.start] = xp.stack(task(s))

        each_slice(one_slice, rows)
        # slices × (sums, k·C) -> (sums, k·C) -> (sums, k, C) -> (sums, C)
        total = xp.stack([parts[start] for start in sorted(parts)]).sum(axis=0, dtype=np.float64)
        return total.reshape(-1, self.k, self.C).sum(axis=1)


def example_sums(x: Array) -> Array:
    """Return the sum of each row of ``x`` (N, M) as (N, 1) in float64."""
    N, M = x.shape
    k = fold(M, 1, SUM_WIDTH)
    # (N, M) -> (N·M/k, k) @ (k,) -> (N, M/k) -> (N, 1)
    sums = x.reshape(-1, k) @ array_module(x).ones(k, x.dtype)
    return sums.reshape(N, M // k).sum(axis=1, dtype=np.float64, keepdims=True)


def example_dots(x: Array, y: Array) -> Array:
    """Return the sum of x·y over each row, both (N, M), as (N, 1) in float64."""
    N, M = x.shape
    k = fold(M, 1, SUM_WIDTH)
    # (N, M) -> (N·M/k, k) -> (N, M/k) -> (N, 1)
    dots = array_module(x).einsum("rk,rk->r", x.reshape(-1, k), y.reshape(-1, k))
    return dots.reshape(N, M // k).sum(axis=1, dtype=np.float64, keepdims=True)


def column_sums(x: Array) -> Array:
    """Return Σ_r x over the rows of ``x`` (R, C), as a matrix product: NumPy's own sum takes twice the time."""
    return array_module(x).ones(len(x), x.dtype) @ x


def column_dots(x: Array, y: Array) -> Array:
    """Return Σ_r x·y over the rows of ``x`` and ``y`` (R, C), without an array of the products."""
    return array_module(x).einsum("rc,rc->c", x, y)


def gate(dy: Array, y: Array, g: Array) -> None:
    """Write dy·[y > 0] into ``g``.  (A product of floats and booleans is slower: NumPy would convert these again.)"""
    array_module(dy).greater(y, 0, out=g)
    g *= dy


def move_averages(running: Running, mean: Array, var: Array, share: float) -> None:
    """Move the running statistics towards ``mean`` and (unbiased) ``var`` by ``share`` of the way."""
    for average, new in ((running.mean, mean), (running.var, var)):
        average[...] = (1 - share) * average + share * new


def put_gradients(sinks: tuple[Sink, ...], *gradients: Array) -> None:
    """Put each gradient into its sink, in the sink's precision."""
    for sink, gradient in zip(sinks, gradients, strict=True):
        if sink is not None:
            array, add = sink
            if add:
                array += gradient.astype(array.dtype)
            else:
                array[...] = gradient
