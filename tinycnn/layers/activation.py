"""Activations: the non-linear functions between the linear layers.

**Idea.**  A stack of linear layers is one linear layer; a bend after each of them is what makes depth worth
having.  An activation applies one function f to every number by itself (softmax alone looks at a group), so
the chain rule says all there is to say: dx = dy · f'(x).

=========  =====================================  ==============================================  =====
layer      f(x)                                   f'(x)                                           saved
=========  =====================================  ==============================================  =====
ReLU       max(x, 0)                              [x > 0]                                         y
LeakyReLU  x if x > 0 else αx                     1 if x > 0 else α                               x
Sigmoid    σ(x) = 1/(1 + e^−x)                    y(1 − y)                                        y
Tanh       tanh x                                 1 − y²                                          y
Softplus   log(1 + e^βx)/β                        σ(βx)                                           x
SiLU       x·σ(x)                                 σ(x)·(1 + x·(1 − σ(x)))                         f'(x)
GELU       x·Φ(x)                                 Φ(x) + x·φ(x)                                   f'(x)
GELU tanh  x·σ(v), v = √(8/π)·(x + γx³)           σ(v)·(1 + x·v'·(1 − σ(v)))                      f'(x)
Softmax    e^x_i / Σ_j e^x_j                      dx_i = y_i·(dy_i − Σ_j dy_j·y_j)                y
=========  =====================================  ==============================================  =====

[condition] is 1 where it holds and 0 elsewhere; Φ and φ are the distribution function and the density of the
standard normal distribution; γ = 0.044715.

**Softmax.**  y_i depends on every x_j of its group: ∂y_j/∂x_i = y_j·([i = j] − y_i), and summing dy_j times
that over j gives the formula of the table.

**At the kink** of ReLU and LeakyReLU, x = 0, the slope is that of the left side, as in PyTorch.

**Overflow.**  Large numbers give the right limit: e^−x may become ∞, and 1/(1 + ∞) is 0, as it should be;
softmax and softplus first take the largest exponent out.

**Cost.**  Bound by memory, so the work is done in slices of the batch that stay in a core's cache, in few passes.
**Saved for backward:** one array, the last column.  Where f' can be told from y, that is y, which the next layer
keeps anyway; where f' shares its dear part with y, it is f' itself, worked out in the forward.

Sources: ReLU: Nair & Hinton 2010; LeakyReLU: Maas et al. 2013; Softplus: Dugas et al. 2000; SiLU and GELU:
Hendrycks & Gimpel 2016 (the approximation by tanh in section 2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np  # noqa: F401 (the examples use it)

from ..backend import Array, array_module
from ..kernels import activation as formulas
from ..parallel import each_slice
from .base import Layer, LayerError


class Activation(Layer):
    """Base of the activations.  A subclass is two formulas, `value` and `gradient`, for one slice of the batch.

    Both get arrays in memory order, rows of pixels (n, W, C) for images (`memory`), and write their last argument.

    Attributes:
        saves_output: whether ``gradient`` works from y rather than from x.
        scratch_arrays: how many arrays the formulas need beside x and y, to cut slices that stay in cache.
        has_kink: whether f has one at 0.
    """

    saves_output = False
    scratch_arrays = 0
    has_kink = False

    @staticmethod
    def memory(x: Array) -> Array:
        """Return the view of ``x`` whose first axis is cut."""
        return in_rows(x)

    def value(self, x: Array, y: Array) -> None:
        """Write f(x) into ``y``."""
        raise TypeError(f"{type(self).__name__} must define value")

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy · f'(x) into ``dx``; ``saved`` is x, or y if ``saves_output``."""
        raise TypeError(f"{type(self).__name__} must define gradient")

    def forward(self, x: Array) -> Array:
        """Return f(x)."""
        x = self.check_input(x)
        y = array_module(x).empty_like(x)
        self._in_slices(self.value, x, y)
        self.save(y if self.saves_output else x)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy · f'(x)."""
        (saved,) = self.take_saved()
        dy = self.check_gradient(dy, saved.shape)
        dx = array_module(saved).empty_like(saved)
        self._in_slices(self.gradient, dy, saved, dx)
        return dx

    def branches(self) -> list[Array]:
        """Return where x is on the right of the kink."""
        return [saved > 0 for saved in self._saved or () if self.has_kink]

    def _in_slices(self, formula: Callable[..., None], *arrays: Array) -> None:
        """Call ``formula`` with a slice of every array, for each slice of the batch, or of an image."""
        first, *_ = arrays = tuple(self.memory(a) for a in arrays)
        item_bytes = (len(arrays) + self.scratch_arrays) * first.nbytes // max(len(first), 1)
        each_slice(lambda s: formula(*(a[s] for a in arrays)), first, item_bytes)


def in_memory_order(x: Array) -> Array:
    """Return ``x`` as it lies in memory, a view: images as (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x  # (N, C, H, W) -> (N, H, W, C)


def in_rows(x: Array) -> Array:
    """Return ``x`` as it lies in memory, a view: images as rows of pixels, so that a single one can be cut too."""
    if x.ndim != 4:
        return x
    x = in_memory_order(x)
    return x.reshape(len(x) * x.shape[1], *x.shape[2:])  # (N, H, W, C) -> (N·H, W, C)


class ReLU(Activation):
    """y = max(x, 0).

    >>> ReLU()(np.array([-2.0, 0.0, 3.0]))
    array([0., 0., 3.])
    """

    saves_output = True
    has_kink = True

    def value(self, x: Array, y: Array) -> None:
        """Write max(x, 0) into ``y``; NaN stays NaN."""
        formulas.relu(x, y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy·[y > 0] into ``dx``."""
        formulas.relu_backward(dy, saved, dx)


class LeakyReLU(Activation):
    """y = x where x > 0 and αx elsewhere, α = ``negative_slope``.

    >>> LeakyReLU(0.1)(np.array([-2.0, 0.0, 3.0]))
    array([-0.2,  0. ,  3. ])
    """

    has_kink = True

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = negative_slope

    def value(self, x: Array, y: Array) -> None:
        """Write max(x, αx) into ``y``, or min(x, αx) where α is above 1."""
        formulas.leaky_relu(x, self.negative_slope, y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy·([x > 0] + α·[x ≤ 0]) into ``dx``."""
        formulas.leaky_relu_backward(dy, saved, self.negative_slope, dx)

    def options(self) -> str:
        """Return the slope on the left, unless it is the default."""
        return "" if self.negative_slope == 0.01 else f"negative_slope={self.negative_slope}"


class Sigmoid(Activation):
    """y = σ(x) = 1/(1 + e^−x).

    >>> Sigmoid()(np.array([-1e4, 0.0, 1e4]))
    array([0. , 0.5, 1. ])
    """

    saves_output = True

    def value(self, x: Array, y: Array) -> None:
        """Write σ(x) into ``y``."""
        formulas.sigmoid(x, y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy·y·(1 − y) into ``dx``."""
        formulas.sigmoid_backward(dy, saved, dx)


class Tanh(Activation):
    """y = tanh x.

    >>> Tanh()(np.array([0.0, 1000.0]))
    array([0., 1.])
    """

    saves_output = True

    def value(self, x: Array, y: Array) -> None:
        """Write tanh x into ``y``."""
        formulas.tanh(x, y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy·(1 − y²) into ``dx``."""
        formulas.tanh_backward(dy, saved, dx)


class Softplus(Activation):
    """y = log(1 + e^βx)/β, a smooth max(x, 0); y = x where βx is above ``threshold``, as in PyTorch.

    Raises:
        LayerError: ``beta`` is 0.

    >>> Softplus()(np.array([-1e4, 0.0, 1e4]))
    array([0.00000000e+00, 6.93147181e-01, 1.00000000e+04])
    """

    scratch_arrays = 1

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = beta, threshold
        if beta == 0:
            raise LayerError("Softplus: beta must not be 0, the formula divides by it")

    def value(self, x: Array, y: Array) -> None:
        """Write (max(t, 0) + log(1 + e^−|t|))/β into ``y``, with t = βx: the same value, and no overflow."""
        formulas.softplus(x, self.beta, self.threshold, y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy·σ(βx) into ``dx``."""
        formulas.softplus_backward(dy, saved, self.beta, self.threshold, dx)

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        given = (self.beta, self.threshold)
        return "" if given == (1, 20) else f"beta={self.beta}, threshold={self.threshold}"


class SelfGated(Activation):
    """Base of y = x·g(x), a gate g that x opens for itself.

    y and its slope share the gate, so forward works out both and saves the slope.
    """

    scratch_arrays = 2

    def value_and_slope(self, x: Array, y: Array, slope: Array) -> None:
        """Write f(x) into ``y`` and f'(x) into ``slope``."""
        raise TypeError(f"{type(self).__name__} must define value_and_slope")

    def forward(self, x: Array) -> Array:
        """Return f(x)."""
        x = self.check_input(x)
        y, slope = array_module(x).empty_like(x), array_module(x).empty_like(x)
        self._in_slices(self.value_and_slope, x, y, slope)
        self.save(slope)
        return y

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write dy times the slope into ``dx``."""
        formulas.multiply(dy, saved, dx)


class SiLU(SelfGated):
    """y = x·σ(x), also called swish.

    >>> SiLU()(np.array([-1e4, 0.0, 1e4]))
    array([   -0.,     0., 10000.])
    """

    def value_and_slope(self, x: Array, y: Array, slope: Array) -> None:
        """Write x·σ and σ·(1 + x·(1 − σ)), with σ = σ(x)."""
        formulas.silu(x, y, slope)


class GELU(SelfGated):
    """y = x·Φ(x), or its approximation by tanh.

    Args:
        approximate: ``'none'``, or ``'tanh'`` for y = x·½(1 + tanh(√(2/π)·(x + 0.044715·x³))), which is x·σ(v)
            with v = √(8/π)·(x + 0.044715·x³), as ½(1 + tanh u) = σ(2u).

    Raises:
        LayerError: ``approximate`` is neither.

    >>> GELU()(np.array([-1e4, 0.0, 1e4]))
    array([   -0.,     0., 10000.])
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__()
        self.approximate = approximate
        if approximate not in ("none", "tanh"):
            raise LayerError(f"GELU: approximate must be 'none' or 'tanh', got {approximate!r}")

    def value_and_slope(self, x: Array, y: Array, slope: Array) -> None:
        """Write x·Φ and Φ + x·φ; or x·σ and σ·(1 + x·v'·(1 − σ)), with σ = σ(v)."""
        (formulas.gelu_tanh if self.approximate == "tanh" else formulas.gelu)(x, y, slope)

    def options(self) -> str:
        """Return the approximation, if any."""
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"


class Softmax(Activation):
    """y_i = e^x_i / Σ_j e^x_j over the numbers along one axis, which then add up to 1.

    Args:
        dim: that axis, counted as in the shape (N, C, H, W).

    Raises:
        LayerError: the input has no such axis.

    >>> Softmax()(np.array([[1e4, 1e4, -1e4, 1e4]])).round(3)
    array([[0.333, 0.333, 0.   , 0.333]])
    """

    saves_output = True

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def value(self, x: Array, y: Array) -> None:
        """Write e^(x − max x)/Σ e^(x − max x) into ``y``: the same value, and no overflow."""
        formulas.softmax(x, self._axis(x.ndim), y)

    def gradient(self, dy: Array, saved: Array, dx: Array) -> None:
        """Write y·(dy − Σ dy·y) into ``dx``."""
        formulas.softmax_backward(dy, saved, self._axis(dy.ndim), dx)

    @staticmethod
    def memory(x: Array) -> Array:
        """Return the view of ``x`` whose first axis is cut: with all axes."""
        return in_memory_order(x)

    def _axis(self, rank: int) -> int:
        """Return the axis `dim` in memory order."""
        return (0, 3, 1, 2)[self.dim] if rank == 4 else self.dim

    def _in_slices(self, formula: Callable[..., None], *arrays: Array) -> None:
        """As for all activations, but groups that lie across the batch cannot be cut."""
        shape = arrays[0].shape
        if not -len(shape) <= self.dim < len(shape):
            raise LayerError(f"{self}: an input of shape {shape} has no axis {self.dim}")
        if self.dim % len(shape) == 0:
            formula(*(in_memory_order(a) for a in arrays))
        else:
            super()._in_slices(formula, *arrays)

    def options(self) -> str:
        """Return the axis."""
        return f"dim={self.dim}"
