"""Normalisation of each image by itself: group and instance normalisation.

**Idea.**  Do what batch normalisation does, but take mean and variance over a part of a single image: over a group of
its channels, or over each channel.  Then nothing depends on the batch: one image is enough, and training and
evaluation are the same.

=========  ==========================================================================
N, C, H, W images, channels, height and width
G          groups of C/G neighbouring channels; G = C is instance normalisation
S          the values that share a mean and a variance, a group of channels of one image
M          C/G·H·W, the number of values in S
x, y, dy   (N, C, H, W)
μ, v       mean and biased variance of each S, (N, G);  σ = √(v + ε)
x̂          (x − μ)/σ, (N, C, H, W)
γ, β       weight and bias, (C,): one per channel, not per group
=========  ==========================================================================

**Forward**::

    μ = 1/M Σ_S x        v = 1/M Σ_S (x − μ)²                                         (1)
    y = γ·x̂ + β                                                                       (2)

**Backward.**  γ and β are shared by all images and pixels, and sum over whom they met::

    dβ = Σ_{n, h, w} dy        dγ = Σ_{n, h, w} dy·x̂                                  (3)

Within S everything is as in batch normalisation (`tinycnn.layers.batchnorm` derives it): x̂_i moves with x_j by
1/σ·(δ_ij − 1/M − x̂_i·x̂_j/M).  Only, γ differs from channel to channel within S, so that the means are those of
dx̂ = γ·dy::

    dx = 1/σ · (γ·dy − mean_S(γ·dy) − x̂·mean_S(γ·dy·x̂))                               (4)

γ being constant over the pixels, these means come from the sums of (3) over the pixels of one image.

**Cost.**  A few passes over memory; each slice of the batch is done with while it is in cache.

**Saved for backward:** x, and μ and 1/σ of each S.

Sources: Ulyanov, Vedaldi & Lempitsky 2016, "Instance normalization: the missing ingredient for fast stylization"; Wu &
He 2018, "Group normalization".
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..kernels.cuda import twin
from ..kernels.norm import (
    Running,
    Sink,
    backward_vectors,
    fold,
    forward_vectors,
    gradient_sums,
    moments,
    move_averages,
    normalize_backward,
    put_gradients,
    scale_and_shift,
    scaled,
    spread,
)
from ..parallel import each_slice
from ..parameter import Parameter
from .base import Layer, LayerError
from .batchnorm import batch_norm_backward, batch_norm_forward
from .check import refuse_empty
from .running import RunningNorm, sinks

ROW = 1024
"""Length of the rows worked on: every example has vectors of its own to be spread, so not too long."""

Statistics: TypeAlias = tuple[Array, ...]
"""Mean and 1/σ of every group, two (N, G) in float64."""


@twin("groupnorm")
def group_norm_forward(
    x: Array,
    G: int,
    w: Array | None,
    b: Array | None,
    eps: float,
    running: Running | None = None,
    share: float = 0.0,
) -> tuple[Array, Statistics]:
    """Equations (1) and (2), from x (N, P, C): y (N, P, C), and the statistics that `group_norm_backward` needs.

    Where there are ``running`` statistics, of G = C groups, they are moved by ``share`` towards the images' mean.
    """
    N, P, C = x.shape
    xp, k = array_module(x), fold(P, C, ROW)
    y = xp.empty(x.shape, x.dtype)
    mean, var = xp.empty((N, G), np.float64), xp.empty((N, G), np.float64)

    def one_slice(s: slice) -> None:
        m, mean[s], var[s] = moments(x[s], G, k, y[s])  # y = x − m, for a start
        m, mu, inv = _by_channel(C, m, mean[s], (var[s] + eps) ** -0.5)
        a, c = forward_vectors(m, mu, inv, 1 if w is None else w, 0 if b is None else b)
        a, c = (spread(v, k, x.dtype) for v in (a, c))
        scale_and_shift(y[s], a, c)

    each_slice(one_slice, x)
    if running is not None:
        move_averages(running, mean.mean(axis=0), var.mean(axis=0) * (P / (P - 1)), share)
    return y, (mean, (var + eps) ** -0.5)


@twin("groupnorm")
def group_norm_backward(
    dy: Array, x: Array, statistics: Statistics, w: Array | None, sinks: tuple[Sink, Sink], needs_dx: bool = True
) -> Array:
    """Equations (4) and (3): dx (N, P, C), if ``needs_dx``; dγ and dβ go into the sinks."""
    mean, inv_std = statistics
    (N, P, C), G = x.shape, mean.shape[1]
    xp, k, M = array_module(x), fold(P, C, ROW), P * C // G
    gain = 1 if w is None else w
    gains = None if w is None else spread(w[None], k, x.dtype)
    dx = xp.empty(x.shape, x.dtype) if needs_dx else None
    dw, db = xp.empty((N, C), np.float64), xp.empty((N, C), np.float64)  # of each example by itself

    def group_mean(v: Array) -> Array:
        # (n, C) -> (n, G, C/G) -> (n, G) -> (n, C)
        return xp.repeat(v.reshape(-1, G, C // G).sum(axis=2) / M, C // G, axis=1)

    def one_slice(s: slice) -> None:
        m, mu, inv = _by_channel(C, mean[s].astype(x.dtype), mean[s], inv_std[s])
        rows = spread(m, k, x.dtype)
        db[s], dot = gradient_sums(dy[s], x[s], rows)
        dw[s] = (dot + (m - mu) * db[s]) * inv
        if dx is not None:
            q, r = backward_vectors(m, mu, inv, group_mean(gain * db[s]), group_mean(gain * dw[s]))
            q, r, a = (spread(v, k, x.dtype) for v in (q, r, inv))
            normalize_backward(dy[s] if w is None else scaled(dy[s], gains), x[s], rows, q, r, a, dx[s])

    each_slice(one_slice, x, 4 * x[0].nbytes)
    put_gradients(sinks, dw.sum(axis=0), db.sum(axis=0))
    return dx


def _by_channel(C: int, *vectors: Array) -> list[Array]:
    """Return each vector (n, G) repeated for every channel, (n, C)."""
    return [array_module(v).repeat(v, C // v.shape[1], axis=1) for v in vectors]


class GroupNorm(Layer):
    """Normalisation over groups of channels of each example; the module docstring has the mathematics.

    Args:
        num_groups, num_channels: G and C, G a divisor of C.  One group normalises each example as a whole.
        eps: ε, added to the variance.
        affine: whether γ (``weight``, starts at 1) and β (``bias``, starts at 0) are there, one per channel.
        dtype: of the parameters.

    Shape:
        (N, C, H, W) or (N, C), unchanged.

    Raises:
        LayerError: G does not divide C; an input of another rank, dtype or channel count.

    >>> GroupNorm(1, 2, affine=False)(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        self.num_groups, self.num_channels, self.eps, self.affine = num_groups, num_channels, eps, affine
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups:
            raise LayerError(f"{self!r}: num_channels must be a positive multiple of num_groups")
        self.weight = Parameter(np.ones(num_channels, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, dtype)) if affine else None

    def forward(self, x: Array) -> Array:
        """Return y, equations (1) and (2)."""
        x = self.check_input(x, rank=(2, 4), channels=self.num_channels)
        refuse_empty(self, x)
        w, b = (p and p.data for p in (self.weight, self.bias))
        y, statistics = group_norm_forward(_pixels(x), self.num_groups, w, b, self.eps)
        self.save(x, statistics)
        return _images(y, x.shape)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4); add (3) to the gradients."""
        x, statistics = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        w, into = self.weight and self.weight.data, sinks(self.weight, self.bias)
        dx = group_norm_backward(_pixels(dy), _pixels(x), statistics, w, into, self.needs_dx)
        return _images(dx, x.shape) if self.needs_dx else None

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{self.num_groups}, {self.num_channels}"
        text += f", eps={self.eps}" if self.eps != 1e-5 else ""
        return text + ("" if self.affine else ", affine=False")


def _pixels(x: Array) -> Array:
    """Return (N, C, H, W) as (N, H·W, C), and (N, C) as (N, 1, C)."""
    # (N, C, H, W) -> (N, H, W, C) -> (N, H·W, C)
    return (x.transpose(0, 2, 3, 1) if x.ndim == 4 else x).reshape(len(x), -1, x.shape[1])


def _images(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo `_pixels`."""
    if len(shape) == 2:
        return x.reshape(shape)
    N, C, H, W = shape
    return x.reshape(N, H, W, C).transpose(0, 3, 1, 2)  # (N, H·W, C) -> (N, H, W, C) -> (N, C, H, W)


class InstanceNorm2d(RunningNorm):
    """Normalisation over each channel of each image; the module docstring has the mathematics.

    Args:
        num_features: C.
        eps: ε, added to the variance.
        momentum: share of the new value in the running statistics; with None they stay as they are.
        affine: whether γ (``weight``, starts at 1) and β (``bias``, starts at 0) are there, one per channel.
        track_running_stats: whether averages of the images' statistics are kept, and used in evaluation; there
            it is then a `BatchNorm2d`.
        dtype: of parameters and running statistics.

    Shape:
        (N, C, H, W) -> (N, C, H, W).

    Raises:
        LayerError: an input of another rank, dtype or channel count, or of a single pixel where statistics are to
            be taken from it: it is its own mean, and its variance is 0.

    >>> InstanceNorm2d(1)(np.array([[[[1.0, 3.0]]]])).round(3)
    array([[[[-1.,  1.]]]])
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype)

    def forward(self, x: Array) -> Array:
        """Return y, equations (1) and (2); in training, move the running statistics."""
        x = self.check_input(x, rank=4, channels=self.num_features)
        refuse_empty(self, x)
        w, b = (p and p.data for p in (self.weight, self.bias))
        if not self.measures:
            y, statistics = batch_norm_forward(x, w, b, self.running, self.eps, None, False)
            self.save(x, statistics, False)
            return y
        M = x.shape[2] * x.shape[3]
        if M <= 1:
            raise LayerError(
                f"{self}: the variance of a channel needs more than one pixel, got an input of shape {tuple(x.shape)}"
            )
        running = None if self.momentum is None else self.running
        y, statistics = group_norm_forward(_pixels(x), self.num_features, w, b, self.eps, running, self.momentum or 0.0)
        self.save(x, statistics, True)
        return _images(y, x.shape)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4) (γ·dy/σ with running statistics); add (3) to the gradients."""
        x, statistics, measured = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        w, into = self.weight and self.weight.data, sinks(self.weight, self.bias)
        if not measured:  # running statistics: one mean for all images
            return batch_norm_backward(dy, x, statistics, w, into, measured=False, needs_dx=self.needs_dx)[0]
        dx = group_norm_backward(_pixels(dy), _pixels(x), statistics, w, into, self.needs_dx)
        return _images(dx, x.shape) if self.needs_dx else None
