"""Twins of `tinycnn.kernels.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Array, array_module
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("loss", dtype, {}) for dtype in TYPES]
WARP = 32
FEW_CLASSES = 1024
"""What a warp does by itself; beyond, a block takes a row."""
FEW_LABELS = 4096
"""What every block adds up for itself."""
ROW_THREADS = 128
"""Threads of a block in which every warp takes a row: fewer than usual, so that small batches have more blocks."""


def cross_entropy(
    x: Array,
    targets: Array,
    weight: Array | None,
    ignore_index: int,
    smoothing: float,
    reduction: str,
    scale: Array | None,
    outside: Array | None,
) -> tuple[Array, Array]:
    """Return loss and gradient of logits ``x`` (M, C) in one launch; in two for the mean over very many labels."""
    x, (M, C) = packed(x), x.shape
    out = _Results(x, (M,), reduction)
    if M == 0:
        return out.of_nothing()
    exact, is_mean = out.loss.dtype, reduction == "mean"
    soft = packed(targets.astype(exact, copy=False)) if targets.dtype.kind == "f" else None
    labels = packed(targets.astype(np.int64, copy=False)) if soft is None else None
    counted = labels, weight, M, C, ignore_index
    given = _label_total(counted, x) if is_mean and labels is not None and M > FEW_LABELS else None
    name, threads = ("cross_entropy", ROW_THREADS) if C <= FEW_CLASSES else ("cross_entropy_many", THREADS)
    grid = blocks_for(M, threads // WARP if C <= FEW_CLASSES else 1)
    numbers = *counted, 1 - smoothing, smoothing / C, is_mean
    kernel("loss", name, x.dtype)(grid, threads, x, soft, *out.arrays(grid), given, scale, outside, *numbers)
    return out.loss, out.dx


def _label_total(counted: tuple[Any, ...], x: Array) -> Array:
    """Return what a mean divides by."""
    xp, grid = array_module(x), blocks_for(len(counted[0]), 4 * THREADS)
    parts, total = xp.empty(grid, np.float64), xp.empty((), np.float64)
    kernel("loss", "label_total", x.dtype)(grid, THREADS, *counted, parts, total)
    return total


def squared_error(x: Array, t: Array, reduction: str, scale: Array | None) -> tuple[Array, Array]:
    """Return (loss, dx) of (x − t)²."""
    return _each("squared_error", x, t, reduction, scale)


def binary_cross_entropy(
    x: Array, t: Array, weight: Array | None, pos_weight: Array | None, reduction: str, scale: Array | None
) -> tuple[Array, Array]:
    """Return (loss, dx); weights that are not of x's shape are first copied to it, a launch each."""
    full = (None if w is None else _memory(array_module(x).broadcast_to(w, x.shape)) for w in (weight, pos_weight))
    return _each("binary_cross_entropy", x, t, reduction, scale, *full)


def _each(name: str, x: Array, t: Array, reduction: str, scale: Array | None, *more: Any) -> tuple[Array, Array]:
    """Launch a kernel that takes the loss element by element."""
    shape, x = x.shape, _memory(x)
    out = _Results(x, x.shape, reduction)
    if x.size == 0:
        loss, dx = out.of_nothing()
    else:
        grid = blocks_for(x.size)
        numbers = scale, x.size, reduction == "mean"
        kernel("loss", name, x.dtype)(grid, THREADS, x, _memory(t), *out.arrays(grid), *numbers, *more)
        loss, dx = out.loss, out.dx
    return _shaped(loss, shape) if reduction == "none" else loss, _shaped(dx, shape)


class _Results:
    """The arrays for a loss and its gradient: what all kernels of loss.cu take as dx, losses, loss, parts.

    Args:
        x: the logits.
        shape: of the single losses.
        reduction: 'none' keeps those.
    """

    def __init__(self, x: Array, shape: tuple[int, ...], reduction: str) -> None:
        self._xp, self._reduction = array_module(x), reduction
        exact = np.float64 if x.dtype == np.float64 else np.float32
        self.dx = self._xp.empty(x.shape, x.dtype)
        self.loss = self._xp.empty(shape if reduction == "none" else (), exact)

    def arrays(self, grid: int) -> tuple[Array | None, ...]:
        """Return (dx, losses, loss, parts) for a launch of ``grid`` blocks."""
        if self._reduction == "none":
            return self.dx, self.loss, None, None
        return self.dx, None, self.loss, self._xp.empty(grid, np.float64)

    def of_nothing(self) -> tuple[Array, Array]:
        """Return (loss, dx) where there are no elements; the mean of nothing is nan."""
        self.loss.fill(np.nan if self._reduction == "mean" else 0)
        return self.loss, self.dx


def _memory(x: Array) -> Array:
    """Return ``x``, C-contiguous, of images with their axes in the order of channels-last memory."""
    return packed(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)  # (N, C, H, W) -> (N, H, W, C)


def _shaped(y: Array, shape: tuple[int, ...]) -> Array:
    """Undo `_memory`."""
    return y.transpose(0, 3, 1, 2) if len(shape) == 4 else y  # (N, H, W, C) -> (N, C, H, W)
