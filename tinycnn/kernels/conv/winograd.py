"""Winograd's minimal filtering: 3×3 convolutions with 2.25 or 4 times fewer multiplications.

A tile of m×m outputs needs (m+2)×(m+2) inputs d.  With the three small matrices of the Toom-Cook algorithm::

    Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ d B) ] A

and summed over channels, the product ⊙ of all tiles is (m+2)² matrix products (T×C)·(C×OC).  Everything is
linear, so backward is the adjoint of every step, in reverse.

Source: Lavin & Gray 2016, "Fast algorithms for convolutional neural networks".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...backend import Array, array_module, is_device_array
from ...parallel import each_slice, scratch, slice_batch, sum_slices
from ..window import Window

BAND_BYTES = 1 << 20
SLICE_BYTES = 2 << 20


class Matrices(NamedTuple):
    """A, B and G of one F(m×m, 3×3)."""

    A: np.ndarray
    B: np.ndarray
    G: np.ndarray


@functools.cache
def matrices(m: int) -> Matrices:
    """Return A (m+2, m), B (m+2, m+2) and G (m+2, 3) in float64."""
    points = {2: (0, 1, -1), 4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}[m]
    last = np.eye(m + 2)[-1:]
    A = np.concatenate([np.vander(points, m, increasing=True), last[:, 2:]])
    rest = [np.poly([q for q in points if q != p])[::-1] for p in points]
    B = np.stack([*(np.append(r, 0) for r in rest), np.poly(points)[::-1]], axis=1)
    scale = [1 / np.polyval(r[::-1], p) for p, r in zip(points, rest, strict=True)]
    G = np.concatenate([np.vander(points, 3, increasing=True) * np.array(scale)[:, None], last[:, -3:]])
    return Matrices(A, B, G)


class Tiles(NamedTuple):
    """Where tiles lie: TH×TW to an image, ``step`` pixels apart, the first one at (−top, −left)."""

    TH: int
    TW: int
    step: int
    top: int
    left: int


def to_points(x: Array, K: Array, tiles: Tiles, V: Array) -> None:
    """V = K d Kᵀ of every tile d of x."""
    xp = array_module(x)
    n, C = len(x), x.shape[3]
    t, k = K.shape
    m, TW = tiles.step, tiles.TW
    L = (m * TW + k - m) * C
    V = V.reshape(t, t, n, tiles.TH, TW, C)
    for s, a, b in blocks(n, tiles.TH, t * L * x.dtype.itemsize, x):
        padded = take(x[s], tiles, a, b, k - m)
        g, B = len(padded), b - a
        z = scratch("winograd rows", (t, g, B, L), x.dtype, like=x)
        xp.matmul(K, windows(padded.reshape(g, -1, L), B, k, m), out=z.transpose(1, 2, 0, 3))
        z = z.reshape(t, g, B, -1, C)
        xp.matmul(K, windows(z, TW, k, m), out=V[:, :, s, a:b].transpose(0, 2, 3, 4, 1, 5))


def windows(x: Array, count: int, k: int, m: int) -> Array:
    """(..., R, L) -> (..., count, k, L)."""
    *outer, _, L = x.shape
    *so, sr, sl = x.strides
    return array_module(x).lib.stride_tricks.as_strided(x, (*outer, count, k, L), (*so, m * sr, sr, sl))


def take(x: Array, tiles: Tiles, a: int, b: int, overlap: int) -> Array:
    """Return the pixels of the tile rows a to b with zeros around them: (n, R, Wp, C)."""
    n, H, W, C = x.shape
    m = tiles.step
    R, Wp = m * (b - a) + overlap, m * tiles.TW + overlap
    first = m * a - tiles.top
    if first >= 0 and first + R <= H and tiles.left == 0 and Wp == W and x.flags.c_contiguous and n == 1:
        return x[:, first : first + R]
    padded = scratch("winograd padded", (n, R, Wp, C), x.dtype, like=x)
    rows, inr = clip(first, H, R)
    cols, inc = clip(-tiles.left, W, Wp)
    padded[:, : inr.start] = 0
    padded[:, inr.stop :] = 0
    padded[:, inr, : inc.start] = 0
    padded[:, inr, inc.stop :] = 0
    padded[:, inr, inc] = x[:, rows, cols]
    return padded


def clip(first: int, size: int, count: int) -> tuple[slice, slice]:
    """Return which of ``count`` places from ``first`` on lie in ``range(size)``, and where among them."""
    start = min(max(first, 0), size)
    end = max(min(first + count, size), start)
    at = min(max(start - first, 0), count)
    return slice(start, end), slice(at, at + end - start)


def from_points(M: Array, K: Array, tiles: Tiles, y: Array) -> None:
    """y = Σ K M Kᵀ over tiles, where they overlap."""
    xp = array_module(y)
    n, H, W, C = y.shape
    k, t = K.shape
    m, TW, overlap = tiles.step, tiles.TW, k - tiles.step
    M = M.reshape(t, t, n, tiles.TH, TW, C)
    Wp = m * TW + overlap
    full = m * TW + (m if overlap else 0)
    for s, a, b in blocks(n, tiles.TH, t * Wp * C * y.dtype.itemsize, y):
        g, B = len(y[s]), b - a
        band = M[:, :, s, a:b].transpose(0, 2, 3, 4, 1, 5)
        z = scratch("winograd rows", (t, g, B, full, C), y.dtype, like=y)
        overlap_add(K, band, m, z, "winograd tail")
        L = Wp * C
        zrows = z.reshape(t, g, B, full * C)[..., :L].transpose(1, 2, 0, 3)
        first = m * a - tiles.top
        R = m * B + overlap
        if not overlap and Wp == W and first + R <= H and y.flags.c_contiguous:
            xp.matmul(K, zrows, out=y[s, first : first + R].reshape(g, B, m, L))
            continue
        out = scratch("winograd padded", (g, m * (B + 1) if overlap else m * B, L), y.dtype, like=y)
        overlap_add(K, zrows, m, out, "winograd tail")
        if overlap:
            carry = scratch("winograd carry", (g, overlap, L), y.dtype, like=y)
            if a:
                out[:, :overlap] += carry
            carry[...] = out[:, m * B : R]
        if b < tiles.TH:
            R = m * B
        rows, inr = clip(first, H, R)
        cols, inc = clip(-tiles.left, W, Wp)
        y[s, rows, cols] = out.reshape(g, -1, Wp, C)[:, inr, inc]


def overlap_add(K: Array, M: Array, m: int, y: Array, name: str) -> None:
    """y (..., m·(B + 1), L) from M (..., B, t, L)."""
    xp = array_module(y)
    *outer, B, _t, L = M.shape
    k = len(K)
    body = y[..., : m * B, :].reshape(*outer, B, m, L)
    xp.matmul(K[:m], M, out=body)
    if k > m:
        y[..., m * B :, :] = 0
        tail = scratch(name, (*outer, B, k - m, L), y.dtype, like=y)
        xp.matmul(K[m:], M, out=tail)
        y[..., m:, :].reshape(*outer, B, m, L)[..., : k - m, :] += tail


def blocks(n: int, TH: int, row_bytes: int, like: Array) -> Iterator[tuple[slice, int, int]]:
    """Cut n images of TH tile rows into blocks of about `BAND_BYTES`."""
    if is_device_array(like):
        yield slice(0, n), 0, TH
    elif TH * row_bytes > BAND_BYTES:
        count = min(TH, -(-TH * row_bytes // BAND_BYTES))
        for i in range(n):
            for j in range(count):
                yield slice(i, i + 1), j * TH // count, (j + 1) * TH // count
    else:
        count = -(-n * TH * row_bytes // BAND_BYTES)
        for i in range(count):
            yield slice(i * n // count, (i + 1) * n // count), 0, TH


def kernel_points(w: Array, m: int, U: Array) -> Array:
    """U = G w Gᵀ: w (oc, 3, 3, C) -> U (t·t, oc, C)."""
    xp = array_module(w)
    oc, _, _, C = w.shape
    xp.matmul(kron(m, w), w.reshape(oc, 9, C), out=U.transpose(1, 0, 2))
    return U


def kron(m: int, like: Array) -> Array:
    """Return G ⊗ G, (t², 9)."""
    G = matrices(m).G
    return array_module(like).asarray(np.kron(G, G).astype(like.dtype))


def small(m: int, like: Array) -> tuple[Array, Array]:
    """Return A and B."""
    A, B, _ = matrices(m)
    xp = array_module(like)
    return xp.asarray(A.astype(like.dtype)), xp.asarray(B.astype(like.dtype))


def plan(x_shape: tuple[int, ...], window: Window, m: int) -> tuple[Tiles, Tiles, tuple[int, int]]:
    """Return the tiles of x, those of y, and (OH, OW)."""
    _N, H, W, _C = x_shape
    OH, OW = window.out_size(H, W)
    TH, TW = -(-OH // m), -(-OW // m)
    (top, _), (left, _) = window.padding
    return Tiles(TH, TW, m, top, left), Tiles(TH, TW, m, 0, 0), (OH, OW)


def forward(x: Array, w: Array, b: Array | None, window: Window, m: int) -> Array:
    """Return y (N, OH, OW, OC)."""
    xp = array_module(x)
    N, _H, _W, C = x.shape
    OC = len(w)
    inputs, outputs, (OH, OW) = plan(x.shape, window, m)
    A, B = small(m, x)
    P, T1 = (m + 2) ** 2, inputs.TH * inputs.TW
    y = xp.empty((N, OH, OW, OC), x.dtype)
    size = x.dtype.itemsize

    if N * T1 < OC * C // (C + OC):
        V = xp.empty((P, N * T1, C), x.dtype)
        item = P * T1 * C * size

        def transform(s: slice) -> None:
            to_points(x[s], B.T, inputs, V[:, s.start * T1 : s.stop * T1])

        each_slice(transform, x, item)

        def filters(s: slice) -> None:
            oc = len(w[s])
            U = kernel_points(w[s], m, scratch("winograd filters", (P, oc, C), x.dtype, like=x))
            M = scratch("winograd products", (P, N * T1, oc), x.dtype, like=x)
            xp.matmul(V, U.transpose(0, 2, 1), out=M)
            for s2 in [slice(0, N)] if is_device_array(x) else slice_batch(N, item):
                from_points(M[:, s2.start * T1 : s2.stop * T1], A.T, outputs, y[s2][..., s])
            if b is not None:
                y[..., s] += b[s]

        each_slice(filters, w, P * C * size)
        return y

    U = kernel_points(w, m, xp.empty((P, OC, C), x.dtype))
    Ut = xp.ascontiguousarray(U.transpose(0, 2, 1))

    def images(s: slice) -> None:
        T = len(x[s]) * T1
        V = scratch("winograd V", (P, T, C), x.dtype, like=x)
        M = scratch("winograd M", (P, T, OC), x.dtype, like=x)
        to_points(x[s], B.T, inputs, V)
        xp.matmul(V, Ut, out=M)
        from_points(M, A.T, outputs, y[s])
        if b is not None:
            y[s] += b

    each_slice(images, x, P * T1 * (C + OC) * size)
    return y


def backward(
    dy: Array, x: Array, w: Array, window: Window, m: int, need_dx: bool = True, need_dw: bool = True
) -> tuple[Array | None, Array | None]:
    """Return dx and dw."""
    xp = array_module(x)
    N, _H, _W, C = x.shape
    OC = len(w)
    inputs, outputs, _ = plan(x.shape, window, m)
    A, B = small(m, x)
    P, T1 = (m + 2) ** 2, inputs.TH * inputs.TW
    size = x.dtype.itemsize
    dx = xp.empty(x.shape, x.dtype) if need_dx else None
    GG = kron(m, x)

    if N * T1 < OC * C // (C + OC):
        dM = xp.empty((P, N * T1, OC), x.dtype)
        dw = xp.empty(w.shape, w.dtype) if need_dw else None
        item = P * T1 * C * size

        def transform(s: slice) -> None:
            to_points(dy[s], A, outputs, dM[:, s.start * T1 : s.stop * T1])

        each_slice(transform, dy, item)

        def channels(c: slice) -> None:
            nc = c.stop - c.start
            U = scratch("winograd filters", (P, OC, nc), x.dtype, like=x)
            V = scratch("winograd products", (P, N * T1, nc), x.dtype, like=x)
            groups = [slice(0, N)] if is_device_array(x) else slice_batch(N, item)
            if dx is not None:
                xp.matmul(GG, w[..., c].reshape(OC, 9, nc), out=U.transpose(1, 0, 2))
                xp.matmul(dM, U, out=V)
                for s in groups:
                    from_points(V[:, s.start * T1 : s.stop * T1], B, inputs, dx[s][..., c])
            if dw is not None:
                for s in groups:
                    to_points(x[s][..., c], B.T, inputs, V[:, s.start * T1 : s.stop * T1])
                xp.matmul(dM.transpose(0, 2, 1), V, out=U)
                xp.matmul(GG.T, U.transpose(1, 0, 2), out=dw.reshape(OC, 9, C)[..., c])

        each_slice(channels, w.transpose(3, 0, 1, 2), P * OC * size)
        return dx, dw

    U = kernel_points(w, m, xp.empty((P, OC, C), x.dtype)) if need_dx else None

    def images(s: slice) -> tuple[Array, ...]:
        T = len(x[s]) * T1
        dM = scratch("winograd M", (P, T, OC), x.dtype, like=x)
        V = scratch("winograd V", (P, T, C), x.dtype, like=x)
        to_points(dy[s], A, outputs, dM)
        if dx is not None:
            xp.matmul(dM, U, out=V)
            from_points(V, B, inputs, dx[s])
        if not need_dw:
            return ()
        to_points(x[s], B.T, inputs, V)
        dU = scratch("winograd dU", (P, OC, C), x.dtype, like=x)
        xp.matmul(dM.transpose(0, 2, 1), V, out=dU)
        dw = scratch("winograd dw", (OC, 9, C), x.dtype, like=x)
        xp.matmul(GG.T, dU.transpose(1, 0, 2), out=dw)
        return (dw,)

    sums = sum_slices(images, x, P * T1 * (C + OC) * size)
    return dx, sums[0].reshape(w.shape) if need_dw else None
