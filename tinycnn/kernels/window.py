"""The geometry of a sliding window: what convolution, pooling and im2col have in common."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from ..backend import Array, array_module
from ..parallel import scratch

Index: TypeAlias = tuple[slice, slice, slice]
"""Index of an (n, H, W, C) array."""


@dataclass(frozen=True)
class Window:
    """A KH×KW window that slides over a padded image.

    Attributes:
        kernel: (KH, KW).
        stride: (SH, SW), step from one position to the next.
        padding: ((top, bottom), (left, right)), rows and columns added around the image.
        dilation: (DH, DW), distance between neighbouring cells of the window.

    Raises:
        ValueError: kernel, stride or dilation below 1, or negative padding.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    dilation: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        smallest = min(*self.kernel, *self.stride, *self.dilation)
        if smallest < 1 or min(*self.padding[0], *self.padding[1]) < 0:
            raise ValueError(f"kernel, stride and dilation must be at least 1 and padding at least 0, got {self}")

    def out_size(self, H: int, W: int) -> tuple[int, int]:
        """Return (OH, OW), the number of positions: ⌊(H + pads − D·(K − 1) − 1)/S⌋ + 1, at least 0."""
        OH, OW = (
            max((size + sum(pad) - d * (k - 1) - 1) // s + 1, 0)
            for size, k, s, pad, d in zip((H, W), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        return OH, OW

    def padded_size(self, H: int, W: int) -> tuple[int, int]:
        """Return (H, W) with the padding added."""
        return H + sum(self.padding[0]), W + sum(self.padding[1])

    @property
    def is_padded(self) -> bool:
        """Whether any side has padding."""
        return any(map(any, self.padding))

    @property
    def is_pointwise(self) -> bool:
        """Whether every output cell sees just the input cell at its own place (1×1, stride 1, no padding)."""
        return self.kernel == (1, 1) and self.stride == (1, 1) and not self.is_padded

    @property
    def is_disjoint(self) -> bool:
        """Whether no pixel is seen from two positions, because the steps are as long as the window."""
        steps = zip(self.stride, self.kernel, self.dilation, strict=True)
        return all(s > d * (k - 1) for s, k, d in steps)

    def taps(self, OH: int, OW: int) -> Iterator[tuple[int, int, slice, slice]]:
        """(kh, kw, rows, columns) of every cell of the window, row by row.

        ``padded[:, rows, columns]`` are the cells that the window's cell (kh, kw) meets over all OH·OW positions.
        """
        (KH, KW), (SH, SW), (DH, DW) = self.kernel, self.stride, self.dilation
        for kh in range(KH):
            for kw in range(KW):
                rows = slice(kh * DH, kh * DH + SH * (OH - 1) + 1, SH)
                columns = slice(kw * DW, kw * DW + SW * (OW - 1) + 1, SW)
                yield kh, kw, rows, columns

    def visits(self, H: int, W: int) -> Iterator[tuple[Index, Index]]:
        """(pixels, positions) of every cell of the window, row by row, with the padding left out.

        A cell lies within the (n, H, W, C) image at some of the OH·OW positions only.  There, ``y[positions]``
        meets ``x[pixels]``; so a padded image need never be built.
        """
        sides = zip((H, W), self.out_size(H, W), self.kernel, self.stride, self.padding, self.dilation, strict=True)
        rows, columns = ([_inside(k * d - p, s, size, out) for k in range(K)] for size, out, K, s, (p, _), d in sides)
        for (h, oh), (w, ow) in itertools.product(rows, columns):
            yield (slice(None), h, w), (slice(None), oh, ow)

    def ceiled(self, H: int, W: int) -> Window:
        """Return the window that also visits the rows and columns which rounding down would leave out.

        It has more padding below and to the right of the image.  A position that starts in that padding, or
        in the window's own, is dropped, as in PyTorch's ``ceil_mode``.
        """

        def end(size: int, k: int, s: int, d: int, pads: tuple[int, int]) -> int:
            reach = d * (k - 1) + 1
            last = -(-(size + sum(pads) - reach) // s)  # index of the last position, rounded up
            if last * s >= size + pads[0]:
                last -= 1
            return max(pads[1], last * s + reach - size - pads[0])

        bottom, right = map(end, (H, W), self.kernel, self.stride, self.dilation, self.padding)
        (top, _), (left, _) = self.padding
        return dataclasses.replace(self, padding=((top, bottom), (left, right)))

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (small and few)
    def band(self, start: int, stop: int, H: int) -> tuple[slice, Window]:
        """Return which of H rows of an image positions in rows ``start`` to ``stop`` see, and the window there.

        On those rows alone it has padding above or below only where the image ends.
        """
        (top, _), (KH, SH, DH) = self.padding[0], (self.kernel[0], self.stride[0], self.dilation[0])
        first = start * SH - top
        end = (stop - 1) * SH - top + DH * (KH - 1) + 1
        lo = min(max(first, 0), H)
        hi = max(min(end, H), lo)
        above = lo - first if hi > lo else end - first
        below = end - first - above - (hi - lo)
        return slice(lo, hi), dataclasses.replace(self, padding=((above, below), self.padding[1]))

    def interior(self, H: int, W: int) -> Index:
        """Return the index of the image itself within its padded (n, H + pads, W + pads, C) version."""
        top, left = self.padding[0][0], self.padding[1][0]
        return slice(None), slice(top, top + H), slice(left, left + W)


def _inside(offset: int, stride: int, size: int, out: int) -> tuple[slice, slice]:
    """Return the pixels offset + stride·o, o in ``range(out)``, that lie in ``range(size)``, and those o."""
    first = max(-(offset // stride), 0)
    end = max(min((size - 1 - offset) // stride + 1, out), first)
    start = min(offset + stride * first, size)
    return slice(start, start + stride * (end - first), stride), slice(first, end)


def pad(x: Array, window: Window, value: float = 0.0, name: str = "padded") -> Array:
    """Return ``x`` (n, H, W, C) with the window's padding around it, in this thread's scratch ``name``."""
    if not window.is_padded:
        return x
    n, H, W, C = x.shape
    out = scratch(name, (n, *window.padded_size(H, W), C), x.dtype, like=x)
    (top, bottom), (left, right) = window.padding
    out[:, :top], out[:, top + H : top + H + bottom] = value, value
    out[:, :, :left], out[:, :, left + W : left + W + right] = value, value
    out[window.interior(H, W)] = x
    return out


def positions(x: Array, window: Window, OH: int, OW: int) -> Array:
    """Return the view (n, OH, OW, KH, KW, C) of a padded ``x`` (n, H, W, C): the window at every position."""
    n, _, _, C = x.shape
    sn, sh, sw, sc = x.strides
    (KH, KW), (SH, SW), (DH, DW) = window.kernel, window.stride, window.dilation
    return array_module(x).lib.stride_tricks.as_strided(
        x, (n, OH, OW, KH, KW, C), (sn, SH * sh, SW * sw, DH * sh, DW * sw, sc)
    )
