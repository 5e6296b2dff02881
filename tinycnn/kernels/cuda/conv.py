"""Convolution as implicit products of matrices: see conv.cu.  `routes` says when it is taken."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ...backend import Array, array_module
from ..precision import get_precision
from ..window import Window
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

FORWARD, DGRAD, WGRAD = 0, 1, 2
"""The passes, as conv.cu numbers them."""


class Tile(NamedTuple):
    """The part of a product that one block makes, BM×BN, and the part of that which each of its warps makes."""

    BM: int
    BN: int
    WM: int
    WN: int

    @property
    def name(self) -> str:
        """What it is called in plans."""
        return f"{self.BM}x{self.BN}"

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * (self.BM // self.WM) * (self.BN // self.WN)


TILES = (
    Tile(128, 128, 64, 32),
    Tile(128, 64, 64, 32),
    Tile(64, 64, 32, 32),
    Tile(128, 32, 32, 32),
    Tile(64, 32, 32, 16),
    Tile(128, 16, 32, 16),
)
NARROW = Tile(64, 32, 32, 16)
"""The tile of float64, and of products whose elements must be loaded one by one."""
STAGES = 3
SMS = 132
"""Multiprocessors to fill: those of an H100, whatever the GPU, so that results do not depend on it."""


class Product(NamedTuple):
    """The sizes of a pass: so many ``products`` of (rows, depth) by (depth, columns), and how a and b are loaded."""

    products: int
    rows: int
    columns: int
    depth: int
    VA: int
    VB: int


class Launch(NamedTuple):
    """How a product is computed: by which tile, in how many parts along the depth."""

    tile: Tile
    splits: int


def is_tensor(dtype: np.dtype) -> bool:
    """Return whether tensor cores multiply elements of ``dtype``."""
    return dtype.itemsize == 2 or (dtype == np.float32 and get_precision() == "tf32")


def macros(which: int, dtype: str, tensor: bool, tile: Tile, VA: int, VB: int) -> dict[str, int]:
    """Return the macros of conv.cu."""
    BK = 32 if tensor else 8 if dtype == "float64" else 16
    return {"PASS": which, "TENSOR": int(tensor), **tile._asdict(), "BK": BK, "STAGES": STAGES, "VA": VA, "VB": VB}


NARROW_LOADS = {FORWARD: ((1, 1),), DGRAD: ((1, 1), (16, 1)), WGRAD: ((1, 1), (1, 16))}
"""Bytes that one load of a and b brings, other than (16, 16), with 1 for one element: where channels are few."""


def tiles(dtype: str, wide: bool) -> tuple[Tile, ...]:
    """Return the tiles that there are kernels with; ``wide`` if a and b are both loaded 16 bytes at a time."""
    return TILES if wide and dtype != "float64" else (NARROW,)


def _variants() -> list[Variant]:
    found = []
    for dtype, which in itertools.product(TYPES, (FORWARD, DGRAD, WGRAD)):
        V = 16 // (2 if dtype.endswith("16") else int(dtype[5:]) // 8)
        for tensor in {"float32": (False, True), "float64": (False,)}.get(dtype, (True,)):
            found += [("conv", dtype, macros(which, dtype, tensor, tile, V, V)) for tile in tiles(dtype, wide=True)]
            found += [
                ("conv", dtype, macros(which, dtype, tensor, NARROW, min(a, V), min(b, V)))
                for a, b in NARROW_LOADS[which]
            ]
    return found


VARIANTS: list[Variant] = _variants()


def plan(product: Product, dtype: np.dtype, tensor: bool, tile: Tile | None = None) -> Launch:
    """Return the tile and the number of parts that should be fastest: a function of shapes alone.

    A ``tile`` that is asked for is taken, if there is a kernel with it.
    """
    choice = tiles(dtype.name, min(product.VA, product.VB) * dtype.itemsize == 16)
    return _plan(product, (tile,) if tile in choice else choice, 32 if tensor else 16)


def possible_tiles(which: int, CG: int, OCG: int, dtype: np.dtype) -> tuple[Tile, ...]:
    """Return the tiles of a pass of a convolution with so many channels in a group."""
    runs = (CG,) if which == FORWARD else (CG, OCG)
    return tiles(dtype.name, all(run * dtype.itemsize % 16 == 0 for run in runs))


@lru_cache(maxsize=4096)
def _plan(product: Product, choice: tuple[Tile, ...], BK: int) -> Launch:
    return min((_candidate(product, tile, BK) for tile in choice), key=lambda found: found[0])[1]


def _candidate(product: Product, tile: Tile, BK: int) -> tuple[float, Launch]:
    """Return the predicted time of a tile, in arbitrary units, and its number of parts."""
    blocks = product.products * -(-product.rows // tile.BM) * -(-product.columns // tile.BN)
    steps = max(-(-product.depth // BK), 1)
    splits = max(1, min(2 * SMS // blocks, steps // 8))
    waves = -(-blocks * splits // (2 * SMS))
    step = tile.BM * tile.BN + 32 * (tile.BM + tile.BN)
    time = waves * (-(-steps // splits) + 4) * step
    return time + (0 if splits == 1 else 100_000), Launch(tile, splits)


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, tile: Tile | None = None) -> Array:
    """Return y (N, OH, OW, OC)."""
    OC, KH, KW, CG = w.shape
    N, (OH, OW) = len(x), window.out_size(*x.shape[1:3])
    y = array_module(x).empty((N, OH, OW, OC), x.dtype)
    product = Product(G, N * OH * OW, OC // G, KH * KW * CG, *_loads(FORWARD, x, CG, w, KH * KW * CG))
    _convolve(FORWARD, x, w, b, y, product, _sizes(x.shape, y.shape, window, G), tile=tile)
    return y


def backward_input(
    dy: Array, x_shape: tuple[int, ...], w: Array, window: Window, G: int = 1, tile: Tile | None = None
) -> Array:
    """Return dx (N, H, W, C)."""
    OC, KH, KW, CG = w.shape
    (N, H, W, _), (SH, SW) = x_shape, window.stride
    dx = array_module(dy).empty(x_shape, dy.dtype)
    phases = min(SH, H) * min(SW, W)
    product = Product(
        G * phases,
        N * -(-H // SH) * -(-W // SW),
        CG,
        -(-KH // SH) * -(-KW // SW) * (OC // G),
        *_loads(DGRAD, dy, OC // G, w, CG),
    )
    _convolve(DGRAD, dy, w, None, dx, product, _sizes(x_shape, dy.shape, window, G), tile=tile)
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
    """Return dw (OC, KH, KW, C/G), written or added to ``out`` if that is given."""
    OC, KH, KW, CG = w_shape
    dw = array_module(x).empty(w_shape, x.dtype) if out is None else out
    product = Product(G, KH * KW * CG, OC // G, math.prod(dy.shape[:3]), *_loads(WGRAD, x, CG, dy, OC // G))
    _convolve(WGRAD, x, dy, None, dw, product, _sizes(x.shape, dy.shape, window, G), add, tile)
    return dw


def _loads(which: int, image: Array, image_run: int, matrix: Array, matrix_run: int) -> tuple[int, int]:
    """Return how many elements one load can bring of each array, where runs of so many elements lie together."""
    V = 16 // image.dtype.itemsize
    a, b = (run % V == 0 and _is_aligned(x) for x, run in ((image, image_run), (matrix, matrix_run)))
    if a and b:
        return V, V
    possible = [(A, B) for A, B in NARROW_LOADS[which] if (a or A == 1) and (b or B == 1)]
    return min(possible[-1][0], V), min(possible[-1][1], V)


def _is_aligned(x: Array) -> bool:
    """Return whether ``x``, or the copy that is made of it, begins at a multiple of 16 bytes."""
    return not x.flags.c_contiguous or x.data.ptr % 16 == 0


def _sizes(x_shape: tuple[int, ...], y_shape: tuple[int, ...], window: Window, G: int) -> tuple[int, ...]:
    """Return what the kernel takes as SIZES."""
    (N, H, W, C), (_, OH, OW, OC), ((PH, _), (PW, _)) = x_shape, y_shape, window.padding
    return N, H, W, C, OC, G, OH, OW, *window.kernel, *window.stride, PH, PW, *window.dilation


def _convolve(
    which: int,
    image: Array,
    matrix: Array,
    bias: Array | None,
    y: Array,
    product: Product,
    sizes: tuple[int, ...],
    add: bool = False,
    tile: Tile | None = None,
) -> None:
    """Launch a pass that writes ``y``, or adds to it."""
    image, matrix = packed(image), packed(matrix)
    if not y.flags.c_contiguous:
        own = array_module(y).empty(y.shape, y.dtype)
        _convolve(which, image, matrix, bias, own, product, sizes, tile=tile)
        y[...] = y + own if add else own
        return
    if not y.size:
        return
    dtype, tensor = image.dtype, is_tensor(image.dtype)
    tile, splits = plan(product, dtype, tensor, tile)
    settings = macros(which, dtype.name, tensor, tile, product.VA, product.VB)
    row_tiles = -(-product.rows // tile.BM)
    blocks = product.products * splits * row_tiles * -(-product.columns // tile.BN)
    sums = "float64" if dtype == np.float64 else "float32"
    parts = array_module(y).empty((splits, *y.shape), sums) if splits > 1 else None
    kernel("conv", "convolve", dtype, **settings)(
        *(blocks, tile.threads, image, matrix, bias, y, parts, y.size, splits, row_tiles, add and splits == 1),
        *sizes,
        shared=shared_bytes(which, settings, dtype.itemsize),
    )
    if parts is not None:
        launch = kernel("conv", "add_parts", dtype, **settings)
        launch(blocks_for(y.size), THREADS, parts, splits, y.size, bias, y.shape[-1], y, add)


def shared_bytes(which: int, settings: dict[str, int], itemsize: int) -> int:
    """Return the shared memory of a block: STAGES tiles of a and of b, laid out as gemm.cuh says."""
    BM, BN, BK = (settings[name] for name in ("BM", "BN", "BK"))

    def by_row(rows: int) -> int:
        return rows * (BK * itemsize + 16)

    def by_depth(rows: int) -> int:
        return BK * (rows + 8) * itemsize

    a = by_depth(BM) if which == WGRAD else by_row(BM)
    b = by_row(BN) if which == FORWARD else by_depth(BN)
    return settings["STAGES"] * (a + b)
