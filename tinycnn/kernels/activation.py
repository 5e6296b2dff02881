"""The formulas of the activations, for one slice of a batch; `tinycnn.layers.activation` has their mathematics.

Every function f is a pair: ``f`` writes the value, ``f_backward`` the gradient dx from dy and what forward saved.  The
self-gated functions (SiLU, GELU) write their slope beside the value, as the two share the dear part; their backward is
one product, `multiply`.

Arrays are of one shape and memory order, which the formulas do not look at; the last arguments are written.
"""

from __future__ import annotations

import math

import numpy as np

from ..backend import Array, array_module
from ..parallel import scratch
from .cuda import twin
from .erf import normal_cdf

CUBIC = 0.044715
"""γ in the approximation of GELU."""


@twin("elementwise")
def add(x: Array, y: Array, z: Array) -> None:
    """Write x + y into ``z``, which may be one of them."""
    array_module(x).add(x, y, out=z)


@twin("elementwise")
def multiply(x: Array, y: Array, z: Array) -> None:
    """Write x·y into ``z``, which may be one of them."""
    array_module(x).multiply(x, y, out=z)


@twin("elementwise")
def scale(x: Array, factor: float, y: Array) -> None:
    """Write factor·x into ``y``, which may be ``x``."""
    array_module(x).multiply(x, factor, out=y)


@twin("elementwise")
def relu(x: Array, y: Array) -> None:
    """Write max(x, 0) into ``y``; NaN stays NaN."""
    array_module(x).maximum(x, 0, out=y)


@twin("elementwise")
def relu_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·[y > 0] into ``dx``."""
    array_module(dy).multiply(dy, y > 0, out=dx)


@twin("elementwise")
def leaky_relu(x: Array, alpha: float, y: Array) -> None:
    """Write max(x, αx) into ``y``, or min(x, αx) where α is above 1."""
    xp = array_module(x)
    xp.multiply(x, alpha, out=y)
    (xp.maximum if alpha <= 1 else xp.minimum)(x, y, out=y)


@twin("elementwise")
def leaky_relu_backward(dy: Array, x: Array, alpha: float, dx: Array) -> None:
    """Write dy·([x > 0] + α·[x ≤ 0]) into ``dx``."""
    array_module(dy).multiply(x <= 0, alpha, out=dx)
    dx += x > 0
    dx *= dy


@twin("elementwise")
def sigmoid(x: Array, y: Array) -> None:
    """Write σ(x) = 1/(1 + e^−x) into ``y``, which may be ``x``.

    e^−x overflows to ∞ on the far left, and 1/(1 + ∞) = 0 is right.
    """
    xp = array_module(x)
    with np.errstate(over="ignore"):
        xp.exp(xp.negative(x, out=y), out=y)
    y += 1
    xp.reciprocal(y, out=y)


@twin("elementwise")
def sigmoid_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·y·(1 − y) into ``dx``."""
    array_module(dy).subtract(1, y, out=dx)
    dx *= y
    dx *= dy


@twin("elementwise")
def tanh(x: Array, y: Array) -> None:
    """Write tanh x into ``y``."""
    array_module(x).tanh(x, out=y)


@twin("elementwise")
def tanh_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·(1 − y²) into ``dx``."""
    xp = array_module(dy)
    xp.subtract(1, xp.multiply(y, y, out=dx), out=dx)
    dx *= dy


@twin("elementwise")
def softplus(x: Array, beta: float, threshold: float, y: Array) -> None:
    """Write (max(t, 0) + log(1 + e^−|t|))/β into ``y``, with t = βx: log(1 + e^t)/β without overflow."""
    xp = array_module(x)
    t = scratch("softplus", x.shape, x.dtype, like=x)
    xp.multiply(x, beta, out=t)
    linear = t > threshold
    xp.negative(xp.abs(t, out=y), out=y)
    xp.log1p(xp.exp(y, out=y), out=y)
    y += xp.maximum(t, 0, out=t)
    y /= beta
    xp.copyto(y, x, where=linear)


@twin("elementwise")
def softplus_backward(dy: Array, x: Array, beta: float, threshold: float, dx: Array) -> None:
    """Write dy·σ(βx) into ``dx``."""
    xp = array_module(dy)
    xp.multiply(x, beta, out=dx)
    linear = dx > threshold
    sigmoid(dx, dx)
    dx *= dy
    xp.copyto(dx, dy, where=linear)


@twin("elementwise")
def silu(x: Array, y: Array, slope: Array) -> None:
    """Write x·σ into ``y`` and σ·(1 + x·(1 − σ)) into ``slope``, with σ = σ(x)."""
    sigmoid(x, y)
    _open_gate(x, x, y, slope)


def _open_gate(x: Array, x_dv: Array, y: Array, slope: Array) -> None:
    """Turn ``y`` = σ(v(x)) into x·σ, and write the slope σ·(1 + x·v'·(1 − σ)) of that, given x·v'."""
    array_module(x).subtract(1, y, out=slope)
    slope *= x_dv
    slope += 1
    slope *= y
    y *= x


@twin("elementwise")
def gelu(x: Array, y: Array, slope: Array) -> None:
    """Write x·Φ into ``y`` and Φ + x·φ into ``slope``."""
    normal_cdf(x, cdf=y, pdf=slope)
    slope *= x
    slope += y
    y *= x


@twin("elementwise")
def gelu_tanh(x: Array, y: Array, slope: Array) -> None:
    """Write x·σ into ``y`` and σ·(1 + x·v'·(1 − σ)) into ``slope``, with σ = σ(v), v = √(8/π)·(x + γx³)."""
    x_dv = scratch("x_dv", x.shape, x.dtype, like=x)
    _cubic(x, 3 * CUBIC, x_dv)
    _cubic(x, CUBIC, y)
    sigmoid(y, y)
    _open_gate(x, x_dv, y, slope)


def _cubic(x: Array, c: float, out: Array) -> None:
    """Write √(8/π)·(x + c·x³) into ``out``."""
    array_module(x).multiply(x, x, out=out)
    out *= c
    out += 1
    out *= x
    out *= math.sqrt(8 / math.pi)


@twin("elementwise")
def softmax(x: Array, axis: int, y: Array) -> None:
    """Write e^(x − max x)/Σ e^(x − max x) into ``y``: e^x/Σ e^x without overflow."""
    xp = array_module(x)
    xp.subtract(x, x.max(axis, keepdims=True), out=y)
    xp.exp(y, out=y)
    y /= y.sum(axis, keepdims=True)


@twin("elementwise")
def softmax_backward(dy: Array, y: Array, axis: int, dx: Array) -> None:
    """Write y·(dy − Σ dy·y) into ``dx``."""
    xp = array_module(dy)
    total = xp.multiply(dy, y, out=dx).sum(axis, keepdims=True)
    xp.subtract(dy, total, out=dx)
    dx *= y
