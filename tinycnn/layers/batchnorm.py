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

**Cost.**  A few passes over memory and hardly any arithmetic.  Statistics are formed slice by slice while a slice is
in cache: mean and sum of squared deviations M₂ = Σ (x − μ)² of each, put together in float64 and in fixed order by
the updating formula of Chan, Golub & LeVeque (1979).  Joining n values to m with means a distance δ apart::

    M₂ = M₂ₘ + M₂ₙ + δ²·m·n/(m + n)                                                   (6)

**Saved for backward:** x, μ and 1/σ.  x̂ is made again from them.

Source: Ioffe & Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal covariate
shift".  Conventions (momentum weighs the new value, unbiased running variance) are PyTorch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..kernels.norm import (
    as_rows,
    backward_vectors,
    fold,
    forward_vectors,
    gradient_sums,
    moments,
    normalize,
    normalize_backward,
    spread,
)
from ..parallel import each_slice, sum_slices
from ..parameter import Parameter
from .base import Layer, LayerError
from .check import refuse_empty

ROW = 8192
"""Length of the rows worked on: ufuncs copy shorter ones through a buffer when a vector is broadcast to them."""

Statistics: TypeAlias = tuple[Array, Array]
"""Mean and variance, or mean and 1/σ."""


def batch_statistics(x: Array) -> Statistics:
    """Equation (1): mean and biased variance of every channel of ``x`` (N, C, H, W), float64."""
    _, C, H, W = x.shape
    x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    k = fold(H * W, C, ROW)
    parts: dict[int, tuple[int, Array, Array]] = {}

    def one_slice(s: slice) -> None:
        pixels = x[s].reshape(1, -1, C)  # (n, H, W, C) -> (1, n·H·W, C)
        mean, var = moments(pixels, C, k)
        parts[s.start] = pixels.shape[1], mean[0], var[0]

    each_slice(one_slice, x)
    return join_moments(parts[start] for start in sorted(parts))


def join_moments(parts: Iterable[tuple[int, Array, Array]]) -> Statistics:
    """Equation (6): mean and variance of everything, from (number of values, mean, variance) of each part."""
    count, mean, squares = 0, 0.0, 0.0
    for n, part_mean, part_var in parts:
        delta = part_mean - mean
        squares = squares + part_var * n + delta**2 * (count * n / (count + n))
        count += n
        mean = mean + delta * (n / count)
    return mean, squares / count


def normalize_channels(x: Array, mean: Array, inv_std: Array, w: Array | None, b: Array | None) -> Array:
    """Equation (2): y (N, C, H, W), from a mean and 1/σ for every channel, (C,) in float64."""
    N, C, H, W = x.shape
    m = mean.astype(x.dtype)
    a, c = forward_vectors(m, mean, inv_std, 1 if w is None else w, 0 if b is None else b)
    m, a, c = _rows(x, m, a, c)
    x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    y = array_module(x).empty((N, H, W, C), x.dtype)
    each_slice(lambda s: normalize(x[s], m, a, c, y[s]), x)
    return y.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def batch_norm_sums(dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
    """Equation (3): dγ and dβ, (C,) in float64."""
    C = len(mean)
    m = mean.astype(x.dtype)
    (rows,) = _rows(x, m)
    x, dy = x.transpose(0, 2, 3, 1), dy.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    # a slice (n, H, W, C) is one block of pixels, (1, n·H·W, C)
    db, dw = sum_slices(lambda s: gradient_sums(dy[s].reshape(1, -1, C), x[s].reshape(1, -1, C), rows), x)
    # Σ dy·(x − mean) = Σ dy·(x − m) + (m − mean)·Σ dy
    return (dw[0] + (m - mean) * db[0]) * inv_std, db[0]


def batch_norm_backward_input(
    dy: Array, x: Array, mean: Array, inv_std: Array, w: Array | None, dw: Array, db: Array
) -> Array:
    """Equation (4): dx (N, C, H, W), as a·(dy − (x − m)·q − r)."""
    N, C, H, W = x.shape
    M = N * H * W
    m = mean.astype(x.dtype)
    q, r = backward_vectors(m, mean, inv_std, db / M, dw / M)
    m, q, r, a = _rows(x, m, q, r, inv_std if w is None else inv_std * w)
    x, dy = x.transpose(0, 2, 3, 1), dy.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    dx = array_module(x).empty((N, H, W, C), x.dtype)
    each_slice(lambda s: normalize_backward(dy[s], x[s], m, q, r, a, dx[s]), x, 3 * x.nbytes // N)
    return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def scale_channels(dy: Array, a: Array) -> Array:
    """Equation (5): dx (N, C, H, W) = a·dy, with a = γ/σ (C,)."""
    N, C, H, W = dy.shape
    (rows,) = _rows(dy, a)
    xp = array_module(dy)
    dy = dy.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    dx = xp.empty((N, H, W, C), dy.dtype)
    each_slice(lambda s: xp.multiply(as_rows(dy[s], rows), rows, out=as_rows(dx[s], rows)), dy)
    return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def _rows(x: Array, *vectors: Array) -> list[Array]:
    """Return each vector (C,) as the row that the pixels of ``x`` (N, C, H, W) meet."""
    _, C, H, W = x.shape
    k = fold(H * W, C, ROW)
    return [spread(v[None], k, x.dtype) for v in vectors]


class RunningNorm(Layer):
    """What layers with running statistics share: arguments, parameters, buffers, and how the averages move."""

    running_mean: Array
    running_var: Array
    num_batches_tracked: Array

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: np.typing.DTypeLike,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise LayerError(f"{type(self).__name__}: num_features must be at least 1, got {num_features}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, dtype))
            self.register_buffer("running_var", np.ones(num_features, dtype))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    @property
    def measures(self) -> bool:
        """Whether forward takes the statistics of its input; otherwise it takes the running ones."""
        return self.training or not self.track_running_stats

    def running_statistics(self) -> Statistics:
        """Return the running mean and variance in float64."""
        return self.running_mean.astype(np.float64), self.running_var.astype(np.float64)

    def move_average(self, mean: Array, var: Array, share: float) -> None:
        """Move the running statistics towards ``mean`` and (unbiased) ``var`` by ``share`` of the way."""
        for average, new in ((self.running_mean, mean), (self.running_var, var)):
            average[...] = (1 - share) * average + share * new

    def backward_fixed(self, dy: Array, x: Array, mean: Array, inv_std: Array) -> Array:
        """The backward when mean and σ were running statistics: equations (3) and (5)."""
        if self.weight and self.bias and (self.weight.requires_grad or self.bias.requires_grad):
            self.accumulate(*batch_norm_sums(dy, x, mean, inv_std))
        if not self.needs_dx:
            return None
        return scale_channels(dy, inv_std if self.weight is None else inv_std * self.weight.data)

    def accumulate(self, dw: Array, db: Array) -> None:
        """Add to the gradients of weight and bias, where there are any."""
        if self.weight and self.bias:
            self.weight.accumulate(dw.astype(self.weight.dtype))
            self.bias.accumulate(db.astype(self.bias.dtype))

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        defaults = inspect.signature(type(self)).parameters
        names = ("eps", "momentum", "affine", "track_running_stats")
        given = [(name, getattr(self, name)) for name in names]
        return ", ".join([str(self.num_features), *(f"{n}={v}" for n, v in given if v != defaults[n].default)])


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

    def forward(self, x: Array) -> Array:
        """Return y, equations (1) and (2); in training, move the running statistics."""
        x = self.check_input(x, rank=4, channels=self.num_features)
        refuse_empty(self, x)
        mean, var = self.measure(x) if self.measures else self.running_statistics()
        inv_std = (var + self.eps) ** -0.5
        self.save(x, mean, inv_std, self.measures)
        w, b = self.weight, self.bias
        return normalize_channels(x, mean, inv_std, w and w.data, b and b.data)

    def measure(self, x: Array) -> Statistics:
        """Return mean and variance of the batch, after moving the running statistics towards them."""
        M = x.size // self.num_features
        if M <= 1:
            raise LayerError(
                f"{self}: the variance of a channel needs more than one value, got an input of shape "
                f"{tuple(x.shape)}: use a larger batch, or eval() with running statistics"
            )
        mean, var = batch_statistics(x)
        if self.track_running_stats:  # then this is training
            self.num_batches_tracked += 1
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.move_average(mean, var * (M / (M - 1)), share)
        return mean, var

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4) or (5); add (3) to the gradients."""
        x, mean, inv_std, measured = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        if not measured:
            return self.backward_fixed(dy, x, mean, inv_std)
        dw, db = batch_norm_sums(dy, x, mean, inv_std)
        self.accumulate(dw, db)
        w = self.weight
        return batch_norm_backward_input(dy, x, mean, inv_std, w and w.data, dw, db) if self.needs_dx else None
