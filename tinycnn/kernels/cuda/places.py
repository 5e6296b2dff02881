"""Many arrays in one launch, wherever they are: a table of their addresses.

Gradients of a network are some hundred arrays.  A launch for each would take longer than the work, and the arrays need
not be parts of one buffer.  So a table on the device says where they are, cut into tiles for blocks to work through.

Tables are kept: the arrays of a network stay where they are.  A captured graph reads the table that it was captured
with, so whoever captures holds on to all that there are (`kept`); others are given up after `KEPT` more have been made.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ...backend import Array, array_module

SMALL_TILE, LARGE_TILE = 1024, 4096
"""Elements of a tile: in small networks, where more blocks use more of the GPU, and in large ones."""
LARGE = 1 << 21
"""Elements of a large network."""
KEPT = 64

_tables: OrderedDict[object, Places] = OrderedDict()


@dataclass
class Places:
    """A table of tiles and, for kernels that need them, work arrays of this table's own.

    Attributes:
        tiles: how many there are.
        table: int64 (tiles, columns + 1): the address of the tile in each column's array, and its elements.
        work: work arrays by name.
    """

    tiles: int
    table: Array
    work: dict[str, Array] = field(default_factory=dict)


def kept() -> list[Places]:
    """Return every table that there is."""
    return list(_tables.values())


def tile_size(total: int) -> int:
    """Return how many of ``total`` elements a block should have."""
    return LARGE_TILE if total > LARGE else SMALL_TILE


def places(*columns: Sequence[Array]) -> Places:
    """Return the table for arrays of one type; those at the same place of several columns have the same size.

    Raises:
        ValueError: an array whose elements are not next to each other in memory, or two that differ.
    """
    key = tuple((x.data.ptr, x.shape, x.strides, x.dtype) for column in columns for x in column)
    if key in _tables:
        _tables.move_to_end(key)
        return _tables[key]
    rows = [_rows(together, tile_size(sum(x.size for x in columns[0]))) for together in zip(*columns, strict=True)]
    table = np.concatenate([np.empty((0, len(columns) + 1), np.int64), *rows])
    _tables[key] = Places(len(table), array_module(columns[0][0]).asarray(table))
    if len(_tables) > KEPT:
        _tables.popitem(last=False)
    return _tables[key]


def _rows(together: Sequence[Array], size: int) -> np.ndarray:
    """Return the tiles of arrays that are worked through together."""
    first = together[0]
    if not is_dense(first) or any(x.shape != first.shape or _steps(x) != _steps(first) for x in together):
        shapes = [x.shape for x in together]
        raise ValueError(f"arrays of shapes {shapes} have gaps in memory, or do not lie in it alike: copy them")
    starts = np.arange(0, first.size, size, dtype=np.int64)
    addresses = [x.data.ptr + starts * x.itemsize for x in together]
    return np.stack([*addresses, np.minimum(first.size - starts, size)], axis=1)


def _steps(x: Array) -> tuple[int, ...]:
    """Return the strides that matter."""
    return tuple(stride for stride, size in zip(x.strides, x.shape, strict=True) if size > 1)


def is_dense(x: Array) -> bool:
    """Whether the elements of ``x``, in some order of its axes, lie next to each other in memory."""
    axes = sorted((a for a in range(x.ndim) if x.shape[a] > 1), key=lambda a: x.strides[a])
    expected = x.itemsize
    for a in axes:
        if x.strides[a] != expected:
            return x.size == 0
        expected *= x.shape[a]
    return True
