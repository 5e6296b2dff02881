"""Convolution by filters that do not change, as in inference: what can be made of them is made once, and kept.

An algorithm wants filters in an order of its own (`Strips.expand`), or at the points of polynomials (`KeptPoints`).  In
training that is made anew in every step.  Here it is made when an image of some size first needs it, and then:

* im2col and strips lack a copy of the filters, as many numbers as they are, or U/KW·B times as many for strips;
* Winograd lacks their way to the points, and has t²/9 times as many numbers: 1.8 for F(2×2), 4 for F(4×4).

So the choice is another than in training: `predicted_time` has the forward alone, without making these but with
reading them.  For a single image of few pixels that is what takes most of the time: filters of 512 to 512 channels are
9 MB as they are, 17 MB at the points of F(2×2) and 38 MB at those of F(4×4), and each meets a few pixels only.

What is decided for a shape is kept as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ...backend import Array, array_module
from ..window import Window
from . import patches, plan, points, winograd
from .cost import PACK, POINT, READ, WINOGRAD_PEAK
from .finish import Finish

Way = Callable[[Array, Array, Finish], None]
"""Writes what a convolution and what follows it make of x into y."""


class FixedFilters:
    """Filters that do not change, and a bias.

    Args:
        w: (OC, C/G, KH, KW), on channels-last memory.
        b: (OC,) or None.
        window, G: kernel, stride, padding, dilation; groups.
        algorithm: as in `plan.choose`.
    """

    def __init__(self, w: Array, b: Array | None, window: Window, G: int = 1, algorithm: str = "auto") -> None:
        self.source, self.b, self.window, self.G, self.algorithm = w, b, window, G, algorithm
        self.w = w.transpose(0, 2, 3, 1)  # (OC, C/G, KH, KW) -> (OC, KH, KW, C/G)
        self._ways: dict[tuple[object, ...], tuple[Way, tuple[int, ...]]] = {}
        self._made: dict[object, Any] = {}

    def convolve(self, x: Array, shortcut: Array | None = None, relu: bool = False) -> Array:
        """Return y (N, OH, OW, OC) of x (N, H, W, C): the convolution, plus bias and shortcut, and ReLU if so."""
        key = x.shape, plan.preferred(plan.ALGORITHMS)
        if key not in self._ways:
            self._ways[key] = self._way(x)
        way, shape = self._ways[key]
        y = array_module(x).empty(shape, x.dtype)
        if y.size:
            way(x, y, Finish(self.b, shortcut, relu))
        return y

    def _way(self, x: Array) -> tuple[Way, tuple[int, ...]]:
        """Return how to convolve what has the shape of ``x``, and the shape of the output."""
        problem = plan.Problem(x.shape, len(self.w), self.window, self.G)
        name = plan.choose(problem, x.dtype, self.algorithm, fastest)
        shape = problem.y_shape
        if not x.size:
            return _nothing, shape
        if name.startswith("winograd"):
            how = points.make_plan(x, self.window, int(name[-1]))
            U = self._keep(name, lambda: winograd.KeptPoints(self.w, how))
            return partial(_by_winograd, U, how), shape
        strips = patches.forward_strips(x.shape, len(self.w), self.window, self.G, name == "strips")
        e = self._keep(strips.B, lambda: array_module(x).ascontiguousarray(strips.expand(self.w)))
        return partial(_by_patches, e, self.window, strips), shape

    def _keep(self, name: object, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    @property
    def nbytes(self) -> int:
        """Memory that is kept beside the filters."""
        arrays = (made.U if isinstance(made, winograd.KeptPoints) else made for made in self._made.values())
        return sum(array.nbytes for array in arrays)


def _nothing(x: Array, y: Array, finish: Finish) -> None:
    pass


def _by_winograd(U: winograd.KeptPoints, how: points.Plan, x: Array, y: Array, finish: Finish) -> None:
    winograd.convolve(x, U, how, y, finish)


def _by_patches(e: Array, window: Window, strips: patches.Strips, x: Array, y: Array, finish: Finish) -> None:
    patches.convolve(x, e, window, strips, y, finish)


@lru_cache(maxsize=4096)
def fastest(problem: plan.Problem) -> str:
    """Return the algorithm with the least predicted time of a forward."""

    def time(name: str) -> float:
        return predicted_time(name, problem) * (plan.WORTH_A_DIGIT if name.startswith("winograd") else 1)

    return min((name for name in plan.ALGORITHMS if plan.supports(name, problem)), key=time)


def predicted_time(name: str, problem: plan.Problem) -> float:
    """Return the time of a forward with filters that are made, in nanoseconds of one core, by the model of `cost`."""
    (N, _, _, C), (_, OH, OW, OC) = problem.x_shape, problem.y_shape
    if name.startswith("winograd"):
        m = int(name[-1])
        P, T = (m + 2) ** 2, N * -(-OH // m) * -(-OW // m)
        products = 2 * P * T * C * OC / WINOGRAD_PEAK[m]
        return products + POINT[m] * P * T * (C + OC) + READ * P * C * OC
    how = patches.forward_strips(problem.x_shape, OC, problem.window, problem.G, name == "strips")
    filters = how.rows.taps * how.width * C // problem.G * how.B * OC
    return N * (how.gather_time(C) + how.product_time(C, OC)) + (READ + PACK) * filters
