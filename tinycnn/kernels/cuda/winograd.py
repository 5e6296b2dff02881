"""Winograd's convolution on a GPU: the steps of `tinycnn.kernels.conv.winograd`, products by `conv`.

The products of all points are one convolution by a window of one pixel, with a group for each point.  dx is the
convolution of dy with the turned filters; dw takes the adjoint steps.  Two launches more than the product for y and dx
(and one for the filters), three for dw.

It multiplies 2.25 or 4 times less and moves more memory.  That can pay where multiplying is slow: in strict float32,
with many channels.  It is not for tensor cores: there the product is quick already, and points rounded to 16 bits or to
TF32 would cost more digits than the result can spare.  No rule picks it; `tinycnn.tune` measures it.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np

from ...backend import Array, array_module, place_of
from ..conv.points import matrices
from ..window import Window
from . import conv
from .module import Kernel, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("winograd", dtype, {"M": m}) for dtype in ("float32", "float64") for m in (2, 4)]

PIXEL = Window((1, 1))
BLOCK = 128
"""Threads of a block: each holds a tile in its registers."""


def supports(window: Window, G: int) -> bool:
    """Return whether there are such steps for the window: 3×3, of stride and dilation 1, without groups."""
    plain = (window.kernel, window.stride, window.dilation, G) == ((3, 3), (1, 1), (1, 1), 1)
    return plain and max(map(max, window.padding)) <= 2


@functools.lru_cache(maxsize=64)
def _matrices(m: int, dtype: str, xp: ModuleType, place: int) -> dict[str, Array]:
    """Return A, B, G and their transposes on the GPU number ``place``, which is the current one."""
    named = dict(zip("ABG", matrices(m), strict=True))
    named |= {f"{name}T": matrix.T for name, matrix in named.items()}
    return {name: xp.asarray(np.ascontiguousarray(matrix.astype(dtype))) for name, matrix in named.items()}


class Tiles:
    """How outputs of (N, OH, OW) are cut into tiles of m×m, and the launches that go to their points and back.

    Args:
        m: outputs along a side of a tile, 2 or 4.
        N, OH, OW: sizes of the outputs.
        like: an array of the dtype and on the GPU.
    """

    def __init__(self, m: int, N: int, OH: int, OW: int, like: Array) -> None:
        self.m, self.N, self.TH, self.TW = m, N, -(-OH // m), -(-OW // m)
        self.P, self.T = (m + 2) ** 2, N * self.TH * self.TW
        self.xp, self.dtype = array_module(like), like.dtype
        self.matrix = _matrices(m, like.dtype.name, self.xp, place_of(like))

    def kernel(self, name: str) -> Kernel:
        """Return a kernel for such tiles."""
        return kernel("winograd", name, self.dtype, M=self.m)

    def input(self, x: Array, window: Window) -> Array:
        """Return V (1, T, 1, P·C) of ``x`` (N, H, W, C)."""
        C, ((PH, _), (PW, _)) = x.shape[3], window.padding
        V = self.xp.empty((1, self.T, 1, self.P * C), self.dtype)
        arguments = packed(x), self.matrix["BT"], V, *x.shape, self.TH, self.TW, PH, PW
        self.kernel("input_to_points")(blocks_for(self.T * C, BLOCK), BLOCK, *arguments)
        return V

    def gradient(self, dy: Array) -> Array:
        """Return dM (1, T, 1, P·OC) of ``dy`` (N, OH, OW, OC)."""
        dM = self.xp.empty((1, self.T, 1, self.P * dy.shape[3]), self.dtype)
        arguments = packed(dy), self.matrix["A"], dM, *dy.shape, self.TH, self.TW
        self.kernel("gradient_to_points")(blocks_for(self.T * dy.shape[3], BLOCK), BLOCK, *arguments)
        return dM

    def filters(self, w: Array, turned: bool) -> Array:
        """Return U (P·OC, 1, 1, C) of ``w`` (OC, 3, 3, C), or (P·C, 1, 1, OC) of the filters ``turned`` for dx."""
        OC, C = len(w), w.shape[3]
        rows, columns = (C, OC) if turned else (OC, C)
        U = self.xp.empty((self.P * rows, 1, 1, columns), self.dtype)
        arguments = packed(w), self.matrix["G"], U, OC, C, turned
        self.kernel("filters_to_points")(blocks_for(OC * C, BLOCK), BLOCK, *arguments)
        return U

    def output(self, points: Array, bias: Array | None, y: Array) -> None:
        """Write ``y`` (N, OH, OW, OC) from its points (1, T, 1, P·OC)."""
        arguments = points, self.matrix["AT"], bias, y, *y.shape, self.TH, self.TW
        self.kernel("points_to_output")(blocks_for(self.T * y.shape[3], BLOCK), BLOCK, *arguments)


def forward(x: Array, w: Array, b: Array | None, window: Window, m: int) -> Array:
    """Return y (N, OH, OW, OC) of x (N, H, W, C) and filters w (OC, 3, 3, C)."""
    return _convolve(x, w, b, window, m, turned=False)


def backward_input(dy: Array, w: Array, window: Window, m: int) -> Array:
    """Return dx (N, H, W, C): dy, padded by what x was not, with the turned filters."""
    padding = tuple((2 - before, 2 - after) for before, after in window.padding)
    return _convolve(dy, w, None, Window((3, 3), padding=padding), m, turned=True)  # type: ignore[arg-type]


def _convolve(x: Array, w: Array, b: Array | None, window: Window, m: int, turned: bool) -> Array:
    OH, OW = window.out_size(*x.shape[1:3])
    y = array_module(x).empty((len(x), OH, OW, w.shape[3] if turned else len(w)), x.dtype)
    if not y.size:
        return y
    tiles = Tiles(m, len(x), OH, OW, x)
    points = conv.forward(tiles.input(x, window), tiles.filters(w, turned), None, PIXEL, tiles.P)
    tiles.output(points, b, y)
    return y


def backward_weight(
    dy: Array, x: Array, w_shape: tuple[int, ...], window: Window, m: int, out: Array | None = None
) -> Array:
    """Return dw (OC, 3, 3, C), in ``out`` if that is given."""
    OC, _, _, C = w_shape
    dw = array_module(x).empty(w_shape, x.dtype) if out is None else out
    if not dw.flags.c_contiguous or not dy.size:
        dw[...] = backward_weight(dy, x, w_shape, window, m) if dy.size else 0
        return dw
    N, OH, OW, _ = dy.shape
    tiles = Tiles(m, N, OH, OW, x)
    V, dM = tiles.input(x, window), tiles.gradient(dy)
    dU = conv.backward_weight(dM, V, (tiles.P * OC, 1, 1, C), PIXEL, tiles.P)
    arguments = dU, tiles.matrix["GT"], dw, OC, C, False
    tiles.kernel("points_to_filters")(blocks_for(OC * C, BLOCK), BLOCK, *arguments)
    return dw
