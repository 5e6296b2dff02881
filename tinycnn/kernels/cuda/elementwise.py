"""Twins of `tinycnn.kernels.activation`, and of sums over pixels."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ...backend import Array, array_module
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("elementwise", dtype, {}) for dtype in TYPES]
VECTOR = 16
"""Bytes that a thread takes at a time."""


def _map(name: str, *arrays: Array, numbers: tuple[float, ...] = (), writes: int = 1) -> None:
    """Launch a kernel that goes element by element; the last arrays, so many, are written."""
    x = arrays[0]
    if x.size:
        blocks = blocks_for(-(-x.size * x.dtype.itemsize // VECTOR))
        kernel("elementwise", name, x.dtype)(blocks, THREADS, *_ready(arrays, writes), *numbers, x.size)


def _ready(arrays: tuple[Array, ...], writes: int) -> list[Array]:
    """Return the arrays, C-contiguous, the last of which are to be written.

    Raises:
        ValueError: one of these has gaps, or another order than its axes.
    """
    for out in arrays[-writes:]:
        if not out.flags.c_contiguous:
            raise ValueError(f"a result must be C-contiguous, got strides {out.strides} for {out.shape}")
    return [packed(x) for x in arrays]


def add(x: Array, y: Array, z: Array) -> None:
    """Write x + y into ``z``."""
    _map("add", x, y, z)


def multiply(x: Array, y: Array, z: Array) -> None:
    """Write x·y into ``z``."""
    _map("multiply", x, y, z)


def scale(x: Array, factor: float, y: Array) -> None:
    """Write factor·x into ``y``."""
    _map("scale", x, y, numbers=(factor,))


def relu(x: Array, y: Array) -> None:
    """Write max(x, 0) into ``y``."""
    _map("relu", x, y)


def relu_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·[y > 0] into ``dx``."""
    _map("relu_backward", dy, y, dx)


def leaky_relu(x: Array, alpha: float, y: Array) -> None:
    """Write x or αx into ``y``."""
    _map("leaky_relu", x, y, numbers=(alpha,))


def leaky_relu_backward(dy: Array, x: Array, alpha: float, dx: Array) -> None:
    """Write dy or α·dy into ``dx``."""
    _map("leaky_relu_backward", dy, x, dx, numbers=(alpha,))


def sigmoid(x: Array, y: Array) -> None:
    """Write σ(x) into ``y``."""
    _map("sigmoid", x, y)


def sigmoid_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·y·(1 − y) into ``dx``."""
    _map("sigmoid_backward", dy, y, dx)


def tanh(x: Array, y: Array) -> None:
    """Write tanh x into ``y``."""
    _map("hyperbolic_tangent", x, y)


def tanh_backward(dy: Array, y: Array, dx: Array) -> None:
    """Write dy·(1 − y²) into ``dx``."""
    _map("tanh_backward", dy, y, dx)


def softplus(x: Array, beta: float, threshold: float, y: Array) -> None:
    """Write log(1 + e^βx)/β, or x, into ``y``."""
    _map("softplus", x, y, numbers=(beta, threshold))


def softplus_backward(dy: Array, x: Array, beta: float, threshold: float, dx: Array) -> None:
    """Write dy·σ(βx), or dy, into ``dx``."""
    _map("softplus_backward", dy, x, dx, numbers=(beta, threshold))


def silu(x: Array, y: Array, slope: Array) -> None:
    """Write x·σ(x) into ``y`` and its derivative into ``slope``."""
    _map("silu", x, y, slope, writes=2)


def gelu(x: Array, y: Array, slope: Array) -> None:
    """Write x·Φ(x) into ``y`` and its derivative into ``slope``."""
    _map("gelu", x, y, slope, writes=2)


def gelu_tanh(x: Array, y: Array, slope: Array) -> None:
    """Write the approximation of x·Φ(x) into ``y`` and its derivative into ``slope``."""
    _map("gelu_tanh", x, y, slope, writes=2)


def softmax(x: Array, axis: int, y: Array) -> None:
    """Write e^x/Σ e^x along ``axis`` into ``y``."""
    _along("softmax", axis, x, y)


def softmax_backward(dy: Array, y: Array, axis: int, dx: Array) -> None:
    """Write y·(dy − Σ dy·y) into ``dx``."""
    _along("softmax_backward", axis, dy, y, dx)


def _along(name: str, axis: int, *arrays: Array) -> None:
    """Launch a kernel that works along ``axis``."""
    x = arrays[0]
    if not x.size:
        return
    D, inner = x.shape[axis], math.prod(x.shape[axis % x.ndim + 1 :])
    groups, lanes = x.size // D, 32 if inner == 1 else 1
    launch = kernel("elementwise", name, x.dtype)
    launch(blocks_for(groups * lanes), THREADS, *_ready(arrays, 1), groups, D, inner, lanes)


# ---- sums over pixels

MOST_CHUNKS = 512
"""About so many blocks of the first launch: enough for every multiprocessor, few enough to add up."""
FEWEST_STEPS = 8
"""Rows that each thread adds, at least."""
FINISHING_THREADS, FINISHING_LANES = 1024, 32


class Cut(NamedTuple):
    """How the sums over P pixels of C channels are cut: tiles of ``lanes`` channels, chunks of ``length`` pixels."""

    lanes: int
    tiles: int
    length: int
    chunks: int


@functools.lru_cache(maxsize=1024)
def cut(B: int, P: int, C: int) -> Cut:
    """Return the cut for arrays (B, P, C): a function of the shape alone, as the order of summation hangs on it."""
    lanes = min(C, THREADS)
    tiles = -(-C // lanes)
    fewest = FEWEST_STEPS * (THREADS // lanes)
    length = max(fewest, -(-P // max(1, MOST_CHUNKS // (B * tiles))))
    return Cut(lanes, tiles, length, -(-P // length))


def _chunk_sums(x: Array) -> Array:
    """Return the sums over each chunk of the pixels of ``x`` (B, P, C), in the type of sums: (B, chunks, C)."""
    B, P, C = x.shape
    lanes, tiles, length, chunks = cut(B, P, C)
    sums = array_module(x).empty((B, chunks, C), "float64" if x.dtype == "float64" else "float32")
    kernel("elementwise", "chunk_sums", x.dtype)(
        (B * chunks, tiles), THREADS, packed(x), sums, P, C, chunks, lanes, length
    )
    return sums


def _finish(name: str, x: Array, y: Array) -> None:
    """Write the sums over the pixels of ``x`` (B, P, C) into ``y``, B·C numbers."""
    if not x.size:
        y.fill(0)
        return
    B, chunks, C = (sums := _chunk_sums(x)).shape
    lanes = min(C, FINISHING_LANES)
    grid = (B, -(-C // lanes))
    kernel("elementwise", name, x.dtype)(grid, FINISHING_THREADS, sums, y, chunks, C, lanes)


def channel_sums(x: Array) -> Array:
    """Return the sum over the pixels of ``x`` (B, P, C) as (B, C) in float64."""
    y = array_module(x).empty((x.shape[0], x.shape[2]), "float64")
    _finish("channel_sums", x, y)
    return y


def conv2d_backward_bias(dy: Array) -> Array:
    """Return db (OC,) from dy (N, OC, OH, OW): sums over all pixels, rounded once."""
    # (N, OC, OH, OW) -> (N, OH, OW, OC) -> (1, N·OH·OW, OC)
    rows = packed(dy.transpose(0, 2, 3, 1)).reshape(1, dy.size // max(dy.shape[1], 1), dy.shape[1])
    db = array_module(dy).empty(dy.shape[1], dy.dtype)
    _finish("rounded_channel_sums", rows, db)
    return db
