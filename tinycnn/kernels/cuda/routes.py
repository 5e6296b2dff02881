"""Which kernels compute a convolution on a GPU, and the way to them: the twins of `tinycnn.kernels.conv.plan`.

=============  ====================================================================================================
``implicit``   `conv`: a product of matrices whose patches are formed where they are multiplied; a rule picks the tile
``128x64`` …   the same, by tiles of 128×64
``direct``     `depthwise`: one sum a thread, for groups of few channels
``im2col``     `im2col`: the patches in memory, and then a product; the reference
``winograd2``  `winograd`: 3×3 windows with fewer multiplications, in strict float32 or float64
``winograd4``
=============  ====================================================================================================

These are *routes*.  An algorithm is one route for all of forward, dx and dw, or three, with spaces between; ``auto``
takes ``direct`` where it can be taken and ``implicit`` elsewhere.  All of that is a function of shapes alone.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from ...backend import Array
from ..conv.plan import Problem, preferred
from ..window import Window
from . import conv, depthwise, gemm, im2col, winograd

TILES = {tile.name: tile for tile in gemm.TILES}
WINOGRAD = {"winograd2": 2, "winograd4": 4}
"""Outputs along a side of a tile."""
ROUTES = ("implicit", "direct", "im2col", *WINOGRAD, *TILES)
MOST_COLS = 1 << 28
"""Bytes of patches that are worth measuring `im2col` with."""
LEAST_CHANNELS = 64
"""Channels from which `winograd` is worth measuring."""


class Routes(NamedTuple):
    """The routes of a convolution's three passes."""

    forward: str
    dx: str
    dw: str

    @property
    def algorithm(self) -> str:
        """The three as one word, or three."""
        return self.forward if len(set(self)) == 1 else " ".join(self)


PASSES = dict(zip(Routes._fields, gemm.PASSES, strict=True))


def is_known(algorithm: str) -> bool:
    """Return whether this is the name of an algorithm."""
    words = algorithm.split(" ")
    return len(words) in (1, 3) and all(word in ROUTES for word in words)


@functools.lru_cache(maxsize=4096)
def choose(problem: Problem, algorithm: str = "auto", tensor: bool = False) -> Routes:
    """Return the routes to take where ``algorithm`` is asked for; `rule` says what stands in for an unknown one.

    With ``tensor`` the products are taken on tensor cores.
    """
    if not is_known(algorithm):
        return Routes(*[rule(problem)] * 3)
    words = algorithm.split(" ") * (3 if " " not in algorithm else 1)
    return Routes(*(word if supports(word, problem, tensor) else rule(problem) for word in words))


def rule(problem: Problem) -> str:
    """Return the route that should be the fastest."""
    return "direct" if supports("direct", problem) else "implicit"


def supports(route: str, problem: Problem, tensor: bool = False) -> bool:
    """Return whether there is that route for a convolution."""
    if route in WINOGRAD:
        return not tensor and winograd.supports(problem.window, problem.G)
    return route != "direct" or depthwise.supports(problem.x_shape, problem.OC, problem.window, problem.G)


def candidates(problem: Problem, dtype: np.dtype, which: str) -> list[str]:
    """Return the routes that may be the fastest for the pass ``which``: no two of them do the same."""
    C, G, (N, OH, OW, OC) = problem.x_shape[3], problem.G, problem.y_shape
    names = [tile.name for tile in conv.possible_tiles(PASSES[which], C // G, OC // G, dtype)]
    cols = N * OH * OW * math.prod(problem.window.kernel) * C * dtype.itemsize
    names += ["direct"] if supports("direct", problem) else []
    if min(C, OC) >= LEAST_CHANNELS and supports("winograd4", problem, conv.kind_of(dtype).tensor):
        names += list(WINOGRAD)
    return names + (["im2col"] if cols <= MOST_COLS and problem.window.kernel != (1, 1) else [])


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, algorithm: str = "auto") -> Array:
    """Return y (N, OH, OW, OC)."""
    return forward_by(_routes(x, w, window, G, algorithm).forward, x, w, b, window, G)


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
    routes = _routes(x, w, window, G, algorithm)
    dx = backward_input_by(routes.dx, dy, x.shape, w, window, G) if need_dx else None
    dw = backward_weight_by(routes.dw, dy, x, w.shape, window, G, out) if need_dw else None
    return dx, dw


def _routes(x: Array, w: Array, window: Window, G: int, algorithm: str) -> Routes:
    return choose(Problem(x.shape, len(w), window, G), meant(algorithm), conv.kind_of(x.dtype).tensor)


def taken(problem: Problem, dtype: np.dtype, algorithm: str) -> str:
    """Return the algorithm that arrays of ``dtype`` are convolved by where ``algorithm`` is asked for."""
    return choose(problem, meant(algorithm), conv.kind_of(dtype).tensor).algorithm


def meant(algorithm: str) -> str:
    """Return ``algorithm``, or what ``auto`` is to mean at present."""
    return algorithm if is_known(algorithm) else preferred(ROUTES) or "auto"


def forward_by(route: str, x: Array, w: Array, b: Array | None, window: Window, G: int) -> Array:
    """Return y by a certain route."""
    if route in WINOGRAD:
        return winograd.forward(x, w, b, window, WINOGRAD[route])
    if route == "direct":
        return depthwise.forward(x, w, b, window, G)
    if route == "im2col":
        return im2col.forward(x, w, b, window, G)
    return conv.forward(x, w, b, window, G, TILES.get(route))


def backward_input_by(route: str, dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int) -> Array:
    """Return dx by a certain route."""
    if route in WINOGRAD:
        return winograd.backward_input(dy, w, window, WINOGRAD[route])
    if route == "direct":
        return depthwise.backward_input(dy, x_shape, w, window, G)
    if route == "im2col":
        return im2col.backward_input(dy, x_shape, w, window, G)
    return conv.backward_input(dy, x_shape, w, window, G, TILES.get(route))


def backward_weight_by(
    route: str, dy: Array, x: Array, w_shape: tuple[int, ...], window: Window, G: int, out: Array | None = None
) -> Array:
    """Return dw by a certain route, in ``out`` if that is given."""
    if route in WINOGRAD:
        return winograd.backward_weight(dy, x, w_shape, window, WINOGRAD[route], out)
    if route == "direct":
        return depthwise.backward_weight(dy, x, w_shape, window, G, out)
    if route == "im2col":
        return im2col.backward_weight(dy, x, w_shape, window, G, out)
    return conv.backward_weight(dy, x, w_shape, window, G, out, tile=TILES.get(route))
