"""Maximum and sum over a sliding window, and the ways back, for one slice of the batch.

Each function goes through the cells of the window, its *taps*: over all positions at once, tap t of the window
lies on a regular grid of pixels, which is a strided view of the image, so pooling is a handful of elementwise
operations on whole views.  No patch is copied, no index array formed and no padding built: where a tap lies on
padding it is left out, which is to say that padding is −∞ to a maximum and 0 to a sum.

All arrays are (n, H, W, C) for images and (n, OH, OW, C) for what the window makes of them.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..parallel import scratch
from .window import Window


def max_pool(x: Array, window: Window, y: Array) -> None:
    """Write the maximum over the window at every position into ``y``."""
    xp = array_module(x)
    y.fill(-np.inf)
    for pixels, positions in window.visits(*x.shape[1:3]):
        xp.maximum(y[positions], x[pixels], out=y[positions])


def max_pool_winners(x: Array, window: Window, y: Array, winners: Array) -> None:
    """Do what `max_pool` does, and write into ``winners`` which tap the maximum came from.

    The taps are visited from last to first, and one that *equals* the maximum so far takes over: so the first
    of several equal ones wins, and a window of nothing but −∞ is won by a pixel, not by padding.

    What is written is the rank T − 1 − t of tap t out of T.  Ranks rise as the loop proceeds, so that "the latest
    to take over" is simply the largest rank: one multiplication and one maximum of small integers.
    """
    xp = array_module(x)
    takes_over = scratch("takes_over", y.shape, bool, like=x)
    rank_here = scratch("rank_here", y.shape, winners.dtype, like=x)
    y.fill(-np.inf)
    winners.fill(0)
    for rank, (pixels, positions) in enumerate(reversed(list(window.visits(*x.shape[1:3])))):
        best, candidate = y[positions], x[pixels]
        xp.greater_equal(candidate, best, out=takes_over[positions])
        xp.maximum(best, candidate, out=best)
        xp.multiply(takes_over[positions], winners.dtype.type(rank), out=rank_here[positions])
        xp.maximum(winners[positions], rank_here[positions], out=winners[positions])


def max_pool_backward(dy: Array, winners: Array, window: Window, dx: Array) -> None:
    """Add each ``dy`` to the pixel that won its window; ``dx`` is cleared first.

    dy is switched on and off by a mask of bits, all ones where the tap won: unlike a product with 0 and 1, that
    yields 0 for a loser even if dy is infinite.
    """
    xp = array_module(dy)
    bits = np.dtype(f"int{8 * dy.dtype.itemsize}")
    won = scratch("won", dy.shape, bool, like=dy)
    mask = scratch("mask", dy.shape, bits, like=dy)
    dx.fill(0)
    for rank, (pixels, positions) in enumerate(reversed(list(window.visits(*dx.shape[1:3])))):
        xp.equal(winners, winners.dtype.type(rank), out=won)
        mask[...] = won
        xp.negative(mask, out=mask)  # 1 -> −1, all bits set
        if window.is_disjoint:
            xp.bitwise_and(dy[positions].view(bits), mask[positions], out=dx[pixels].view(bits))
        else:
            xp.bitwise_and(dy.view(bits), mask, out=mask)
            dx[pixels] += mask.view(dy.dtype)[positions]


def sum_pool(x: Array, window: Window, y: Array) -> None:
    """Write the sum over the window at every position into ``y``."""
    y.fill(0)
    for pixels, positions in window.visits(*x.shape[1:3]):
        y[positions] += x[pixels]


def sum_pool_backward(dy: Array, window: Window, dx: Array) -> None:
    """Write the adjoint of `sum_pool` into ``dx``: each pixel gets the ``dy`` of every window that it is in."""
    dx.fill(0)
    for pixels, positions in window.visits(*dx.shape[1:3]):
        dx[pixels] += dy[positions]


def bin_sums(x: Array, rows: list[slice], columns: list[slice], y: Array) -> None:
    """Write the sum over every bin, a run of ``rows`` times a run of ``columns``, into ``y``."""
    xp = array_module(x)
    n, _, W, C = x.shape
    bands = scratch("bands", (n, len(rows), W, C), x.dtype, like=x)
    for i, run in enumerate(rows):
        xp.sum(x[:, run], axis=1, out=bands[:, i])  # (n, run, W, C) -> (n, W, C)
    for j, run in enumerate(columns):
        xp.sum(bands[:, :, run], axis=2, out=y[:, :, j])  # (n, OH, run, C) -> (n, OH, C)


def bin_sums_backward(dy: Array, rows: list[slice], columns: list[slice], dx: Array) -> None:
    """Write the adjoint of `bin_sums` into ``dx``: each pixel gets the ``dy`` of every bin that it is in."""
    n, _, W, C = dx.shape
    bands = scratch("bands", (n, len(rows), W, C), dx.dtype, like=dx)
    bands.fill(0)
    for j, run in enumerate(columns):
        bands[:, :, run] += dy[:, :, j, None]  # (n, OH, 1, C) to every column of the run
    dx.fill(0)
    for i, run in enumerate(rows):
        dx[:, run] += bands[:, i, None]  # (n, 1, W, C) to every row of the run
