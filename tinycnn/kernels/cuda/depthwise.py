"""Depthwise convolution: see depthwise.cu.  What that has no kernels for goes to `grouped`."""

from __future__ import annotations

import math

from ...backend import Array, array_module
from ..window import Window
from . import grouped
from .module import BLOCKS, THREADS, TYPES, Kernel, Variant, kernel, packed

TILE, LANES = 4, 32
"""As in depthwise.cu: results that a thread makes at a time; threads side by side along the channels, at most."""
WINDOWS = ((3, 1), (3, 2), (5, 1), (5, 2), (7, 1))
"""(size, stride) of the windows that there are kernels for."""
FEWEST_TILES = 64
"""Tiles whose share of dw is worth a block."""

VARIANTS: list[Variant] = [
    ("depthwise", dtype, {"KERNEL": size, "STRIDE": stride}) for dtype in TYPES for size, stride in WINDOWS
]

supports = grouped.supports


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int) -> Array:
    """Return y (N, OH, OW, OC) of x (N, H, W, C), filters w (OC, KH, KW, C/G) and bias b (OC,) or None."""
    x, w = packed(x), packed(w)
    if not _has_kernels(x, len(w), window, G):
        return grouped.forward(x, w, b, window, G)
    N, H, W, C = x.shape
    y = array_module(x).empty((N, *window.out_size(H, W), C), x.dtype)
    if y.size:
        _launch("depthwise_forward", window, (x, w, b, y), x.shape, y.shape, y.shape)
    return y


def backward_input(dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int) -> Array:
    """Return dx (N, H, W, C)."""
    dy, w = packed(dy), packed(w)
    if not _has_kernels(dy, x_shape[3], window, G):
        return grouped.backward_input(dy, x_shape, w, window, G)
    dx = array_module(dy).empty(x_shape, dy.dtype)
    if dx.size:
        _launch("depthwise_backward_input", window, (dy, w, dx), x_shape, dy.shape, x_shape)
    return dx


def backward_weight(
    dy: Array,
    x: Array,
    w_shape: tuple[int, ...],
    window: Window,
    G: int,
    out: Array | None = None,
    add: bool = False,
) -> Array:
    """Return dw (OC, KH, KW, C/G), written or added to ``out`` if that is given."""
    dy, x = packed(dy), packed(x)
    if not (_has_kernels(x, w_shape[0], window, G) and _is_aligned(dy)):
        return grouped.backward_weight(dy, x, w_shape, window, G, out, add)
    (N, OH, OW, C), cells = dy.shape, math.prod(window.kernel)
    lanes, tiles = _channels(x)
    groups = 1 if window.kernel[0] <= 3 else window.kernel[0]  # GROUPS in depthwise.cu
    chunks, length = grouped.cut(N * OH * -(-OW // TILE), groups * tiles, FEWEST_TILES)
    parts = array_module(x).empty((chunks, cells, C), grouped.sum_type(x))
    if parts.size:
        launch = _kernel("depthwise_backward_weight", x, window)
        numbers = _sizes(x.shape, dy.shape, window)
        launch((chunks * groups, tiles), (lanes, THREADS // lanes), dy, x, parts, length, *numbers)
    return grouped.finish(parts, w_shape, x.dtype, out, add)


def _has_kernels(x: Array, other: int, window: Window, G: int) -> bool:
    """Return whether depthwise.cu can convolve ``x``, (N, H, W, C) of C = ``other`` channels, or backwards."""
    (KH, KW), (SH, SW), C = window.kernel, window.stride, x.shape[3]
    usual = KH == KW and SH == SW and window.dilation == (1, 1) and (KH, SH) in WINDOWS
    return usual and G == C == other and C % _pack(x) == 0 and _is_aligned(x)


def _pack(x: Array) -> int:
    """Return V, the channels that a thread takes at a time."""
    return 2 if x.dtype.itemsize == 8 else 4


def _is_aligned(x: Array) -> bool:
    return bool(x.data.ptr % 16 == 0)


def _channels(x: Array) -> tuple[int, int]:
    """Return the lanes of a block, a power of two, and how many such blocks there are side by side."""
    packs = x.shape[3] // _pack(x)
    lanes = 1
    while lanes < min(LANES, packs):
        lanes *= 2
    return lanes, -(-packs // lanes)


def _kernel(name: str, x: Array, window: Window) -> Kernel:
    return kernel("depthwise", name, x.dtype, KERNEL=window.kernel[0], STRIDE=window.stride[0])


def _launch(
    name: str,
    window: Window,
    arrays: tuple[Array | None, ...],
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
) -> None:
    """Launch a kernel that makes an image of ``out_shape`` (N, H, W, C), tile by tile."""
    N, H, W, _ = out_shape
    lanes, blocks = _channels(arrays[0])
    rows = THREADS // lanes
    tiles = N * H * (-(-W // TILE) + 1)  # about: a tile may begin before the image
    grid = max(1, min(-(-tiles // rows), 4 * BLOCKS // blocks)), blocks
    _kernel(name, arrays[0], window)(grid, (lanes, rows), *arrays, *_sizes(x_shape, y_shape, window))


def _sizes(x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Window) -> tuple[int, ...]:
    """Return what the kernels take as SIZES."""
    (PH, _), (PW, _) = window.padding
    return (*x_shape, *y_shape[1:3], PH, PW)
