"""Twins of `tinycnn.kernels.im2col`, and the convolution that they make with matrix products: the reference route.

Nothing here is clever, so it is what faster routes are compared with: the patches are there, in memory, as a matrix
(N·OH·OW, G·K), and the products are convolutions by windows of one pixel, which are nothing but products.
"""

from __future__ import annotations

import math

from ...backend import Array, array_module
from ..window import Window
from . import conv
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("im2col", dtype, {}) for dtype in TYPES]

PIXEL = Window((1, 1))


def gather(x: Array, window: Window, G: int = 1) -> Array:
    """Return the patches (N·OH·OW, G·KH·KW·C/G) of ``x`` (N, H, W, C)."""
    N, H, W, C = x.shape
    OH, OW = window.out_size(H, W)
    cols = array_module(x).empty((N * OH * OW, math.prod(window.kernel) * C), x.dtype)
    _launch("gather", packed(x), cols, x.shape, window, G, len(cols), cols.shape[1])
    return cols


def scatter(cols: Array, window: Window, shape: tuple[int, ...], G: int = 1) -> Array:
    """Return the image (N, H, W, C) of ``shape`` whose pixels are the sums of all their places in ``cols``."""
    N, H, W, C = shape
    x = array_module(cols).empty(shape, cols.dtype)
    _launch("scatter", packed(cols), x, shape, window, G, N * H * W, C)
    return x


def _launch(
    name: str, source: Array, out: Array, shape: tuple[int, ...], window: Window, G: int, rows: int, width: int
) -> None:
    """Launch a kernel on ``rows`` rows of ``width`` numbers."""
    if not out.size:
        return
    _, H, W, C = shape
    V = 16 // out.dtype.itemsize
    lanes = 1
    while lanes < min(32, width // V if C // G % V == 0 else width):
        lanes *= 2
    (PH, _), (PW, _) = window.padding
    sizes = (*shape, *window.out_size(H, W), *window.kernel, *window.stride, PH, PW, *window.dilation, G)
    block = (lanes, THREADS // lanes)
    kernel("im2col", name, out.dtype)(blocks_for(rows, block[1]), block, source, out, *sizes)


# ---- the convolution


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1) -> Array:
    """Return y (N, OH, OW, OC) = cols wᵀ + b, for filters w (OC, KH, KW, C/G)."""
    cols, filters = _as_pixels(gather(x, window, G)), w.reshape(len(w), 1, 1, -1)
    y = conv.forward(cols, filters, b, PIXEL, G)
    return y.reshape(len(x), *window.out_size(*x.shape[1:3]), len(w))


def backward_input(dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int = 1) -> Array:
    """Return dx (N, H, W, C) = col2im(dy w)."""
    rows, filters = _as_pixels(dy.reshape(-1, len(w))), w.reshape(len(w), 1, 1, -1)
    dcols = conv.backward_input(rows, (1, rows.shape[1], 1, G * filters.shape[3]), filters, PIXEL, G)
    return scatter(dcols.reshape(rows.shape[1], -1), window, x_shape, G)


def backward_weight(
    dy: Array,
    x: Array,
    w_shape: tuple[int, ...],
    window: Window,
    G: int = 1,
    out: Array | None = None,
    add: bool = False,
) -> Array:
    """Return dw (OC, KH, KW, C/G) = dyᵀ cols, written or added to ``out`` if that is given."""
    OC = w_shape[0]
    dw = array_module(x).empty(w_shape, x.dtype) if out is None else out
    if not dw.flags.c_contiguous:
        own = backward_weight(dy, x, w_shape, window, G)
        dw[...] = dw + own if add else own
        return dw
    cols, rows = _as_pixels(gather(x, window, G)), _as_pixels(dy.reshape(-1, OC))
    pixel_shape = (OC, 1, 1, math.prod(w_shape[1:]))
    conv.backward_weight(rows, cols, pixel_shape, PIXEL, G, dw.reshape(pixel_shape), add)
    return dw


def _as_pixels(matrix: Array) -> Array:
    """Return ``matrix`` (M, C) as an image of one column of M pixels, (1, M, 1, C)."""
    return matrix[None, :, None]
