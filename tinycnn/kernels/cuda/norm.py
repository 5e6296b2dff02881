"""What the wrappers of the normalisation kernels share: how matrices are divided among blocks, as norm.cuh wants it."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

from ...backend import Array
from .module import TYPES, Variant, packed

THREADS, UNROLL, TICKETS = 256, 4, 4096
"""As in norm.cuh."""
LOAD_BYTES, LOAD_NUMBERS = 16, 4
"""The most that a thread loads at once.  (Eight numbers of 16 bits would need too many registers.)"""
TILE_BYTES, TILE_VECTORS = 128, 32
"""The most that a row of a tile has: a line of the cache."""
SUMMING, WRITING = 1024, 2048
"""The most blocks of kernels that sum up and of those that do not.  (The first leave parts that one block adds up.)"""

_launches = itertools.count()


def variants(file: str) -> list[Variant]:
    """Return the ways to compile ``file``.cu: single columns for any matrix, vectors for most."""
    return [(file, dtype, {"WIDTH": V}) for dtype in TYPES for V in (1, 2 if dtype == "float64" else LOAD_NUMBERS)]


def vector_width(C: int, dtype: np.dtype) -> int:
    """Return V: how many of C columns a thread works on."""
    V = min(LOAD_NUMBERS, LOAD_BYTES // dtype.itemsize)
    return V if C % V == 0 else 1


def loadable(x: Array) -> Array:
    """Return ``x``, contiguous and beginning where a wide load can: a copy only where it does not."""
    x = packed(x)
    return x.copy() if x.data.ptr % LOAD_BYTES else x


def sums_dtype(dtype: np.dtype) -> np.dtype:
    """Return what A stands for in kernels on arrays of ``dtype``."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def tickets() -> int:
    """Return where the tickets of a launch begin: elsewhere than those of others that may still run."""
    return next(_launches) * 64 % TICKETS


class Grid(NamedTuple):
    """A matrix divided into tiles of TX vectors and runs of R rows; blocks are TX by TY threads."""

    tiles: int
    runs: int
    TX: int
    TY: int
    R: int

    @property
    def launch(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the sizes of grid and block."""
        return (self.tiles, self.runs), (self.TX, self.TY)


def divide(M: int, C: int, dtype: np.dtype, blocks: int, V: int | None = None) -> Grid:
    """Divide M rows of C columns among about so many ``blocks``, as a function of sizes alone.

    A thread gets at least UNROLL rows, if there are as many, of V columns (by default `vector_width`).
    """
    V = vector_width(C, dtype) if V is None else V
    vectors = C // V
    most = min(TILE_VECTORS, TILE_BYTES // (V * dtype.itemsize))
    TX = -(-vectors // -(-vectors // most))
    tiles, TY = -(-vectors // TX), THREADS // TX
    rows = -(-M * tiles // blocks)
    R = -(-rows // (UNROLL * TY)) * UNROLL * TY
    return Grid(tiles, -(-M // R), TX, TY, R)
