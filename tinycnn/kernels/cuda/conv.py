"""Convolution as implicit products of matrices: see conv.cu.  `routes` says when it is taken."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...backend import Array, array_module, shared_limit
from ..precision import get_precision
from ..window import Window
from .gemm import (
    DGRAD,
    FORWARD,
    KINDS,
    WGRAD,
    Kind,
    Product,
    Tile,
    all_macros,
    loads,
    macros,
    plan,
    shared_bytes,
    tiles,
)
from .module import TYPES, Variant, kernel, packed
from .parts import add_parts, sum_type

VARIANTS: list[Variant] = [("conv", dtype, found) for dtype in TYPES for found in all_macros(dtype)]
MOST = 1 << 30
"""Elements of the largest array that a kernel can index; of more images than that it is given a few at a time."""


def kind_of(dtype: np.dtype) -> Kind:
    """Return how elements of ``dtype`` are multiplied at present."""
    kinds = KINDS.get(dtype.name, KINDS["float32"])  # of no known type: the kernel will say so
    return kinds[-1] if len(kinds) > 1 and get_precision() == "tf32" else kinds[0]


def possible_tiles(which: int, CG: int, OCG: int, dtype: np.dtype) -> tuple[Tile, ...]:
    """Return the tiles of a pass of a convolution with so many channels in a group."""
    kind = kind_of(dtype)
    wide = all(run % kind.V == 0 for run in ((CG,) if which == FORWARD else (CG, OCG)))
    return tiles(kind, *loads(which, kind, wide, wide))


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, tile: Tile | None = None) -> Array:
    """Return y (N, OH, OW, OC)."""
    OC, KH, KW, CG = w.shape
    OH, OW = window.out_size(*x.shape[1:3])
    y = array_module(x).empty((len(x), OH, OW, OC), x.dtype)
    for xs, ys in _few_images(x, y, w):
        V = _loads(FORWARD, xs, CG, w, KH * KW * CG)
        product = Product(FORWARD, G, len(xs) * OH * OW, OC // G, KH * KW * CG, *V)
        _convolve(product, xs, w, b, ys, _sizes(xs.shape, ys.shape, window, G), tile)
    return y


def backward_input(
    dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int = 1, tile: Tile | None = None
) -> Array:
    """Return dx (N, H, W, C)."""
    OC, KH, KW, CG = w.shape
    (_, H, W, _), (SH, SW) = x_shape, window.stride
    dx = array_module(dy).empty(x_shape, dy.dtype)
    phases = min(SH, H) * min(SW, W)
    depth = -(-KH // SH) * -(-KW // SW) * (OC // G)  # of the phase that meets most cells
    for dxs, dys in _few_images(dx, dy, w):
        V = _loads(DGRAD, dys, OC // G, w, CG)
        product = Product(DGRAD, G * phases, len(dys) * -(-H // SH) * -(-W // SW), CG, depth, *V)
        _convolve(product, dys, w, None, dxs, _sizes(dxs.shape, dys.shape, window, G), tile)
    return dx


def backward_weight(
    dy: Array,
    x: Array,
    w_shape: tuple[int, ...],
    window: Window,
    G: int = 1,
    out: Array | None = None,
    add: bool = False,
    tile: Tile | None = None,
) -> Array:
    """Return dw (OC, KH, KW, C/G), written or added to ``out`` if that is given; that may be of the type of sums."""
    OC, KH, KW, CG = w_shape
    dw = array_module(x).empty(w_shape, x.dtype) if out is None else out
    for xs, dys in _few_images(x, dy, dw):
        V = _loads(WGRAD, xs, CG, dys, OC // G)
        product = Product(WGRAD, G, KH * KW * CG, OC // G, math.prod(dys.shape[:3]), *V)
        _convolve(product, xs, dys, None, dw, _sizes(xs.shape, dys.shape, window, G), tile, add)
        add = True
    return dw


def _few_images(x: Array, y: Array, w: Array) -> Iterator[tuple[Array, Array]]:
    """Yield as many images of ``x`` and ``y`` at a time as a kernel can index: nearly always all of them.

    Raises:
        ValueError: a single image is too large, or the filters are.
    """
    N, largest = len(x), max(math.prod(x.shape[1:]), math.prod(y.shape[1:]), 1)
    if max(largest, w.size) > MOST:
        raise ValueError(f"on a GPU, images and filters of a convolution have at most {MOST:,} elements")
    if N * largest <= MOST:
        yield x, y
        return
    n = MOST // largest
    for first in range(0, N, n):
        yield x[first : first + n], y[first : first + n]


def _loads(which: int, image: Array, image_run: int, matrix: Array, matrix_run: int) -> tuple[int, int]:
    """Return how many elements one load can bring of each array, where runs of so many elements lie together."""
    kind = kind_of(image.dtype)
    a, b = (run % kind.V == 0 and _is_aligned(x) for x, run in ((image, image_run), (matrix, matrix_run)))
    return loads(which, kind, a, b)


def _is_aligned(x: Array) -> bool:
    """Return whether ``x``, or the copy that is made of it, begins at a multiple of 16 bytes."""
    return not x.flags.c_contiguous or x.data.ptr % 16 == 0


def _sizes(x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Window, G: int) -> tuple[int, ...]:
    """Return what the kernel takes as SIZES."""
    (N, H, W, C), (_, OH, OW, OC), ((PH, _), (PW, _)) = x_shape, y_shape, window.padding
    return N, H, W, C, OC, G, OH, OW, *window.kernel, *window.stride, PH, PW, *window.dilation


def _convolve(
    product: Product,
    image: Array,
    matrix: Array,
    bias: Array | None,
    y: Array,
    sizes: tuple[int, ...],
    tile: Tile | None,
    add: bool = False,
) -> None:
    """Launch a pass that writes ``y``, or adds to it."""
    image, matrix, xp = packed(image), packed(matrix), array_module(y)
    if not y.flags.c_contiguous:
        own = xp.empty(y.shape, y.dtype)
        _convolve(product, image, matrix, bias, own, sizes, tile)
        y[...] = y + own if add else own
        return
    if not y.size:
        return
    kind, dtype = kind_of(image.dtype), image.dtype
    tile, splits = plan(product, kind, tile, shared_limit())
    blocks = product.products * splits * -(-product.rows // tile.BM) * -(-product.columns // tile.BN)
    parts = None
    if splits > 1 or y.dtype != dtype:
        is_sum = splits == 1 and not add and y.dtype == sum_type(dtype)
        parts = y if is_sum else xp.empty((splits, *y.shape), sum_type(dtype))
    arguments = (image, matrix, bias, y if parts is None else None, parts, y.size, splits, -(-product.rows // tile.BM))
    kernel("conv", "convolve", dtype, **macros(product.which, kind, tile, product.VA, product.VB))(
        *(blocks, 32 * tile.warps, *arguments, add and parts is None, *sizes),
        shared=shared_bytes(product.which, kind, tile),
    )
    if parts is not None and parts is not y:
        add_parts(parts, bias, y, add)
