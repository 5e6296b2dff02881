"""Convolution in groups of few channels, of any kind: see grouped.cu.  `depthwise` has faster kernels for the usual."""

from __future__ import annotations

import math

import numpy as np

from ...backend import Array, array_module
from ..window import Window
from .module import BLOCKS, TYPES, Variant, kernel, packed

VARIANTS: list[Variant] = [("grouped", dtype, {}) for dtype in TYPES]

LANES, ROWS = 32, 8
"""Threads of a block: channels, and positions."""
FINISHING_ROWS = 16
FEW = 8
"""Groups of fewer channels than this, of input or output, are worth kernels of their own."""
MOST_TERMS = 48 * 1024 // (LANES * 8)
"""Terms of a channel's sum whose filters fit into shared memory, in float64 too."""
WEIGHT_BLOCKS, FEWEST_POSITIONS = 1056, 64
"""Blocks to cut the sums of dw into, eight for each multiprocessor of an H100; and the positions worth one."""


def supports(x_shape: tuple[int, ...], OC: int, window: Window, G: int) -> bool:
    """Return whether these kernels can do a convolution, and should: groups, so small that tiles would be empty."""
    CG, OCG = x_shape[3] // G, OC // G
    return G > 1 and min(CG, OCG) < FEW and math.prod(window.kernel) * max(CG, OCG) <= MOST_TERMS


def sizes(x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Window, G: int) -> tuple[int, ...]:
    """Return what the kernels take as SIZES."""
    (N, H, W, C), (_, OH, OW, OC), ((PH, _), (PW, _)) = x_shape, y_shape, window.padding
    return N, H, W, C, OC, G, OH, OW, *window.kernel, *window.stride, PH, PW, *window.dilation


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int) -> Array:
    """Return y (N, OH, OW, OC) of x (N, H, W, C), filters w (OC, KH, KW, C/G) and bias b (OC,) or None."""
    OC, shared = len(w), w[0].size * LANES * _sum_bytes(x)
    y = array_module(x).empty((len(x), *window.out_size(*x.shape[1:3]), OC), x.dtype)
    if y.size:
        launch = kernel("grouped", "grouped_forward", x.dtype)
        launch(_grid(y), (LANES, ROWS), packed(x), packed(w), b, y, *sizes(x.shape, y.shape, window, G), shared=shared)
    return y


def backward_input(dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int) -> Array:
    """Return dx (N, H, W, C)."""
    shared = len(w) // G * math.prod(window.kernel) * LANES * _sum_bytes(dy)
    dx = array_module(dy).empty(x_shape, dy.dtype)
    if dx.size:
        launch = kernel("grouped", "grouped_backward_input", dy.dtype)
        numbers = sizes(x_shape, dy.shape, window, G)
        launch(_grid(dx), (LANES, ROWS), packed(dy), packed(w), dx, *numbers, shared=shared)
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
    OC, terms = w_shape[0], math.prod(w_shape[1:])
    tiles = -(-OC // LANES)
    chunks, length = cut(math.prod(dy.shape[:3]), terms * tiles, FEWEST_POSITIONS)
    parts = array_module(x).empty((chunks, terms, OC), sum_type(x))
    if parts.size:
        launch = kernel("grouped", "grouped_backward_weight", x.dtype)
        numbers = sizes(x.shape, dy.shape, window, G)
        launch((chunks * terms, tiles), (LANES, ROWS), packed(dy), packed(x), parts, length, *numbers)
    return finish(parts, w_shape, x.dtype, out, add)


def finish(parts: Array, w_shape: tuple[int, ...], dtype: np.dtype, out: Array | None, add: bool) -> Array:
    """Return Σ parts (chunks, KH·KW·C/G, OC) over the chunks as dw, written or added to ``out`` if that is given.

    ``out`` may be of the type of sums, as it is in mixed precision.
    """
    chunks, terms, OC = parts.shape
    dw = array_module(parts).empty(w_shape, dtype) if out is None else out
    if not dw.flags.c_contiguous:
        own = finish(parts, w_shape, dtype, None, False)
        dw[...] = dw + own if add else own
        return dw
    launch = kernel("grouped", "finish_weight", dw.dtype)
    launch(-(-terms * OC // LANES), (LANES, FINISHING_ROWS), parts, dw, chunks, terms, OC, add and out is not None)
    return dw


def cut(count: int, others: int, fewest: int) -> tuple[int, int]:
    """Return (chunks, length) by which to cut a sum over ``count`` things where ``others`` blocks run beside each."""
    length = max(fewest, -(-count // max(1, WEIGHT_BLOCKS // others)))
    return -(-count // length), length


def sum_type(x: Array) -> str:
    """Return the type that sums of elements of ``x`` are taken in."""
    return "float64" if x.dtype == np.float64 else "float32"


def _sum_bytes(x: Array) -> int:
    return 8 if x.dtype == np.float64 else 4


def _grid(y: Array) -> tuple[int, int]:
    """Return the grid for a result ``y`` (N, H, W, C): blocks of positions, and of channels."""
    C = y.shape[3]
    tiles = -(-C // LANES)
    return max(1, min(-(-y.size // C // ROWS), 4 * BLOCKS // tiles)), tiles
