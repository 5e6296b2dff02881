"""Sums of parts: what follows a product that was cut along its depth."""

from __future__ import annotations

import numpy as np

from ...backend import Array
from .module import THREADS, TYPES, Variant, blocks_for, kernel

VARIANTS: list[Variant] = [("parts", dtype, {}) for dtype in TYPES]
FEW, LANES = 8, 8
"""More parts than so many are shared out among as many threads for each element."""


def sum_type(dtype: np.dtype) -> np.dtype:
    """Return the type that sums of elements of ``dtype`` are taken in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def add_parts(parts: Array, bias: Array | None, y: Array, add: bool = False) -> None:
    """Write Σ parts (splits, …) + bias to ``y``, whose last axis is that of ``bias``; or add it to ``y``."""
    lanes = LANES if len(parts) > FEW else 1
    launch = kernel("parts", "add_parts", y.dtype)
    blocks = blocks_for(y.size, THREADS // lanes)
    launch(blocks, THREADS, parts, len(parts), y.size, bias, y.shape[-1], y, add, lanes)
