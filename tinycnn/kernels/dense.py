"""The inner loops of dense blocks, whose layers read the first channels of one array that all of them share.

Equations are those of `tinycnn.layers.dense`.

**Parts.**  Some neighbouring channels of a wider array are a view (N, C, H, W) whose pixels do not touch: rows of C
numbers with a gap behind each.  NumPy goes over these row by row, which is slow where C is small.  So a part takes part
in a single operation, the first or the last; all others work on memory of their own, where k pixels are one row
(`tinycnn.kernels.norm`).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..parallel import each_slice, scratch
from .cuda import twin
from .norm import (
    Rows,
    Running,
    Sink,
    backward_vectors,
    column_dots,
    column_sums,
    forward_vectors,
    gate,
    move_averages,
    put_gradients,
)

Statistics: TypeAlias = tuple[Array, Array, Array]
"""m, mean and 1/σ: m in the precision of x, the others float64, all (C,)."""


def pixels(x: Array, R: Rows) -> Array:
    """Return the view (N·H·W/k, k, C) of ``x`` (N, C, H, W), some neighbouring channels of a wider array."""
    # (N, C, H, W) -> (N, H, W, C) -> (N·H·W/k, k, C)
    return x.transpose(0, 2, 3, 1).reshape(-1, R.k, R.C)


@twin("dense")
def channel_statistics(
    x: Array,
    moments: Array | None,
    w: Array | None,
    b: Array | None,
    running: Running | None,
    eps: float,
    momentum: float | None,
) -> Statistics:
    """Return m, mean and 1/σ for a norm of ``x`` (N, C, H, W); its running statistics are moved or, without
    ``moments`` (2, C), taken.

    (A GPU's kernels want γ and β, ``w`` and ``b``, with them.)
    """
    if moments is None:
        assert running is not None
        mean, var = running.mean.astype(np.float64), running.var.astype(np.float64)
        return running.mean, mean, (var + eps) ** -0.5
    mean, var = moments
    if running is not None:
        M, count = x.size // x.shape[1], running.count
        count += 1
        move_averages(running, mean, var * (M / (M - 1)), 1 / float(count) if momentum is None else momentum)
    return mean.astype(x.dtype), mean, (var + eps) ** -0.5


@twin("dense")
def norm_relu_forward(x: Array, statistics: Statistics, w: Array | None, b: Array | None) -> Array:
    """Return max(γ·x̂ + β, 0), (N, C, H, W), for some neighbouring channels x of a wider array."""
    R, xp = Rows(x.shape), array_module(x)
    m, mean, inv_std = statistics
    a, c = forward_vectors(m, mean, inv_std, 1 if w is None else w, 0 if b is None else b)
    a, c, zero = (R.spread(v, x.dtype) for v in (a, c, xp.zeros_like(m)))
    y = xp.empty((R.M // R.k, R.k, R.C), x.dtype)
    x = pixels(x, R)

    def one_slice(s: slice) -> None:
        xp.subtract(x[s], m, out=y[s])
        rows = y[s].reshape(-1, R.k * R.C)  # (n, k, C) -> (n, k·C)
        rows *= a
        rows += c
        xp.maximum(rows, zero, out=rows)

    each_slice(one_slice, y)
    return R.images(y)


@twin("dense")
def norm_relu_backward(
    dy: Array,
    y: Array,
    x: Array,
    statistics: Statistics,
    w: Array | None,
    sinks: tuple[Sink, Sink],
    dx: Array | None = None,
    correction: Array | None = None,
) -> None:
    """Equation (3): add a·g to ``dx``, and q and r to ``correction``; dγ and dβ go into the sinks.

    Args:
        dy, y: (N, C, H, W), of what `norm_relu_forward` returned.
        x, dx: (N, C, H, W), some neighbouring channels of wider arrays; dx None where nobody needs it.
        statistics, w, sinks: of the norm.
        correction: (2, C), float64; None where the statistics are not those of x.
    """
    R, xp = Rows(x.shape), array_module(x)
    m, mean, inv_std = statistics
    gain = inv_std if w is None else inv_std * w
    a, x = R.spread(gain, x.dtype), pixels(x, R)
    dy, y = R.of(dy), R.of(y)
    into = None if dx is None else pixels(dx, R)

    def gated(s: slice) -> Array:
        g = scratch("gated", dy[s].shape, dy.dtype, like=dy)
        gate(dy[s], y[s], g)
        return g

    def one_slice(s: slice) -> tuple[Array, ...]:
        g, d = gated(s), scratch("deviation", x[s].shape, x.dtype, like=x)
        xp.subtract(x[s], m, out=d)
        sums = column_sums(g), column_dots(g, d.reshape(g.shape))  # (n, k, C) -> (n, k·C)
        add(g, s)
        return sums

    def add(g: Array, s: slice) -> None:
        if into is not None:
            g *= a
            into[s] += g.reshape(-1, R.k, R.C)  # (n, k·C) -> (n, k, C)

    if not any(sinks) and (correction is None or dx is None):
        return each_slice(lambda s: add(gated(s), s), dy)
    db, dot = R.sums(one_slice, dy)
    dw = (dot + (m - mean) * db) * inv_std
    put_gradients(sinks, dw, db)
    if correction is not None and dx is not None:
        q, r = backward_vectors(m, mean, inv_std, gain * db / R.M, gain * dw / R.M)
        correction[0] += q
        correction[1] += r


@twin("dense")
def corrected(dx: Array, x: Array, moments: Array | None, correction: Array) -> Array:
    """Equation (4): return G − (x − m)·q − r, (N, C, H, W); G and x are neighbouring channels of wider arrays."""
    R, xp = Rows(x.shape), array_module(x)
    out = xp.empty((R.M // R.k, R.k, R.C), x.dtype)
    x, dx = pixels(x, R), pixels(dx, R)
    if moments is None:
        each_slice(lambda s: xp.copyto(out[s], dx[s]), out)
        return R.images(out)
    m = moments[0].astype(x.dtype)
    q, r = (R.spread(v, x.dtype) for v in correction)

    def one_slice(s: slice) -> None:
        t = scratch("deviation", x[s].shape, x.dtype, like=x)
        xp.subtract(x[s], m, out=t)
        rows = t.reshape(-1, R.k * R.C)  # (n, k, C) -> (n, k·C)
        rows *= q
        rows += r
        xp.subtract(dx[s], t, out=out[s])

    each_slice(one_slice, out, 3 * out[0].nbytes)
    return R.images(out)
