"""Maximum and sum over a sliding window, and the ways back, for one slice of the batch.

Each function goes through the cells of the window, its *taps*: over all positions at once, a tap meets a regular grid
of pixels, so pooling is a handful of elementwise operations on whole views.  No patch is copied and no padding built:
where a tap lies on padding it is left out, which is to say that padding is −∞ to a maximum and 0 to a sum.

**Phases.**  The pixels fall into SH·SW *phases*: phase r·SW + p has the rows r, r + SH, r + 2·SH, … and of them the
columns p, p + SW, p + 2·SW, ….  Within its phase, what a tap meets is contiguous.  That matters where pixels are
narrow: NumPy works on contiguous runs, and to start one costs as much as to work on a hundred numbers.  There the
phases are copied apart (a copy can move a pixel as a whole); elsewhere they are views.

All arrays are (n, H, W, C) for images and (n, OH, OW, C) for what the window makes of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from ..backend import Array, array_module, is_device_array
from ..parallel import scratch
from .cuda import twin
from .window import Index, Window

Stride: TypeAlias = tuple[int, int]
NARROW = 128
"""Bytes of a pixel below which phases are copied apart."""


class Tap(NamedTuple):
    """One cell of the window: at ``positions`` it meets the ``pixels`` of phase number ``phase``.

    ``rank`` counts the cells in reading order; ``size`` is the number of positions, ``full`` whether they are all, so
    that the cell never lies on padding.
    """

    rank: int
    phase: int
    pixels: Index
    positions: Index
    size: int
    full: bool

    def of(self, phases: list[Array]) -> Array:
        """Return the pixels that the cell meets."""
        return phases[self.phase][self.pixels]


@dataclass(frozen=True)
class Taps:
    """The cells of a window on images of one size.

    Attributes:
        reading: all, in reading order.
        folding: all, those that never lie on padding first; ``full`` is how many they are.
        writers: of the taps in each phase one, that which meets most of it.
        adders: all others.
        is_complete: whether the writers meet every pixel.
    """

    reading: list[Tap]
    folding: list[Tap]
    full: int
    writers: list[Tap]
    adders: list[Tap]
    is_complete: bool


@functools.lru_cache(maxsize=512)
def taps_of(window: Window, H: int, W: int) -> Taps:
    """Return the taps of ``window`` on images of H×W."""
    (SH, SW), (OH, OW) = window.stride, window.out_size(H, W)
    taps: list[Tap] = []
    widest: dict[int, Tap] = {}
    for rank, ((n, h, w), positions) in enumerate(window.visits(H, W)):
        rows, columns = (p.stop - p.start for p in positions[1:])
        top, left, phase = h.start // SH, w.start // SW, h.start % SH * SW + w.start % SW
        pixels = n, slice(top, top + rows), slice(left, left + columns)
        tap = Tap(rank, phase, pixels, positions, rows * columns, (rows, columns) == (OH, OW))
        taps.append(tap)
        if tap.size > (widest[phase].size if phase in widest else 0):
            widest[phase] = tap
    writers = list(widest.values())
    return Taps(
        reading=taps,
        folding=sorted(taps, key=lambda t: not t.full),
        full=sum(t.full for t in taps),
        writers=writers,
        adders=[t for t in taps if t not in writers],
        is_complete=sum(t.size for t in writers) == H * W,
    )


def as_pixels(x: Array) -> Array:
    """Return ``x`` (…, C) as (…) with whole pixels for elements, which NumPy copies in one go."""
    return x if is_device_array(x) or x.size == 0 else x.view(f"V{x.shape[-1] * x.itemsize}")[..., 0]


def views(x: Array, stride: Stride) -> list[Array]:
    """Return the phases of ``x`` as views."""
    SH, SW = stride
    return [x[:, r::SH, p::SW] for r in range(SH) for p in range(SW)]


def is_narrow(x: Array, stride: Stride) -> bool:
    """Whether the phases of ``x`` are to be copied apart."""
    return stride[1] > 1 and x.shape[3] * x.dtype.itemsize < NARROW and not is_device_array(x)


def split(x: Array, stride: Stride, filled: bool = True) -> list[Array]:
    """Return the phases of ``x``; where pixels are narrow in scratch, into which they are copied if ``filled``."""
    phases = views(x, stride)
    if not is_narrow(x, stride):
        return phases
    apart = [scratch(f"phase{i}", phase.shape, x.dtype, like=x) for i, phase in enumerate(phases)]
    if filled:
        for own, phase in zip(apart, phases, strict=True):
            as_pixels(own)[...] = as_pixels(phase)
    return apart


def join(phases: list[Array], x: Array, stride: Stride) -> None:
    """Copy the phases back to their places in ``x``, unless they are views."""
    if is_narrow(x, stride):
        for own, phase in zip(phases, views(x, stride), strict=True):
            as_pixels(phase)[...] = as_pixels(own)


def fold(op: Callable[..., Array], neutral: float, phases: list[Array], taps: Taps, y: Array) -> None:
    """Write into ``y`` what ``op``, maximum or add, makes of all taps; ``neutral`` is what padding counts as."""
    started = min(taps.full, 2)
    if started == 0:
        y.fill(neutral)
    elif started == 1:
        y[...] = taps.folding[0].of(phases)
    else:
        op(taps.folding[0].of(phases), taps.folding[1].of(phases), out=y)
    for tap in taps.folding[started:]:
        so_far = y[tap.positions]
        op(so_far, tap.of(phases), out=so_far)


@functools.lru_cache(maxsize=512)
def halves(window: Window) -> tuple[Window, Window]:
    """Return a column of the window and a row of it: one after the other they see what the window sees."""
    (KH, KW), (SH, SW), (DH, DW) = window.kernel, window.stride, window.dilation
    down, across = window.padding
    return Window((KH, 1), (SH, 1), (down, (0, 0)), (DH, 1)), Window((1, KW), (1, SW), ((0, 0), across), (1, DW))


def fold_by_halves(op: Callable[..., Array], neutral: float, x: Array, window: Window, y: Array) -> None:
    """Write into ``y`` what ``op`` makes of every window, down and then across: KH + KW steps, not KH·KW."""
    (down, across), (n, H, W, C), OH = halves(window), x.shape, y.shape[1]
    bands = scratch("bands", (n, OH, W, C), x.dtype, like=x)
    fold(op, neutral, views(x, down.stride), taps_of(down, H, W), bands)
    fold(op, neutral, split(bands, across.stride), taps_of(across, OH, W), y)


@twin("pool")
def max_pool(x: Array, window: Window, y: Array) -> None:
    """Write the maximum over the window at every position into ``y``."""
    fold_by_halves(array_module(x).maximum, -np.inf, x, window, y)


@twin("pool")
def max_pool_winners(x: Array, window: Window, y: Array, winners: Array) -> None:
    """Do what `max_pool` does, and write into ``winners`` which tap the maximum came from, the first of equal ones.

    The rank of the first winner is the number of taps that lose before any wins, and so it is found.  A tap loses where
    it lies on padding or x is less than y; the last need not be asked.  A window of nothing but −∞ is won by a pixel,
    then, and not by padding, and a window with a NaN in it by its first pixel.
    """
    xp, taps = array_module(x), taps_of(window, *x.shape[1:3])
    phases = split(x, window.stride)
    fold(xp.maximum, -np.inf, phases, taps, y)
    loses, all_lost = scratch("loses", (2, *y.shape), bool, like=x)
    all_lost.fill(True)
    winners.fill(0)
    for tap in taps.reading[:-1]:
        if not tap.full:
            loses.fill(True)
        xp.less(tap.of(phases), y[tap.positions], out=loses[tap.positions])
        xp.logical_and(all_lost, loses, out=all_lost)
        xp.add(winners, all_lost.view(np.uint8), out=winners)


@twin("pool")
def max_pool_backward(dy: Array, winners: Array, window: Window, dx: Array) -> None:
    """Write into ``dx`` the sum of the ``dy`` of all windows that the pixel won.

    dy is switched on and off by a product with 1 and 0 as integers: unlike that of floats, it yields 0 for a loser
    even if dy is infinite.
    """
    xp, taps = array_module(dy), taps_of(window, *dx.shape[1:3])
    bits = np.dtype(f"int{8 * dy.dtype.itemsize}")
    phases = split(dx, window.stride, filled=False)
    clear(phases, taps)
    wins, share = scratch("wins", dy.shape, bool, like=dy), scratch("share", dy.shape, dy.dtype, like=dy)
    for tap in taps.writers:
        xp.equal(winners, winners.dtype.type(tap.rank), out=wins)
        xp.multiply(dy[tap.positions].view(bits), wins[tap.positions], out=tap.of(phases).view(bits))
    for tap in taps.adders:
        xp.equal(winners, winners.dtype.type(tap.rank), out=wins)
        xp.multiply(dy.view(bits), wins, out=share.view(bits))
        pixels = tap.of(phases)
        pixels += share[tap.positions]
    join(phases, dx, window.stride)


def clear(phases: list[Array], taps: Taps) -> None:
    """Fill the phases with 0, unless the writers leave nothing out."""
    if not taps.is_complete:
        for phase in phases:
            phase.fill(0)


def sum_pool(x: Array, window: Window, y: Array) -> None:
    """Write the sum over the window at every position into ``y``."""
    fold_by_halves(array_module(x).add, 0, x, window, y)


def sum_pool_backward(dy: Array, window: Window, dx: Array) -> None:
    """Write the adjoint of `sum_pool` into ``dx``: each pixel gets the ``dy`` of every window that it is in."""
    (down, across), (n, _, W, C), OH = halves(window), dx.shape, dy.shape[1]
    bands = scratch("bands", (n, OH, W, C), dx.dtype, like=dx)
    spread(dy, across, bands)
    spread(bands, down, dx)


def spread(dy: Array, window: Window, dx: Array) -> None:
    """Write into ``dx`` the sum of ``dy`` over all taps that meet the pixel: the adjoint of `fold` with addition."""
    taps, stride = taps_of(window, *dx.shape[1:3]), window.stride
    phases = split(dx, stride, filled=False) if taps.adders else views(dx, stride)
    clear(phases, taps)
    for tap in taps.writers:
        as_pixels(tap.of(phases))[...] = as_pixels(dy[tap.positions])
    for tap in taps.adders:
        pixels = tap.of(phases)
        pixels += dy[tap.positions]
    if taps.adders:
        join(phases, dx, stride)


class Divisor(NamedTuple):
    """What the sum over a window is divided by: |R(o)|, or one number everywhere.

    ``include_pad`` says whether |R(o)| counts cells of the padding, which is what lies above and left of the image, and
    as much below and right of it; what a window sees beyond (see `Window.ceiled`) is never counted.  ``fixed`` takes
    the place of |R(o)| if given.
    """

    include_pad: bool
    fixed: int | None


@functools.lru_cache(maxsize=512)
def counts(divisor: Divisor, window: Window, H: int, W: int, dtype: np.dtype) -> np.ndarray:
    """Return the divisor at every position of the window on images of H×W, as (OH, OW, 1) in ``dtype``."""
    sides = zip((H, W), window.out_size(H, W), window.kernel, window.stride, window.padding, strict=True)
    heights, widths = (cells(size, out, k, s, p, divisor.include_pad) for size, out, k, s, (p, _) in sides)
    divisors = np.outer(heights, widths)[:, :, None]
    return np.asarray(divisors if divisor.fixed is None else np.full_like(divisors, divisor.fixed), dtype)


def cells(size: int, out: int, k: int, s: int, p: int, include_pad: bool) -> np.ndarray:
    """Return how many rows (or columns) count at each of ``out`` positions along one axis."""
    start = np.arange(out) * s - p
    end = np.minimum(start + k, size + p)
    return end - start if include_pad else np.minimum(end, size) - np.maximum(start, 0)


@twin("pool")
def mean_pool(x: Array, window: Window, divisor: Divisor, y: Array) -> None:
    """Write the sum over the window at every position, divided by the divisor, into ``y``."""
    sum_pool(x, window, y)
    y /= counts(divisor, window, *x.shape[1:3], x.dtype)


@twin("pool")
def mean_pool_backward(dy: Array, window: Window, divisor: Divisor, dx: Array) -> None:
    """Write the adjoint of `mean_pool` into ``dx``: each pixel gets its share of every window that it is in."""
    share = scratch("share", dy.shape, dy.dtype, like=dy)
    np.divide(dy, counts(divisor, window, *dx.shape[1:3], dy.dtype), out=share)
    sum_pool_backward(share, window, dx)


@functools.lru_cache(maxsize=512)
def bins(size: int, out: int) -> list[slice]:
    """Return the run of rows (or columns) of each of ``out`` bins: bin i has ⌊i·H/OH⌋ … ⌈(i + 1)·H/OH⌉ − 1."""
    return [slice(i * size // out, -(-(i + 1) * size // out)) for i in range(out)]


def areas(rows: list[slice], columns: list[slice], dtype: np.dtype) -> np.ndarray:
    """Return the number of pixels in every bin, as (OH, OW, 1) in ``dtype``."""
    pixels = np.outer([s.stop - s.start for s in rows], [s.stop - s.start for s in columns])
    return np.asarray(pixels[:, :, None], dtype)


@twin("pool")
def bin_means(x: Array, y: Array) -> None:
    """Write the mean over each of the OH×OW `bins` of the images into ``y``."""
    rows, columns = map(bins, x.shape[1:3], y.shape[1:3])
    bin_sums(x, rows, columns, y)
    y /= areas(rows, columns, x.dtype)


@twin("pool")
def bin_means_backward(dy: Array, dx: Array) -> None:
    """Write the adjoint of `bin_means` into ``dx``."""
    rows, columns = map(bins, dx.shape[1:3], dy.shape[1:3])
    share = scratch("share", dy.shape, dy.dtype, like=dy)
    np.divide(dy, areas(rows, columns, dy.dtype), out=share)
    bin_sums_backward(share, rows, columns, dx)


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
    for j, (again, new) in enumerate(overlaps(columns)):  # (n, OH, 1, C) to every column of the run
        bands[:, :, again] += dy[:, :, j, None]
        bands[:, :, new] = dy[:, :, j, None]
    for i, (again, new) in enumerate(overlaps(rows)):  # (n, 1, W, C) to every row of the run
        dx[:, again] += bands[:, i, None]
        dx[:, new] = bands[:, i, None]


def overlaps(runs: list[slice]) -> Iterator[tuple[slice, slice]]:
    """(what earlier runs have too, what they have not) of each of the runs, which come in order and leave no gap."""
    end = 0
    for run in runs:
        yield slice(run.start, end), slice(end, run.stop)
        end = run.stop
