"""Twin of `tinycnn.kernels.metrics`."""

from __future__ import annotations

import numpy as np

from ...backend import Array, array_module
from .module import TYPES, Variant, kernel, packed

VARIANTS: list[Variant] = [("metrics", dtype, {}) for dtype in TYPES]
WARPS = 4
"""Rows that a block looks at at a time."""
BLOCKS = 1024
"""The most blocks of a launch."""


def count_batch(logits: Array, targets: Array, loss: Array, total: Array, correct: Array) -> None:
    """Add a batch to the running sums."""
    sums = np.float64 if logits.dtype == np.float64 else np.float32
    loss, labels, M = loss.astype(sums, copy=False), None, 0
    if targets.dtype.kind in "iu":
        labels = packed(targets.astype(np.int64, copy=False))
        M = labels.size
    # (N, C, H, W) -> (N, H, W, C)
    rows = packed(array_module(logits).moveaxis(logits, 1, -1))
    grid = max(1, min(BLOCKS, -(-M // WARPS)))
    count = correct.view(np.uint64)
    kernel("metrics", "count_batch", logits.dtype)(
        grid, 32 * WARPS, rows, labels, loss, M, logits.shape[1], len(logits), total, count
    )
