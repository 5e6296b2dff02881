"""Winograd's tiles: between the pixels of images and the points of polynomials (`winograd`).

A tile is a block of k×k pixels; one begins every m pixels, so that neighbours overlap where k > m.  With a matrix K of
k columns, `to_points` forms K d Kᵀ of every tile d.  `from_points` is its adjoint, K M Kᵀ with the transpose for K,
and adds up what overlaps.

Either takes two matrix products, one for each dimension, and no copy of the image.  Down the image, a row of a tile
is a row of the whole image, W·C contiguous numbers, so that one product with the small K covers all tiles of a row.
Across, a tile is k pixels of C contiguous numbers: one small product per tile.  Views with overlapping strides
stand for the tiles, and zeros around the image are columns of K that are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from ...backend import Array, array_module
from ...parallel import scratch


class Tiles(NamedTuple):
    """TH×TW tiles on an image, one every ``step`` pixels; the first begins ``top`` rows above, ``left`` before it."""

    TH: int
    TW: int
    step: int
    top: int = 0
    left: int = 0


def to_points(x: Array, K: Array, tiles: Tiles, V: Array) -> None:
    """Write K d Kᵀ of every tile d (k×k) of ``x`` (n, H, W, C) into ``V`` (t², T, C); K is (t, k).

    Down first: rows of an image are long, and its zeros above and below need only leave out columns of K.
    """
    xp = array_module(x)
    n, H, W, C = x.shape
    (t, k), (TH, TW, m, top, left) = K.shape, tiles
    width, columns = m * TW + k - m, slice(left * C, (left + W) * C)
    x = x.reshape(n, H, W * C)
    z = scratch("winograd z", (t, n, TH, width * C), x.dtype, like=x)
    z[..., : columns.start] = 0
    z[..., columns.stop :] = 0
    for rows, lo, hi in tile_rows(tiles, k, H):
        out = z[:, :, rows, columns].transpose(1, 2, 0, 3)
        if lo == hi:
            out[...] = 0
            continue
        # (t, hi−lo) @ (n, rows, hi−lo, W·C) -> (n, rows, t, W·C)
        xp.matmul(K[:, lo:hi], windows(x, m * rows.start - top + lo, rows, hi - lo, m), out=out)
    # (t, n, TH, width·C) -> (t, n, TH, TW, k, C)
    d = windows(z.reshape(t, n, TH, width, C), 0, slice(0, TW), k, m)
    # (t, k) @ (t, n, TH, TW, k, C) -> (t, n, TH, TW, t, C), the fifth axis being the second of V
    xp.matmul(K, d, out=V.reshape(t, t, n, TH, TW, C).transpose(0, 2, 3, 4, 1, 5))


def from_points(M: Array, K: Array, tiles: Tiles, y: Array) -> None:
    """Write the tiles K M Kᵀ (k×k) of ``M`` (t², T, C) into ``y`` (n, H, W, C): the adjoint of `to_points` with Kᵀ.

    Where k > m, tiles overlap and are added up.  What they add to the rows below the last m·TH must find them
    filled: with zeros, or with the band below.
    """
    xp = array_module(y)
    n, H, W, C = y.shape
    (k, t), (TH, TW, m, top, left) = K.shape, tiles
    z = scratch("winograd z", (t, n, TH, TW + (k > m), m, C), y.dtype, like=y)
    # (t², T, C) -> (t, t, n, TH, TW, C) -> (t, n, TH, TW, t, C);  (m, t) @ that -> (t, n, TH, TW, m, C)
    d = M.reshape(t, t, n, TH, TW, C).transpose(0, 2, 3, 4, 1, 5)
    xp.matmul(K[:m], d, out=z[..., :TW, :, :])
    if k > m:
        z[..., TW:, :, :] = 0
        z[..., 1:, : k - m, :] += overlaps(K, d, m)
    y = y.reshape(n, H, W * C)
    # (t, n, TH, TW, m, C) -> (t, n, TH, TW·m·C) -> (n, TH, t, W·C)
    d = z.reshape(t, n, TH, -1)[..., left * C : (left + W) * C].transpose(1, 2, 0, 3)
    for rows, lo, hi in tile_rows(tiles, m, H):
        if lo < hi:
            xp.matmul(K[lo:hi], d[:, rows], out=windows(y, m * rows.start - top + lo, rows, hi - lo, m))
    if k > m:
        tail = overlaps(K, d, m)
        for rows, lo, hi in tile_rows(tiles._replace(top=top - m), k - m, H):
            if lo < hi:
                below = windows(y, m * (rows.start + 1) - top + lo, rows, hi - lo, m)
                below += tail[:, rows, lo:hi]


def put_tiles(pixels: Array, tiles: Tiles, y: Array) -> None:
    """Write ``pixels`` (m², T, C), those of tiles of m×m side by side, to their places in ``y`` (n, H, W, C).

    What tiles have beyond the edges of y is left out.
    """
    TH, TW, m, top, _ = tiles
    n, C = len(y), y.shape[3]
    # (m², T, C) -> (m, m, n, TH, TW, C)
    pixels, y = pixels.reshape(m, m, n, TH, TW, C), y[:, -top : m * TH - top]
    for (down, h), (across, w) in itertools.product(*(whole_and_cut(size, m) for size in y.shape[1:3])):
        part = y[:, m * down.start :, m * across.start :][
            :, : h * (down.stop - down.start), : w * (across.stop - across.start)
        ]
        # (n, rows·h, columns·w, C) -> (n, rows, h, columns, w, C) -> (h, w, n, rows, columns, C), a view
        part = part.reshape(n, -1, h, across.stop - across.start, w, C).transpose(2, 4, 0, 1, 3, 5)
        part[...] = pixels[:h, :w, :, down, across]


def whole_and_cut(size: int, m: int) -> list[tuple[slice, int]]:
    """Return (tiles, how many of their m pixels lie within ``size``) along an axis: of whole ones, and of the last."""
    whole, rest = divmod(size, m)
    return [(slice(0, whole), m)] * (whole > 0) + [(slice(whole, whole + 1), rest)] * (rest > 0)


def overlaps(K: Array, d: Array, m: int) -> Array:
    """Return what tiles add to the next ones, K[m:] @ d, in scratch."""
    out = scratch("winograd overlaps", (*d.shape[:-2], len(K) - m, d.shape[-1]), d.dtype, like=d)
    return array_module(d).matmul(K[m:], d, out=out)


def windows(x: Array, first: int, which: slice, k: int, m: int) -> Array:
    """Return the view (..., count, k, L) of ``x`` (..., R, L): windows of k rows, from ``first`` on every m-th."""
    x = x[..., first:, :]
    *outer, _, L = x.shape
    *strides, sr, sl = x.strides
    shape, strides = (*outer, which.stop - which.start, k, L), (*strides, m * sr, sr, sl)
    return array_module(x).lib.stride_tricks.as_strided(x, shape, strides)


def tile_rows(tiles: Tiles, k: int, H: int) -> Iterator[tuple[slice, int, int]]:
    """Yield (rows, lo, hi): of the k pixel rows of those tile rows, lo to hi lie within the image."""

    def inside(r: int) -> tuple[int, int]:
        first = tiles.step * r - tiles.top
        lo = min(max(-first, 0), k)
        return lo, max(min(H - first, k), lo)

    for (lo, hi), group in itertools.groupby(range(tiles.TH), inside):
        rows = list(group)
        yield slice(rows[0], rows[-1] + 1), lo, hi
