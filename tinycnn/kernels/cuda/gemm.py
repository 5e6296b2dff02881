"""How a product of matrices is cut into tiles and parts: the choices that gemm.cuh leaves open.

The product (rows, depth) by (depth, columns) is cut into tiles, one for each block of threads, and where these are too
few for the GPU, along the depth into parts that are added afterwards.  `plan` predicts the time of each choice and
takes the best.  It is a function of shapes alone, and its constants are those of one GPU, so that others give the same
bits.  (A GPU with little shared memory cannot have the largest tiles, and may then add up other parts.)

**Prediction**, in cycles of an H100 (132 multiprocessors of four schedulers at 1.7 GHz).  A step of BK along the depth
takes the blocks that share a multiprocessor as long as the slowest of three, and at least `LATENCY`::

    multiplications   BM·BN·BK / rate          (`RATES`)
    loads             (BM + BN)·BK·bytes / 25  (what the L2 cache delivers to each multiprocessor)
    instructions      those of all its warps (counted in the machine code; `_instructions`), of which each scheduler
                      issues 0.3 in a cycle for every warp it has to choose from, 0.8 at most
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import NamedTuple

FORWARD, DGRAD, WGRAD = PASSES = 0, 1, 2
"""The passes, as conv.cu numbers them."""


class Kind(NamedTuple):
    """How elements are multiplied: their size in bytes, and whether on tensor cores."""

    itemsize: int
    tensor: bool

    @property
    def BK(self) -> int:
        """The depth of a step."""
        return 32 if self.tensor else 64 // self.itemsize

    @property
    def V(self) -> int:
        """Elements in the longest load, 16 bytes."""
        return 16 // self.itemsize


KINDS = {
    "float32": (Kind(4, False), Kind(4, True)),
    "float64": (Kind(8, False),),
    "float16": (Kind(2, True),),
    "bfloat16": (Kind(2, True),),
}
"""How the elements of each type can be multiplied."""


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
    def warps(self) -> int:
        """Warps of a block."""
        return (self.BM // self.WM) * (self.BN // self.WN)


NARROW = Tile(64, 32, 32, 16)
"""The tile of float64, and of products whose elements must be loaded one by one."""
TILES = (
    Tile(128, 128, 64, 32),
    Tile(128, 64, 64, 32),
    Tile(64, 64, 32, 32),
    Tile(128, 32, 32, 32),
    NARROW,
    Tile(128, 16, 32, 16),
)
STAGES = 3
NARROW_LOADS = {FORWARD: ((1, 1),), DGRAD: ((1, 1), (16, 1)), WGRAD: ((1, 1), (1, 16))}
"""Bytes that one load of a and b brings, other than (16, 16), with 1 for one element: where channels are few."""


class Product(NamedTuple):
    """The sizes of a pass: so many ``products`` of (rows, depth) by (depth, columns), and how a and b are loaded."""

    which: int
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


def tiles(kind: Kind, VA: int, VB: int) -> tuple[Tile, ...]:
    """Return the tiles that there are kernels with."""
    return TILES if VA == VB == kind.V and kind.itemsize < 8 else (NARROW,)


def loads(which: int, kind: Kind, a: bool, b: bool) -> tuple[int, int]:
    """Return how many elements one load of a and of b brings, given which of them allow 16 bytes."""
    if a and b:
        return kind.V, kind.V
    possible = [(A, B) for A, B in NARROW_LOADS[which] if (a or A == 1) and (b or B == 1)]
    return min(possible[-1][0], kind.V), min(possible[-1][1], kind.V)


def macros(which: int, kind: Kind, tile: Tile, VA: int, VB: int) -> dict[str, int]:
    """Return the macros of conv.cu."""
    own = {"PASS": which, "TENSOR": int(kind.tensor), "BK": kind.BK, "STAGES": STAGES, "VA": VA, "VB": VB}
    return own | tile._asdict()


def all_macros(dtype: str) -> list[dict[str, int]]:
    """Return every combination of macros that elements of ``dtype`` can ask for."""
    found = []
    for which, kind in itertools.product(PASSES, KINDS[dtype]):
        for A, B in ((16, 16), *NARROW_LOADS[which]):
            VA, VB = min(A, kind.V), min(B, kind.V)
            found += [macros(which, kind, tile, VA, VB) for tile in tiles(kind, VA, VB)]
    return found


def shared_bytes(which: int, kind: Kind, tile: Tile) -> int:
    """Return the shared memory of a block: STAGES tiles of a and of b, laid out as gemm.cuh says."""

    def by_row(rows: int) -> int:
        return rows * (kind.BK * kind.itemsize + 16)

    def by_depth(rows: int) -> int:
        return kind.BK * (rows + 8) * kind.itemsize

    a = by_depth(tile.BM) if which == WGRAD else by_row(tile.BM)
    b = by_row(tile.BN) if which == FORWARD else by_depth(tile.BN)
    return STAGES * (a + b)


# ---- the prediction

SMS, SCHEDULERS = 132, 4
RATES = {Kind(8, False): 50, Kind(4, False): 100, Kind(4, True): 640, Kind(2, True): 1280}
"""Multiplications of a multiprocessor in a cycle."""
L2_BYTES = 25
"""Bytes that the L2 cache brings each multiprocessor in a cycle."""
LATENCY = 500
"""Cycles that a step takes at least: a barrier, and the way from shared memory through the multiplications."""
ISSUE_OF_WARP, ISSUE = 0.3, 0.8
"""Instructions that a scheduler issues in a cycle: for each warp, and at most."""
BEGIN, FIXED = 2000, 600
"""Cycles before the first step and after the last, at least, and the instructions of each warp there."""
LAUNCH = 4000
"""Cycles that another kernel costs."""
RESIDENT_REGISTERS, RESIDENT_BYTES = 1 << 16, 227 << 10
"""What the blocks on a multiprocessor share."""
FIXED_BYTES = 4 << 10
"""Shared memory of a block beside its tiles, at most."""
SPLITS = tuple(sorted({m * 2**e for m in (1, 3) for e in range(9)}))


@lru_cache(maxsize=4096)
def plan(product: Product, kind: Kind, tile: Tile | None = None, limit: int = RESIDENT_BYTES) -> Launch:
    """Return the tile and the number of parts that should be fastest, with ``limit`` bytes of shared memory a block.

    A ``tile`` that is asked for is taken, if there is a kernel with it.
    """
    possible = tiles(kind, product.VA, product.VB)
    choice = (tile,) if tile in possible else possible
    fitting = [t for t in choice if shared_bytes(product.which, kind, t) + FIXED_BYTES <= limit]
    steps = -(-product.depth // kind.BK)
    splits = [s for s in SPLITS if s == 1 or 4 * s <= steps]
    candidates = (Launch(t, s) for t in fitting or [NARROW] for s in splits)
    return min(candidates, key=lambda launch: predicted_cycles(product, kind, launch))


def predicted_cycles(product: Product, kind: Kind, launch: Launch) -> float:
    """Return the time that a launch should take (module docstring)."""
    tile, splits = launch
    blocks = product.products * -(-product.rows // tile.BM) * -(-product.columns // tile.BN) * splits
    rounds, rest = divmod(blocks, SMS * _resident(product.which, kind, tile))
    cycles = rounds * _round(product, kind, launch, _resident(product.which, kind, tile))
    if rest:
        cycles += _round(product, kind, launch, -(-rest // SMS))
    results = product.products * product.rows * product.columns
    return cycles + (LAUNCH + 2 * splits * results * 4 / (SMS * L2_BYTES) if splits > 1 else 0)


def _round(product: Product, kind: Kind, launch: Launch, together: int) -> float:
    """Return the time of so many blocks that share a multiprocessor."""
    tile, splits = launch
    warps = together * tile.warps / SCHEDULERS
    issue = min(ISSUE, warps * ISSUE_OF_WARP) / warps
    step = max(
        LATENCY,
        together * tile.BM * tile.BN * kind.BK / RATES[kind],
        together * (tile.BM + tile.BN) * kind.BK * kind.itemsize / L2_BYTES,
        _instructions(product, kind, tile) / issue,
    )
    return max(BEGIN, FIXED / issue) + -(-product.depth // (kind.BK * splits)) * step


def _instructions(product: Product, kind: Kind, tile: Tile) -> float:
    """Return about how many instructions each warp issues in a step."""
    V = product.VA, product.VB
    copies = sum(rows * kind.BK / v for rows, v in zip(tile, V, strict=False)) / (32 * tile.warps)
    if not kind.tensor:
        fetched = tile.WM / 8 + tile.WN / 4
        return 60 + 11 * copies + (tile.WM * tile.WN / 32 + fetched / kind.V) * kind.BK
    fragments = (tile.WM + tile.WN) / 16 * (kind.BK * kind.itemsize / 32)
    rounding = 8 if kind.itemsize == 4 else 0
    return 60 + 11 * copies + (2 + rounding) * fragments + tile.WM * tile.WN * kind.BK * kind.itemsize / 4096


def _resident(which: int, kind: Kind, tile: Tile) -> int:
    """Return how many blocks a multiprocessor has room for."""
    sums = tile.WM * tile.WN // 32 * max(kind.itemsize // 4, 1)
    registers = sums + (64 if kind.tensor else 120)
    by_registers = RESIDENT_REGISTERS // (32 * tile.warps * registers)
    return max(1, min(by_registers, RESIDENT_BYTES // (shared_bytes(which, kind, tile) + FIXED_BYTES)))
