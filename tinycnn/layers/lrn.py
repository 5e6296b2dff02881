"""Local response normalisation: channels compete with their neighbours.

**Idea.**  Divide each value by a measure of how active the channels around it are at the same pixel, so that a strong
response stands out and damps those beside it.  AlexNet used it; batch normalisation has since replaced it.

=========  ==========================================================================
n          number of channels in the neighbourhood (``size``)
x, y, dy   (N, C, H, W)
R(c)       the channels c − ⌊n/2⌋ … c + ⌊(n − 1)/2⌋ as far as they exist
α', β, k   the constants; α' = α/n as in PyTorch, or α itself as in the paper
=========  ==========================================================================

**Forward**, at each pixel::

    s[c] = k + α' Σ_{j ∈ R(c)} x[j]²                                                  (1)
    y[c] = x[c] · s[c]^(−β)                                                           (2)

**Backward.**  x[c] enters y[c] as a factor, and every y[j] with c ∈ R(j) through s[j], of which
∂s[j]/∂x[c] = 2α'·x[c]; and ∂y[j]/∂s[j] = −β·x[j]·s[j]^(−β − 1).  So::

    dx[c] = dy[c]·s[c]^(−β) − 2α'β·x[c] · Σ_{j: c ∈ R(j)} dy[j]·x[j]·s[j]^(−β − 1)     (3)

The last sum runs over the mirrored neighbourhood, c − ⌊(n − 1)/2⌋ … c + ⌊n/2⌋: the adjoint of the sum in (1).

**Cost.**  n additions and a power per value, and as much again backward.

**Saved for backward:** x.  s is made again, slice by slice, in memory that stays in cache.

Source: Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks", section
3.3, with k = 2, n = 5, α = 1e-4, β = 0.75: here ``LocalResponseNorm(5, 1e-4, 0.75, 2, divide_alpha=False)``.
"""

from __future__ import annotations

from typing import NamedTuple

from ..backend import Array, array_module
from ..kernels.cuda import twin
from ..parallel import each_slice, scratch
from .base import Layer, LayerError
from .check import refuse_empty


def window_sums(x: Array, before: int, after: int, out: Array) -> None:
    """Write Σ x[…, c − before … c + after], as far as these channels exist, into ``out`` (…, C)."""
    out[...] = x
    for o in range(1, after + 1):
        out[..., :-o] += x[..., o:]
    for o in range(1, before + 1):
        out[..., o:] += x[..., :-o]


class Constants(NamedTuple):
    """n as channels before and after; α', β and k."""

    before: int
    after: int
    alpha: float
    beta: float
    k: float


def activity(x: Array, constants: Constants) -> Array:
    """Equation (1): s of one slice x (n, H, W, C), in scratch."""
    squares, s = (scratch(name, x.shape, x.dtype, like=x) for name in ("squares", "activity"))
    array_module(x).multiply(x, x, out=squares)
    window_sums(squares, constants.before, constants.after, s)
    s *= constants.alpha
    s += constants.k
    return s


@twin("lrn")
def normalize_response(x: Array, constants: Constants) -> Array:
    """Equation (2): y, from x (N, H, W, C)."""
    xp = array_module(x)
    y = xp.empty(x.shape, x.dtype)

    def one_slice(s: slice) -> None:
        xp.power(activity(x[s], constants), -constants.beta, out=y[s])
        y[s] *= x[s]

    each_slice(one_slice, x, 4 * x[0].nbytes)
    return y


@twin("lrn")
def normalize_response_backward(dy: Array, x: Array, constants: Constants) -> Array:
    """Equation (3): dx, all (N, H, W, C)."""
    xp = array_module(x)
    dx = xp.empty(x.shape, x.dtype)
    before, after, alpha, beta, _ = constants

    def one_slice(s: slice) -> None:
        own = activity(x[s], constants)
        terms, sums = (scratch(name, x[s].shape, x.dtype, like=x) for name in ("terms", "squares"))
        xp.power(own, -beta, out=dx[s])
        dx[s] *= dy[s]  # dy·s^(−β)
        xp.divide(dx[s], own, out=terms)
        terms *= x[s]  # dy·x·s^(−β − 1)
        window_sums(terms, after, before, sums)
        sums *= x[s]
        sums *= 2 * beta * alpha
        dx[s] -= sums

    each_slice(one_slice, x, 6 * x[0].nbytes)
    return dx


class LocalResponseNorm(Layer):
    """Division by the activity of neighbouring channels; the module docstring has the mathematics.

    Args:
        size: n, the number of channels in the neighbourhood.
        alpha, beta, k: the constants of equations (1) and (2).  With k = 0 a neighbourhood of zeros gives NaN.
        divide_alpha: whether α is divided by ``size``, as PyTorch does; the paper does not.

    Shape:
        (N, C, H, W) -> (N, C, H, W).

    Raises:
        LayerError: ``size`` is less than 1; an input of another rank or dtype.

    >>> import numpy as np
    >>> norm = LocalResponseNorm(3, alpha=1.0, beta=1.0, k=0.0, divide_alpha=False)
    >>> norm(np.array([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)).ravel().round(3)  # 1/(1 + 4), 2/(1 + 4 + 9), 3/(4 + 9)
    array([0.2  , 0.143, 0.231])
    """

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *, divide_alpha: bool = True
    ) -> None:
        super().__init__()
        if size < 1:
            raise LayerError(f"LocalResponseNorm: size must be at least 1, got {size}")
        self.size, self.alpha, self.beta, self.k, self.divide_alpha = size, alpha, beta, k, bool(divide_alpha)
        self.before, self.after = size // 2, (size - 1) // 2

    @property
    def constants(self) -> Constants:
        """The constants of the equations."""
        alpha = self.alpha / self.size if self.divide_alpha else self.alpha
        return Constants(self.before, self.after, alpha, self.beta, self.k)

    def forward(self, x: Array) -> Array:
        """Return y, equation (2)."""
        x = self.check_input(x, rank=4)
        refuse_empty(self, x)
        self.save(x)
        # (N, C, H, W) -> (N, H, W, C) -> (N, C, H, W)
        return normalize_response(x.transpose(0, 2, 3, 1), self.constants).transpose(0, 3, 1, 2)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (3)."""
        (x,) = self.take_saved()
        # (N, C, H, W) -> (N, H, W, C) -> (N, C, H, W)
        dy, x = self.check_gradient(dy, x.shape).transpose(0, 2, 3, 1), x.transpose(0, 2, 3, 1)
        return normalize_response_backward(dy, x, self.constants).transpose(0, 3, 1, 2)

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        given = {"alpha": self.alpha, "beta": self.beta, "k": self.k, "divide_alpha": self.divide_alpha}
        defaults = {"alpha": 1e-4, "beta": 0.75, "k": 1.0, "divide_alpha": True}
        return ", ".join([str(self.size), *(f"{name}={v}" for name, v in given.items() if v != defaults[name])])
