"""Initial weights, drawn from an explicit `numpy.random.Generator`.

Every function takes the shape of a weight, (OC, C/groups, KH, KW) or (out, in), and a generator, and returns a
new float64 array; the layer converts it to its dtype, so one seed gives the same weights in every precision.
*fan_in* is the number of inputs that one output sums over, *fan_out* the number of outputs that one input reaches
(times the groups, where a convolution has several: PyTorch's count).

Keeping the variance of a signal through a layer y = Σ w·x over fan_in terms asks for Var w = gain²/fan_in, and
of the gradient flowing back for gain²/fan_out; gain² = 2 makes up for the half that ReLU cuts off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np

Shape: TypeAlias = tuple[int, ...]
Initializer: TypeAlias = Callable[[Shape, np.random.Generator], np.ndarray]
Mode: TypeAlias = Literal["fan_in", "fan_out"]


class NoDraws(np.random.Generator):
    """A generator all of whose normal and uniform draws are 0, which costs neither time nor memory.

    For building a network whose weights are loaded from a file next.  Integers are drawn as ever, so that seeds
    of dropout are as in an initialised network's.

    >>> NoDraws().normal(size=(2, 3)).astype("float64")
    array([[0., 0., 0.],
           [0., 0., 0.]])
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(np.random.PCG64(seed))

    def normal(self, loc: Any = 0.0, scale: Any = 1.0, size: Any = None) -> Any:
        """Return zeros, a view of a single one."""
        return np.broadcast_to(_ZERO, () if size is None else size, subok=True)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None, dtype: Any = None, out: Any = None) -> Any:
        """Return zeros, a view of a single one."""
        return np.broadcast_to(_ZERO, () if size is None else size, subok=True)


class _Zeros(np.ndarray):
    """Zeros that `NoDraws` draws.  The layer's ``astype`` makes them an array: of memory not written until it is used.

    That is channels-last, where it matters, as a parameter will have it: it need not copy, and write, them.
    """

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Return zeros of ``dtype``, which are no view."""
        if any(self.strides):  # somebody has computed with them
            return self.view(np.ndarray).astype(dtype, *args, **options)
        if self.ndim != 4:
            return np.zeros(self.shape, dtype)
        N, C, H, W = self.shape
        return np.zeros((N, H, W, C), dtype).transpose(0, 3, 1, 2)


_ZERO = np.zeros(()).view(_Zeros)


def fans(shape: Shape) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of ``shape``, (out, in, *kernel).

    Raises:
        ValueError: fewer than two dimensions.
    """
    if len(shape) < 2:
        raise ValueError(f"fan_in and fan_out need a weight of at least two dimensions, got shape {shape}")
    receptive = math.prod(shape[2:])
    return shape[1] * receptive, shape[0] * receptive


def _fan(shape: Shape, mode: Mode) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}")
    return fans(shape)[mode == "fan_out"]


def default_uniform(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """U(−1/√fan_in, 1/√fan_in), what PyTorch's Conv2d and Linear start from."""
    bound = 1 / math.sqrt(fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def he_normal(shape: Shape, rng: np.random.Generator, mode: Mode = "fan_in") -> np.ndarray:
    """N(0, 2/fan), for ReLU networks (He et al. 2015, "Delving Deep into Rectifiers", eq. 10 and 14)."""
    return rng.normal(0.0, math.sqrt(2 / _fan(shape, mode)), shape)


def he_uniform(shape: Shape, rng: np.random.Generator, mode: Mode = "fan_in") -> np.ndarray:
    """U(±√(6/fan)), the variance of `he_normal`."""
    bound = math.sqrt(6 / _fan(shape, mode))
    return rng.uniform(-bound, bound, shape)


def glorot_normal(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """N(0, 2/(fan_in + fan_out)) (Glorot & Bengio 2010, eq. 12)."""
    return rng.normal(0.0, math.sqrt(2 / sum(fans(shape))), shape)


def glorot_uniform(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """U(±√(6/(fan_in + fan_out))) (Glorot & Bengio 2010, eq. 16)."""
    bound = math.sqrt(6 / sum(fans(shape)))
    return rng.uniform(-bound, bound, shape)


def lecun_normal(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """N(0, 1/fan_in) (LeCun et al. 1998, "Efficient BackProp", eq. 16)."""
    return rng.normal(0.0, math.sqrt(1 / fans(shape)[0]), shape)


def lecun_uniform(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """U(±√(3/fan_in)), the variance of `lecun_normal`."""
    bound = math.sqrt(3 / fans(shape)[0])
    return rng.uniform(-bound, bound, shape)


def normal(shape: Shape, rng: np.random.Generator, std: float = 0.01) -> np.ndarray:
    """N(0, std²)."""
    return rng.normal(0.0, std, shape)


def truncated_normal(shape: Shape, rng: np.random.Generator, std: float = 0.01, cut: float = 2.0) -> np.ndarray:
    """N(0, std²) with every draw beyond ±cut·std drawn again.

    Raises:
        ValueError: ``cut`` is not greater than 0.
    """
    if cut <= 0:
        raise ValueError(f"cut must be greater than 0, got {cut}")
    x = rng.normal(0.0, 1.0, shape)
    while (outside := np.abs(x) > cut).any():
        x[outside] = rng.normal(0.0, 1.0, int(outside.sum()))
    return std * x


def orthogonal(shape: Shape, rng: np.random.Generator, gain: float = 1.0) -> np.ndarray:
    """Orthonormal rows or columns of the (out, in·kernel) matrix, times ``gain`` (Saxe et al. 2014).

    The QR decomposition of a Gaussian matrix, with the signs that make R's diagonal positive, is uniform over
    orthogonal matrices (Mezzadri 2007).
    """
    rows, columns = shape[0], math.prod(shape[1:])
    q, r = np.linalg.qr(rng.normal(size=(max(rows, columns), min(rows, columns))))
    q *= np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T).reshape(shape)
