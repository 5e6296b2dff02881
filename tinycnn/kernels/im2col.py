"""im2col and its adjoint col2im: a convolution becomes a matrix product.

**Idea.**  Copy the patch that the window sees at each of its positions into one row of a matrix.  The dot
product of a row with a flattened filter is then one output cell, and the whole convolution is
``cols @ w``, work that BLAS does near the machine's peak.

=========  ==========================================================================
N, C       images, channels
H, W       height and width of the input
KH, KW     height and width of the window;  SH, SW its stride;  DH, DW its dilation
PT, PL     rows and columns of zeros above and left of the image
OH, OW     positions of the window, down and across
=========  ==========================================================================

**im2col** is a gather, with zeros outside the image::

    cols[(n, oh, ow), (kh, kw, c)] = x[n, c, SH·oh + DH·kh − PT, SW·ow + DW·kw − PL]

Every entry of ``cols`` is a copy of one entry of ``x`` (or of padding), so im2col is a linear map A whose
matrix holds one 1 per row.

**col2im** is its adjoint Aᵀ, *not* its inverse: each pixel collects the sum over all places it was copied to::

    x[n, c, h, w] = Σ cols[(n, oh, ow), (kh, kw, c)]   over all (oh, ow, kh, kw) that read (h, w)

That is just what the chain rule asks for: a pixel that took part in several patches gets the gradients of
all of them.  ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ holds exactly on integers, and a test says so.

**Cost.**  ``cols`` is KH·KW/(SH·SW) times as large as ``x``, which is why the layers never form it for a whole
batch, but slice by slice in memory that stays in cache (`tinycnn.parallel`).

**Layout.**  On channels-last memory a row of a window is one contiguous run of KW·C numbers, so the copy moves
runs and not single numbers.  Hence the order (kh, kw, c) of the columns; PyTorch's ``unfold`` has (c, kh, kw).

Source: Chellapilla, Puri & Simard 2006, "High performance convolutional neural networks for document processing".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from .cuda import twin
from .window import Window, pad, positions

Size: TypeAlias = int | Sequence[int]


def _window(kernel_size: Size, stride: Size, padding: Size, dilation: Size) -> Window:
    def both(v: Size) -> tuple[int, int]:
        return (int(v), int(v)) if isinstance(v, int | np.integer) else (int(v[0]), int(v[1]))

    PH, PW = both(padding)
    return Window(both(kernel_size), both(stride), ((PH, PH), (PW, PW)), both(dilation))


def im2col(
    x: Array,
    kernel_size: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> Array:
    """Copy every patch of ``x`` into a row of a matrix (module docstring).

    Args:
        x: (N, C, H, W).
        kernel_size, stride, padding, dilation: an int or (height, width).

    Returns:
        (N·OH·OW, KH·KW·C), of the dtype of ``x``.

    Raises:
        ValueError: sizes out of range, or a window that does not fit into the padded image.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> im2col(x, 2)
    array([[0., 1., 3., 4.],
           [1., 2., 4., 5.],
           [3., 4., 6., 7.],
           [4., 5., 7., 8.]])
    """
    window = _window(kernel_size, stride, padding, dilation)
    if min(window.out_size(*x.shape[2:])) < 1:
        raise ValueError(f"the window does not fit into the padded image of shape {tuple(x.shape)}: {window}")
    # (N, C, H, W) -> (N, H, W, C), contiguous
    x = array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1))
    return gather(x, window)


@twin("im2col")
def gather(x: Array, window: Window, G: int = 1) -> Array:
    """Return the patches of ``x`` (N, H, W, C), its channels in G groups, as rows (N·OH·OW, G·KH·KW·C/G)."""
    N, H, W, C = x.shape
    OH, OW = window.out_size(H, W)
    patches = positions(pad(x, window), window, OH, OW)
    # (N, OH, OW, KH, KW, C) -> (N, OH, OW, KH, KW, G, C/G) -> (N, OH, OW, G, KH, KW, C/G)
    by_group = patches.reshape(*patches.shape[:5], G, C // G).transpose(0, 1, 2, 5, 3, 4, 6)
    # (N, OH, OW, G, KH, KW, C/G) -> (N·OH·OW, G·KH·KW·C/G)
    return array_module(x).array(by_group, order="C").reshape(N * OH * OW, math.prod(window.kernel) * C)


@twin("im2col")
def scatter(cols: Array, window: Window, shape: tuple[int, ...], G: int = 1) -> Array:
    """Return x (N, H, W, C) of ``shape``, each pixel the sum of all its places in ``cols``: the adjoint of `gather`."""
    N, H, W, C = shape
    OH, OW = window.out_size(H, W)
    # (N·OH·OW, G·KH·KW·C/G) -> (N, OH, OW, G, KH, KW, C/G)
    patches = cols.reshape(N, OH, OW, G, *window.kernel, C // G)
    padded = array_module(cols).zeros((N, *window.padded_size(H, W), G, C // G), cols.dtype)
    for kh, kw, rows, columns in window.taps(OH, OW):
        padded[:, rows, columns] += patches[:, :, :, :, kh, kw]
    return padded[window.interior(H, W)].reshape(shape)  # (N, H, W, G, C/G) -> (N, H, W, C)


def im2col_naive(
    x: Array,
    kernel_size: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> np.ndarray:
    """The definition of `im2col`, loop by loop: the version to read first.

    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> bool((im2col_naive(x, 2) == im2col(x, 2)).all())
    True
    """
    window = _window(kernel_size, stride, padding, dilation)
    (KH, KW), (SH, SW), (DH, DW) = window.kernel, window.stride, window.dilation
    (PT, _), (PL, _) = window.padding
    N, C, H, W = x.shape
    OH, OW = window.out_size(H, W)
    cols = np.zeros((N, OH, OW, KH, KW, C), x.dtype)
    for n in range(N):
        for oh in range(OH):
            for ow in range(OW):
                for kh in range(KH):
                    for kw in range(KW):
                        h, w = SH * oh + DH * kh - PT, SW * ow + DW * kw - PL
                        if 0 <= h < H and 0 <= w < W:
                            cols[n, oh, ow, kh, kw] = x[n, :, h, w]
    return cols.reshape(N * OH * OW, KH * KW * C)


def col2im(
    cols: Array,
    shape: tuple[int, int, int, int],
    kernel_size: Size,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
) -> Array:
    """Add every row of ``cols`` back to the pixels it came from: the adjoint of `im2col`.

    Args:
        cols: (N·OH·OW, KH·KW·C).
        shape: (N, C, H, W) of the result.
        kernel_size, stride, padding, dilation: as given to `im2col`.

    >>> col2im(im2col(np.ones((1, 1, 3, 3)), 2), (1, 1, 3, 3), 2)[0, 0]  # how often each pixel was copied
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]])
    """
    N, C, H, W = shape
    window = _window(kernel_size, stride, padding, dilation)
    return scatter(cols, window, (N, H, W, C)).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
