"""Layer normalisation: each example brought to mean 0 and variance 1 by itself.

**Idea.**  Mean and variance are taken over all features of one example, and over nothing else: no example depends on
another, and training and evaluation are the same.

=========  ==========================================================================
x, y, dy   examples of any shape whose last axes are the features; seen as (N, M)
N, M       number of examples; number of features of each
μ, v       (N,) mean and biased variance of each example;  σ = √(v + ε)
x̂          (x − μ)/σ, (N, M)
γ, β       weight and bias, (M,): every feature has its own
=========  ==========================================================================

**Forward**::

    μ = 1/M Σ_m x        v = 1/M Σ_m (x − μ)²                                         (1)
    y = γ·x̂ + β                                                                       (2)

**Backward.**  γ and β are shared by the examples, and sum over them::

    dβ = Σ_n dy        dγ = Σ_n dy·x̂                                                  (3)

Within an example everything is as in batch normalisation (`tinycnn.layers.batchnorm` derives it): x̂_i moves with x_j by
1/σ·(δ_ij − 1/M − x̂_i·x̂_j/M).  γ differs from feature to feature, so that the means are those of dx̂ = γ·dy::

    dx = 1/σ · (γ·dy − mean_m(γ·dy) − x̂·mean_m(γ·dy·x̂))                               (4)

**Cost.**  A few passes over memory; each slice of the examples is done with while it is in cache.

**Saved for backward:** x, and μ and 1/σ of each example.

Source: Ba, Kiros & Hinton 2016, "Layer normalization".
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..kernels.cuda import twin
from ..kernels.norm import Sink, column_dots, column_sums, example_dots, example_sums, put_gradients
from ..parallel import each_slice, scratch, sum_slices
from ..parameter import Parameter, channels_last
from .base import Layer, LayerError
from .check import refuse_empty

Statistics: TypeAlias = tuple[Array, Array]
"""Mean and 1/σ of every example, two (N, 1) in float64."""


@twin("layernorm")
def layer_norm_forward(x: Array, w: Array | None, b: Array | None, eps: float) -> tuple[Array, Statistics]:
    """Equations (1) and (2), from x (N, M): y (N, M), and the statistics that `layer_norm_backward` needs.

    The mean is taken twice, as `tinycnn.kernels.norm.moments` explains.
    """
    xp, M = array_module(x), x.shape[1]
    y = xp.empty(x.shape, x.dtype)
    mean, inv_std = xp.empty((len(x), 1), np.float64), xp.empty((len(x), 1), np.float64)

    def one_slice(s: slice) -> None:
        m, d = (example_sums(x[s]) / M).astype(x.dtype), y[s]
        xp.subtract(x[s], m, out=d)
        off = example_sums(d) / M
        mean[s], inv_std[s] = m + off, (example_dots(d, d) / M - off**2 + eps) ** -0.5
        scale_and_shift(d, inv_std[s], -off * inv_std[s])
        if w is not None:
            d *= w
        if b is not None:
            d += b

    each_slice(one_slice, x)
    return y, (mean, inv_std)


@twin("layernorm")
def layer_norm_backward(
    dy: Array, x: Array, statistics: Statistics, w: Array | None, sinks: tuple[Sink, Sink], needs_dx: bool = True
) -> Array:
    """Equations (3) and (4): dx (N, M), if ``needs_dx``; dγ and dβ go into the sinks."""
    if any(sinks):
        put_gradients(sinks, *layer_norm_backward_weight(dy, x, *statistics))
    return layer_norm_backward_input(dy, x, *statistics, w) if needs_dx else None


def layer_norm_backward_weight(dy: Array, x: Array, mean: Array, inv_std: Array) -> tuple[Array, Array]:
    """Equation (3): dγ and dβ (M,)."""

    def one_slice(s: slice) -> tuple[Array, Array]:
        return column_dots(dy[s], standardized(x[s], mean[s], inv_std[s])), column_sums(dy[s])

    dw, db = sum_slices(one_slice, x)
    return dw, db


def layer_norm_backward_input(dy: Array, x: Array, mean: Array, inv_std: Array, w: Array | None) -> Array:
    """Equation (4): dx (N, M)."""
    xp, M = array_module(x), x.shape[1]
    dx = xp.empty(x.shape, x.dtype)

    def one_slice(s: slice) -> None:
        g, x_hat = dx[s], standardized(x[s], mean[s], inv_std[s])
        xp.multiply(dy[s], 1 if w is None else w, out=g)  # dx̂ = γ·dy
        scale_and_shift(x_hat, example_dots(g, x_hat) / M, example_sums(g) / M)
        g -= x_hat
        g *= inv_std[s].astype(x.dtype)

    each_slice(one_slice, x, 4 * x[0].nbytes)
    return dx


def standardized(x: Array, mean: Array, inv_std: Array) -> Array:
    """Return x̂ = (x − μ)/σ in scratch, from x (n, M) and the statistics of every row, (n, 1) in float64."""
    m, out = mean.astype(x.dtype), scratch("standardized", x.shape, x.dtype, like=x)
    array_module(x).subtract(x, m, out=out)
    scale_and_shift(out, inv_std, (m - mean) * inv_std)
    return out


def scale_and_shift(x: Array, a: Array, c: Array) -> None:
    """Turn ``x`` (n, M) into a·x + c, with a and c (n, 1)."""
    x *= a.astype(x.dtype)
    x += c.astype(x.dtype)


class LayerNorm(Layer):
    """Normalisation over the last axes of each example; the module docstring has the mathematics.

    Args:
        normalized_shape: sizes of the axes that share a mean and a variance, the last of the input; an int for
            the last axis alone.
        eps: ε, added to the variance.
        elementwise_affine: whether γ (``weight``, starts at 1) and β (``bias``, starts at 0) are there, both of
            shape ``normalized_shape``.
        bias: whether β is there.
        dtype: of the parameters.

    Shape:
        (…, *normalized_shape), unchanged.

    Raises:
        LayerError: a size less than 1; an input of another dtype, or whose last axes have other sizes.

    >>> LayerNorm(2)(np.array([[1.0, 3.0], [5.0, 9.0]], np.float32)).round(3)
    array([[-1.,  1.],
           [-1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        shape = (normalized_shape,) if isinstance(normalized_shape, int | np.integer) else tuple(normalized_shape)
        if not shape or min(shape) < 1:
            raise LayerError(f"LayerNorm: normalized_shape must hold one or more sizes of at least 1, got {shape}")
        self.normalized_shape, self.eps, self.elementwise_affine = shape, eps, elementwise_affine
        self.weight = Parameter(np.ones(shape, dtype)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(shape, dtype)) if elementwise_affine and bias else None

    def forward(self, x: Array) -> Array:
        """Return y, equations (1) and (2)."""
        x = self.check_input(x)
        refuse_empty(self, x)
        if tuple(x.shape[-len(self.normalized_shape) :]) != self.normalized_shape:
            raise LayerError(
                f"{self}: the last axes of the input must be {self.normalized_shape}, got shape {tuple(x.shape)}"
            )
        w, b = (p and _rows(p.data[None], self.normalized_shape)[0] for p in (self.weight, self.bias))
        y, statistics = layer_norm_forward(_rows(x, self.normalized_shape), w, b, self.eps)
        self.save(x, statistics)
        return _unrows(y, x.shape, self.normalized_shape)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4); add (3) to the gradients."""
        x, statistics = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        shape, w = self.normalized_shape, self.weight and _rows(self.weight.data[None], self.normalized_shape)[0]
        sinks = [_row_sink(p, shape) for p in (self.weight, self.bias)]
        dx = layer_norm_backward(_rows(dy, shape), _rows(x, shape), statistics, w, (sinks[0], sinks[1]), self.needs_dx)
        for p, sink in zip((self.weight, self.bias), sinks, strict=True):
            if p and sink and len(shape) > 2:
                p.accumulate(_unrows(sink[0], (1, *shape), shape)[0])
        return _unrows(dx, x.shape, shape) if self.needs_dx else None

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        shape = self.normalized_shape
        text = str(shape[0] if len(shape) == 1 else shape)
        text += f", eps={self.eps}" if self.eps != 1e-5 else ""
        text += "" if self.elementwise_affine else ", elementwise_affine=False"
        return text + (", bias=False" if self.elementwise_affine and self.bias is None else "")


def _rows(x: Array, shape: tuple[int, ...]) -> Array:
    """Return ``x`` (…, *shape) as (N, M), where possible in the order of its memory (and then no copy)."""
    x = x.reshape(-1, *shape)
    if x.ndim == 4:
        x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
    return x.reshape(len(x), -1)


def _unrows(rows: Array, x_shape: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Undo `_rows`: the ``x`` of ``x_shape`` whose rows these are."""
    if len(shape) == 3:
        C, H, W = shape
        rows = rows.reshape(-1, H, W, C).transpose(0, 3, 1, 2)  # (N, H·W·C) -> (N, H, W, C) -> (N, C, H, W)
    return channels_last(rows.reshape(x_shape))


def _row_sink(p: Parameter | None, shape: tuple[int, ...]) -> Sink:
    """Return where the gradient of ``p`` goes as a row: itself, or where its order is another, something to pass on."""
    if p is None or not p.requires_grad:
        return None
    if len(shape) > 2:
        return array_module(p.data).empty(p.size, p.dtype), False
    sink = p.sink()
    return sink and (sink[0].reshape(-1), sink[1])
