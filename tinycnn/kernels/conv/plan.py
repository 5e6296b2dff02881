"""Which algorithm computes a convolution: the choice, and the way to it.

==============  =========================================  ==========================================================
``im2col``      `patches`: one product with all patches    any convolution; the reference; always taken for float64
``strips``      `patches`: several outputs from one strip  few channels
``winograd2``   `winograd`, F(2×2, 3×3)                    3×3, stride 1; 2.25 times fewer multiplications
``winograd4``   `winograd`, F(4×4, 3×3)                    3×3, stride 1; 4 times fewer; about a digit less in float32
==============  =========================================  ==========================================================

A 1×1 convolution is the plain product that im2col makes of it: its patches *are* the image.  The backward of the first
two goes by `phases` (gathering) or by `scatter` (col2im), and by patches of x alone where dx is not wanted.

``auto`` takes the algorithm with the least predicted time for forward and backward together (`cost`).  The prediction
is a function of shapes alone, so two runs take the same route and give the same bits.

All this is for the CPU.  What a GPU has in place of it is in `tinycnn.kernels.cuda.routes`; the names of its algorithms
mean ``auto`` here, and those above, but for im2col, mean ``auto`` there.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ...backend import Array
from ..cuda import twin
from ..window import Window
from . import patches, phases, scatter, winograd
from .cost import FILTER, POINT, POINT_OF_FILTER, WINOGRAD_PEAK, WINOGRAD_START
from .patches import Strips, cut, forward_strips, reaches

ALGORITHMS = ("im2col", "strips", "winograd2", "winograd4")

WORTH_A_DIGIT = 1.1
"""Winograd must be faster by this factor to be chosen, as it is less accurate."""

_preferred: str | None = os.environ.get("TINYCNN_CONV_ALGORITHM")


@contextlib.contextmanager
def prefer(name: str) -> Iterator[None]:
    """Let ``auto`` mean the algorithm ``name`` within the block, in float64 too, wherever it can do the convolution.

    The environment variable ``TINYCNN_CONV_ALGORITHM`` does the same for a whole program.
    """
    global _preferred
    before, _preferred = _preferred, name
    try:
        yield
    finally:
        _preferred = before


def preferred(names: Collection[str]) -> str | None:
    """Return the algorithm that `prefer` has set, if it is one of these."""
    return _preferred if _preferred in names else None


@dataclass(frozen=True)
class Problem:
    """The sizes of a convolution: of x (N, H, W, C), and of filters (OC, KH, KW, C/G) that slide by ``window``."""

    x_shape: tuple[int, ...]
    OC: int
    window: Window
    G: int = 1

    @property
    def y_shape(self) -> tuple[int, ...]:
        """(N, OH, OW, OC)."""
        return self.x_shape[0], *self.window.out_size(*self.x_shape[1:3]), self.OC


def supports(name: str, problem: Problem) -> bool:
    """Return whether the algorithm can do the convolution."""
    if name.startswith("winograd"):
        window = problem.window
        return (window.kernel, window.stride, window.dilation, problem.G) == ((3, 3), (1, 1), (1, 1), 1)
    return name == "im2col" or problem.G == 1


@lru_cache(maxsize=4096)
def fastest(problem: Problem) -> str:
    """Return the algorithm with the least predicted time."""

    def time(name: str) -> float:
        return predicted_time(name, problem) * (WORTH_A_DIGIT if name.startswith("winograd") else 1)

    return min((name for name in ALGORITHMS if supports(name, problem)), key=time)


def choose(
    problem: Problem,
    dtype: np.typing.DTypeLike = np.float32,
    algorithm: str = "auto",
    rule: Callable[[Problem], str] = fastest,
) -> str:
    """Return the name of the algorithm to take where ``algorithm`` is asked for; ``auto`` is as the ``rule`` has it.

    One that cannot do the convolution gives way to im2col.
    """
    if algorithm not in ALGORITHMS:
        algorithm = preferred(ALGORITHMS) or ("im2col" if np.dtype(dtype) == np.float64 else rule(problem))
    return algorithm if supports(algorithm, problem) else "im2col"


def predicted_time(name: str, problem: Problem) -> float:
    """Return the time of a forward and a backward, in nanoseconds of one core, by the model of `cost`."""
    if name.startswith("winograd"):
        return _winograd_time(problem, int(name[-1]))
    (N, _, _, C), OC, strips = problem.x_shape, problem.OC, name == "strips"
    how = forward_strips(problem.x_shape, OC, problem.window, problem.G, strips)
    forward = how.gather_time(C) + how.product_time(C, OC)
    backward = min(_phases_time(problem, strips), _scatter_time(_scatter_strips(problem, strips), C, OC))
    return N * (forward + backward) + FILTER * C // problem.G * OC * math.prod(problem.window.kernel)


def _winograd_time(problem: Problem, m: int) -> float:
    (N, _, _, C), (_, OH, OW, OC) = problem.x_shape, problem.y_shape
    points = (m + 2) ** 2
    T = N * -(-OH // m) * -(-OW // m)
    products = 6 * points * T * C * OC / WINOGRAD_PEAK[m]
    # to the points and back: x, y, dy, x again and dx; of the filters, forward, backward and their gradient
    images, filters = points * T * (3 * C + 2 * OC), 3 * points * C * OC
    return products + POINT[m] * images + POINT_OF_FILTER[m] * filters + WINOGRAD_START


def _phases_time(problem: Problem, strips: bool) -> float:
    C = problem.x_shape[3]
    parts = phases.plan(problem.x_shape, problem.OC, problem.window, problem.G, strips)[0]
    return sum(p.gather_time(problem.OC) + 2 * p.product_time(problem.OC, C) for _, _, p in parts)


def _scatter_time(how: Strips, C: int, OC: int) -> float:
    return how.gather_time(C) + how.add_time(C) + 2 * how.product_time(C, OC)


def _scatter_strips(problem: Problem, strips: bool) -> Strips:
    C = problem.x_shape[3]
    rows, columns = reaches(problem.window, *problem.y_shape[1:3])
    return cut(rows, columns, problem.G, strips, lambda how: _scatter_time(how, C, problem.OC))


@lru_cache(maxsize=4096)
def _backward_strips(problem: Problem, strips: bool) -> Strips | None:
    """Return the strips to scatter by, or None where gathering by phases is quicker."""
    how = _scatter_strips(problem, strips)
    return how if _scatter_time(how, problem.x_shape[3], problem.OC) < _phases_time(problem, strips) else None


@twin("routes")
def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, algorithm: str = "auto") -> Array:
    """Return y (N, OH, OW, OC) of x (N, H, W, C), filters w (OC, KH, KW, C/G) and bias b (OC,) or None."""
    name = _choice(x, w, window, G, algorithm)
    if name.startswith("winograd"):
        return winograd.forward(x, w, b, window, int(name[-1]))
    return patches.forward(x, w, b, window, G, name == "strips")


@twin("routes")
def backward(
    dy: Array,
    x: Array,
    w: Array,
    window: Window,
    G: int = 1,
    algorithm: str = "auto",
    need_dx: bool = True,
    need_dw: bool = True,
    out: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """Return dx (N, H, W, C) and dw (OC, KH, KW, C/G), in ``out`` if given; None in place of one that is not needed."""
    name = _choice(x, w, window, G, algorithm)
    if name.startswith("winograd"):
        return winograd.backward(dy, x, w, window, int(name[-1]), need_dx, need_dw, out)
    strips = name == "strips"
    if not need_dx:
        return None, patches.backward_weight(dy, x, w, window, G, strips, out) if need_dw else None
    how = _backward_strips(Problem(x.shape, len(w), window, G), strips)
    if how is None:
        return phases.backward(dy, x if need_dw else None, x.shape, w, window, G, strips, out)
    return scatter.backward(dy, x if need_dw else None, x.shape, w, window, how, out)


def _choice(x: Array, w: Array, window: Window, G: int, algorithm: str) -> str:
    if not x.size:
        return "im2col"
    return choose(Problem(x.shape, len(w), window, G), x.dtype, algorithm)
