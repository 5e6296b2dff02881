"""Batch normalisation: every channel brought to mean 0 and variance 1 over the batch.

**Idea.**  A layer learns faster when the distribution of its input stands still.  So each channel is shifted and
scaled to mean 0 and variance 1, measured over the images of the batch and all their pixels, and then moved by
a trained scale and shift to wherever is best.  In evaluation, running averages of the statistics take the place
of the batch's, so that an image's result does not depend on its neighbours.

=========  ==========================================================================
N, C, H, W images, channels, height and width;  M = N·H·W, the number of values of a channel
x, y, dy   (N, C, H, W)
μ, v       (C,) mean and biased variance of x;  σ = √(v + ε)
x̂          (x − μ)/σ, (N, C, H, W)
γ, β       weight and bias, (C,)
=========  ==========================================================================

**Forward**, for each channel::

    μ = 1/M Σ x        v = 1/M Σ (x − μ)²                                             (1)
    y = γ·x̂ + β                                                                       (2)

The running mean and variance move towards the batch's by the share ``momentum`` (or keep the plain average of all
batches seen); as estimates for images to come they take the *unbiased* variance, v·M/(M − 1).

**Backward.**  β is added to every y, and γ multiplies every x̂::

    dβ = Σ dy        dγ = Σ dy·x̂                                                      (3)

For x, start from dx̂ = γ·dy.  x̂ depends on x directly, and through μ and σ on every other x of the channel.  Moving x_j
moves μ by 1/M, and v by 2(x_j − μ)/M (the shift of μ adds nothing to it, since Σ (x − μ) = 0), hence σ by
dv/2σ = x̂_j/M.  So x̂_i = (x_i − μ)/σ moves by::

    ∂x̂_i/∂x_j = 1/σ · (δ_ij − 1/M − x̂_i·x̂_j/M)

and collecting Σ_i dx̂_i · ∂x̂_i/∂x_j::

    dx = γ/σ · (dy − mean(dy) − x̂·mean(dy·x̂)) = γ/σ · (dy − dβ/M − x̂·dγ/M)            (4)

dy less its components along 1 and along x̂: moving x in these two directions is just what normalisation undoes.
With running statistics μ and σ are constants, and::

    dx = γ/σ · dy                                                                     (5)

**Followed by ReLU**, and perhaps by the sum with a shortcut s, as in residual networks: `BatchNormReLU2d`.  The gate of
ReLU is where y > 0; behind it everything is as above, and the shortcut is told the same::

    y = max(γ·x̂ + β + s, 0)                                                           (6)
    g = dy·[y > 0]        ds = g        dx, dγ, dβ from g as above from dy            (7)

**Cost.**  Hardly any arithmetic: memory is what it costs.  Forward goes over it twice, for (1) and for (2), and
backward twice, for (3) and for (4); sum and ReLU are done on the way.  (1) is taken as a single pass over deviations
from some m near μ.  m is one for the whole batch, so that plain sums of slices add up, in float64 and in fixed order::

    d = x − m,   μ = m + mean(d),   v = mean(d²) − mean(d)²                           (8)

The difference in v costs digits only where m is not near.  m is the mean of every eighth row of pixels, and the mean
of a share f of some values is never further from the mean of all than √((1/f − 1)·v): mean(d)² ≤ 7·v.

**Saved for backward:** x, μ and 1/σ; y if there is a ReLU (the next layer keeps it anyway).  x̂ is made again from x.

Source: Ioffe & Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate
shift".  Conventions (momentum weighs the new value, unbiased running variance) are PyTorch's.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..kernels.cuda import twin
from ..kernels.norm import (
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
from ..parallel import each_slice, scratch
from .base import LayerError
from .check import refuse_empty
from .running import RunningNorm, sinks

SAMPLE = 8
"""One in how many rows is looked at to find a number near the mean."""

Statistics: TypeAlias = tuple[Array, Array, Array]
"""m, mean and variance (or 1/σ): m in the precision of x, the others float64, all (C,)."""


def measure_channels(x: Array) -> tuple[Array, Statistics]:
    """Equation (8), from x (N, C, H, W): d = x − m in memory of its own; m, mean and biased variance."""
    R, xp = Rows(x.shape), array_module(x)
    x = R.of(x)
    m = R.mean(x[::SAMPLE]).astype(x.dtype)
    m_row = R.spread(m, x.dtype)
    d = xp.empty(x.shape, x.dtype)

    def one_slice(s: slice) -> tuple[Array, Array]:
        xp.subtract(x[s], m_row, out=d[s])
        return column_sums(d[s]), column_dots(d[s], d[s])

    total, squares = R.sums(one_slice, x)
    off = total / R.M
    return R.images(d), (m, m + off, squares / R.M - off**2)


def scale_channels(x: Array, a: Array, out: Array | None = None) -> Array:
    """Equation (5): a·x, with a (C,); into ``out``, which may be x, if it is given."""
    R, xp = Rows(x.shape), array_module(x)
    x, a = R.of(x), R.spread(a, x.dtype)
    y = xp.empty(x.shape, x.dtype) if out is None else R.of(out)
    each_slice(lambda s: xp.multiply(x[s], a, out=y[s]), x)
    return R.images(y)


def normalize_channels(
    x: Array,
    statistics: Statistics,
    w: Array | None = None,
    b: Array | None = None,
    *,
    d: Array | None = None,
    shortcut: Array | None = None,
    relu: bool = False,
) -> Array:
    """Equation (2) or (6): y (N, C, H, W), from m, mean and 1/σ.

    Args:
        x: (N, C, H, W).
        statistics, w, b: of every channel.
        d: x − m where it is known already; y takes its place.
        shortcut, relu: what is added, and whether ReLU follows.
    """
    R, xp = Rows(x.shape), array_module(x)
    m, mean, inv_std = statistics
    a, c = forward_vectors(m, mean, inv_std, 1 if w is None else w, 0 if b is None else b)
    m, a, c, zero = (R.spread(v, x.dtype) for v in (m, a, c, xp.zeros_like(m)))
    x, s = R.of(x), None if shortcut is None else R.of(shortcut)
    y = xp.empty(x.shape, x.dtype) if d is None else R.of(d)

    def one_slice(i: slice) -> None:
        rows = y[i]
        if d is None:
            xp.subtract(x[i], m, out=rows)
        rows *= a
        rows += c
        if s is not None:
            rows += s[i]
        if relu:  # NumPy takes the maximum of two rows in half the time of that of a row and a number
            xp.maximum(rows, zero, out=rows)

    each_slice(one_slice, x)
    return R.images(y)


def batch_norm_sums(dy: Array, x: Array, statistics: Statistics, y: Array | None = None) -> tuple[Array, Array, Array]:
    """Equations (7) and (3): g, and dγ and dβ, (C,) in float64; without ``y`` there is no ReLU and g is dy."""
    R, xp = Rows(x.shape), array_module(x)
    m, mean, inv_std = statistics
    m_row = R.spread(m, x.dtype)
    x, g = R.of(x), R.of(dy)
    if y is not None:
        y, dy, g = R.of(y), g, xp.empty(x.shape, x.dtype)

    def one_slice(s: slice) -> tuple[Array, Array]:
        if y is not None:
            gate(dy[s], y[s], g[s])
        d = scratch("deviation", x[s].shape, x.dtype, like=x)
        xp.subtract(x[s], m_row, out=d)
        return column_sums(g[s]), column_dots(g[s], d)

    db, dot = R.sums(one_slice, x)
    # Σ g·(x − mean) = Σ g·(x − m) + (m − mean)·Σ g
    return R.images(g), (dot + (m - mean) * db) * inv_std, db


def batch_norm_backward_input(
    g: Array, x: Array, statistics: Statistics, w: Array | None, dw: Array, db: Array, out: Array | None = None
) -> Array:
    """Equation (4): dx (N, C, H, W), as a·g − ((x − m)·q + r); into ``out``, which may be g, if it is given."""
    R, xp = Rows(x.shape), array_module(x)
    m, mean, inv_std = statistics
    a = inv_std if w is None else inv_std * w
    q, r = backward_vectors(m, mean, inv_std, a * db / R.M, a * dw / R.M)
    m, a, q, r = (R.spread(v, x.dtype) for v in (m, a, q, r))
    x, g = R.of(x), R.of(g)
    dx = xp.empty(x.shape, x.dtype) if out is None else R.of(out)

    def one_slice(s: slice) -> None:
        t = scratch("deviation", x[s].shape, x.dtype, like=x)
        xp.subtract(x[s], m, out=t)
        t *= q
        t += r
        rows = dx[s]
        xp.multiply(g[s], a, out=rows)
        rows -= t

    each_slice(one_slice, x, 3 * x[0].nbytes)
    return R.images(dx)


@twin("batchnorm")
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
) -> tuple[Array, Statistics]:
    """Equations (1) and (2), or (6): y, and the statistics (m, mean and 1/σ) that `batch_norm_backward` needs.

    Args:
        x: (N, C, H, W).
        w, b: γ and β.
        running: the running statistics, which are moved if x is measured, and taken if not.
        eps, momentum: ε, and the share of this batch in the running statistics, None for the plain average.
        measures: whether the statistics are those of x.
        shortcut, relu: what is added, and whether ReLU follows.
    """
    d = None
    if measures:
        d, (m, mean, var) = measure_channels(x)
        M = x.size // len(m)
        if running is not None:
            count = running.count
            count += 1
            move_averages(running, mean, var * (M / (M - 1)), 1 / float(count) if momentum is None else momentum)
    else:
        assert running is not None
        m, mean, var = running.mean, running.mean.astype(np.float64), running.var.astype(np.float64)
    statistics = m, mean, (var + eps) ** -0.5
    return normalize_channels(x, statistics, w, b, d=d, shortcut=shortcut, relu=relu), statistics


@twin("batchnorm")
def batch_norm_backward(
    dy: Array,
    x: Array,
    statistics: Statistics,
    w: Array | None,
    sinks: tuple[Sink, Sink],
    y: Array | None = None,
    *,
    measured: bool = True,
    needs_dx: bool = True,
    shortcut: bool = False,
) -> tuple[Array, Array]:
    """Equations (3) and (4) or (5), with (7): dx, and ds if there was a ``shortcut``; dγ and dβ go into the sinks.

    Args:
        dy, x: (N, C, H, W).
        statistics: what forward returned; w: γ; y: what forward returned, if there was a ReLU.
        sinks: of dγ and dβ.
        measured: whether the statistics are those of x.
        needs_dx: whether anybody needs dx and ds.
    """
    g, gain = dy, statistics[2] if w is None else statistics[2] * w
    if measured or y is not None or any(sinks):
        g, dw, db = batch_norm_sums(dy, x, statistics, y)
        put_gradients(sinks, dw, db)
    if not needs_dx:
        return None, None
    out = None if shortcut or y is None else g  # where nobody else needs g, dx takes its place
    if not measured:
        dx = scale_channels(g, gain, out)
    else:
        dx = batch_norm_backward_input(g, x, statistics, w, dw, db, out)
    return dx, g if shortcut else None


class BatchNorm2d(RunningNorm):
    """Batch normalisation of images; the module docstring has the mathematics.

    Args:
        num_features: C.
        eps: ε, added to the variance.
        momentum: share of the new value in the running statistics; None keeps the average of all batches.
        affine: whether γ (``weight``, starts at 1) and β (``bias``, starts at 0) are there.
        track_running_stats: whether running statistics are kept and used in evaluation; without them the
            batch's own are used always.
        dtype: of parameters and running statistics.

    Shape:
        (N, C, H, W) -> (N, C, H, W).

    Buffers: ``running_mean``, ``running_var`` (unbiased), ``num_batches_tracked``.

    Raises:
        LayerError: an input of another rank, dtype or channel count, or with a single value per channel where
            statistics are to be taken from it: it is its own mean, and its variance is 0.

    >>> norm = BatchNorm2d(2)
    >>> y = norm(np.arange(24.0, dtype=np.float32).reshape(3, 2, 2, 2))
    >>> abs(y.mean(axis=(0, 2, 3))).max() < 1e-6, y.std(axis=(0, 2, 3)).round(3)
    (np.True_, array([1., 1.], dtype=float32))
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    relu = False

    def forward(self, x: Array) -> Array:
        """Return y, equations (1) and (2); in training, move the running statistics."""
        return self.normalize(x, None)

    def normalize(self, x: Array, shortcut: Array | None) -> Array:
        """Return y of equation (2) or (6)."""
        x = self.check_input(x, rank=4, channels=self.num_features)
        refuse_empty(self, x)
        if self.measures and x.size == self.num_features:
            raise LayerError(
                f"{self}: the variance of a channel needs more than one value, got an input of shape "
                f"{tuple(x.shape)}: use a larger batch, or eval() with running statistics"
            )
        w, b = (p and p.data for p in (self.weight, self.bias))
        y, statistics = batch_norm_forward(
            x, w, b, self.running, self.eps, self.momentum, self.measures, shortcut, self.relu
        )
        self.save(x, statistics, y if self.relu else None, self.measures, shortcut is not None)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4) or (5), after a forward with a shortcut (dx, ds), (7); add (3) to the gradients."""
        x, statistics, y, measured, shortcut = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        w, into = self.weight and self.weight.data, sinks(self.weight, self.bias)
        dx, ds = batch_norm_backward(
            dy, x, statistics, w, into, y, measured=measured, needs_dx=self.needs_dx, shortcut=shortcut
        )
        return (dx, ds) if shortcut else dx


class BatchNormReLU2d(BatchNorm2d):
    """Batch normalisation, a shortcut's sum if there is one, and ReLU, in the passes of `BatchNorm2d` alone.

    Parameters, buffers and their names are those of `BatchNorm2d`, and so are the arguments.

    Shape:
        (N, C, H, W), and the shortcut's (N, C, H, W) -> (N, C, H, W).

    Raises:
        LayerError: as `BatchNorm2d`; a shortcut of another shape or dtype.

    >>> norm = BatchNormReLU2d(1)
    >>> norm(np.float32([[[[1.0, 2.0, 3.0]]]])).round(3)
    array([[[[0.   , 0.   , 1.225]]]], dtype=float32)
    """

    relu = True

    def forward(self, x: Array, shortcut: Array | None = None) -> Array:
        """Return y, equations (1) and (6); in training, move the running statistics."""
        if shortcut is not None:
            shortcut = self.check_input(shortcut)
            if tuple(shortcut.shape) != tuple(x.shape):
                raise LayerError(
                    f"{self}: input and shortcut must have one shape, got {tuple(x.shape)} and {tuple(shortcut.shape)}"
                )
            if shortcut.dtype != x.dtype:
                raise LayerError(f"{self}: the shortcut is {shortcut.dtype}, the input {x.dtype}")
        return self.normalize(x, shortcut)

    def __call__(self, x: Array, shortcut: Array | None = None) -> Array:
        return self.forward(x, shortcut)

    def branches(self) -> list[Array]:
        """Return where y is on the right of the kink."""
        return [] if self._saved is None else [self._saved[2] > 0]
