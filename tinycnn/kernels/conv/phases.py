"""The backward of a convolution, as convolutions: one for each phase of the stride.

**Idea.**  Along one axis, a convolution of stride S, dilation D and padding P reads for output o the pixels
h = S·o + D·k − P.  Turn the question round: which outputs read pixel h?  Those with::

    o = (h + P − D·k) / S,   over all k for which that is a whole number.

Pixels whose h + P leaves the same remainder on division by S meet the same cells k of the filter, as D·k must leave
that remainder too: they are one *phase*.  With g = gcd(D, S), its cells are k₀, k₀ + S/g, k₀ + 2·S/g, … (or none, if g
does not divide the remainder), and the i-th of them belongs to::

    o = (h + P − D·k₀)/S − (D/g)·i

From one pixel of the phase to the next, h grows by S and o by 1; from one cell to the next, o falls by D/g.  Within a
phase dx is therefore an ordinary convolution of dy, of stride 1 and dilation D/g, with every (S/g)-th cell of the
filter, in reversed order.  With S = 1 there is one phase: dx is the convolution of dy with the flipped filter.
Nothing is multiplied by the zeros that a stride leaves between outputs.

**Backward.**  Let cols' be the patches (or strips) of dy that a phase reads, and e' its matrix (`patches`)::

    dx = cols' e'                                                                     (1)

The adjoint pairs dx with x as the forward pairs dy with y: ⟨dy, A x⟩ = ⟨Aᵀ dy, x⟩ = ⟨cols' e', x⟩.  The gradient of
that number with respect to the filters is dw, so *one* gather of dy serves both::

    de' = cols'ᵀ x                                                                    (2)

Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic for deep learning", chapter 4, for dx.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeAlias

from ...backend import Array, array_module
from ...parallel import scratch, sum_slices
from ..window import Window, pad
from .patches import Reach, Strips, cut

Border: TypeAlias = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Phase:
    """One phase along one axis.

    Attributes:
        pixels: the pixels of x in it.
        cells: the cells of the filter that they meet, in the order in which ``reach`` meets outputs; there may be none.
        reach: the outputs that they meet; outside the image dy counts as 0.
    """

    pixels: slice
    cells: slice
    reach: Reach


def phases(size: int, taps: int, stride: int, before: int, dilation: int) -> list[Phase]:
    """Return the phases along an axis of ``size`` pixels with ``before`` of padding (module docstring)."""
    g = math.gcd(dilation, stride)
    step = stride // g
    found = []
    for first in range(min(stride, size)):
        pixels = range(first, size, stride)
        k0 = next((k for k in range(min(step, taps)) if (first + before - dilation * k) % stride == 0), taps)
        cells = range(k0, taps, step)[::-1]
        lowest = (first + before - dilation * cells[0]) // stride if cells else 0
        reach = Reach(lowest, len(pixels), 1, len(cells), dilation // g)
        found.append(Phase(_as_slice(pixels), _as_slice(cells), reach))
    return found


def _as_slice(r: range) -> slice:
    return slice(r.start, r.stop if r.stop >= 0 else None, r.step) if r else slice(0, 0)


@dataclass(frozen=True)
class Part:
    """One phase down and one across, the strips of padded dy that they meet, and the matrix e'."""

    down: Phase
    across: Phase
    strips: Strips
    e: Array


def backward(
    dy: Array,
    x: Array | None,
    x_shape: tuple[int, ...],
    w: Array,
    window: Window,
    G: int = 1,
    strips: bool = False,
    out: Array | None = None,
) -> tuple[Array, Array | None]:
    """Return dx (N, H, W, C), equation (1), and dw (OC, KH, KW, C/G), equation (2).

    dw is written to ``out`` if that is given, and is None if ``x`` is.
    """
    plans, border = plan(tuple(x_shape), len(w), window, G, strips)
    parts = [Part(*p, expand_transposed(w[:, p[0].cells, p[1].cells], p[2])) for p in plans]
    dx = array_module(dy).empty(x_shape, dy.dtype)

    def one_slice(s: slice) -> tuple[Array, ...]:
        padded = pad(dy[s], Window((1, 1), padding=border))
        own_x = None if x is None else x[s]
        sums = [_one_part(part, padded, dx[s], own_x, f"products{i}") for i, part in enumerate(parts)]
        return () if x is None else tuple(sums)

    item_bytes = max(p.strips.item_bytes(dy.shape[3], x_shape[3], dy.itemsize) for p in parts)
    sums = sum_slices(one_slice, dy, item_bytes, w.nbytes)
    if x is None:
        return dx, None
    dw = array_module(w).empty_like(w) if out is None else out
    dw.fill(0)  # cells that no pixel meets have no part
    for part, de in zip(parts, sums, strict=True):
        if de.size:
            fold_transposed(de, dw[:, part.down.cells, part.across.cells], part.strips)
    return dx, dw


def _one_part(part: Part, padded: Array, dx: Array, x: Array | None, name: str) -> Array:
    """Write the pixels of one phase into ``dx``; return its de', unless there is no ``x``."""
    strips, every_pixel = part.strips, (part.down.pixels.step, part.across.pixels.step) == (1, 1)
    pixels = (slice(None), part.down.pixels, part.across.pixels)
    if not part.e.size:
        dx[pixels] = 0
        return part.e
    cols = strips.gather(padded)
    own = dx if every_pixel else scratch("phase", dx[pixels].shape, dx.dtype, like=dx)
    strips.multiply(cols, part.e, own)
    if not every_pixel:
        dx[pixels] = own
    if x is None:
        return part.e
    if not every_pixel:
        own[...] = x[pixels]
    return strips.products(cols, x if every_pixel else own, name)


@lru_cache(maxsize=4096)
def plan(
    x_shape: tuple[int, ...], OC: int, window: Window, G: int, strips: bool
) -> tuple[list[tuple[Phase, Phase, Strips]], Border]:
    """Return (phase down, phase across, strips of padded dy that they meet), of all of them, and the border of dy."""
    C, out_size = x_shape[3], window.out_size(*x_shape[1:3])
    down, across = (
        phases(size, taps, stride, before, dilation)
        for size, taps, stride, (before, _), dilation in zip(
            x_shape[1:3], window.kernel, window.stride, window.padding, window.dilation, strict=True
        )
    )
    (above, _), (left, _) = border = _overhang(down, out_size[0]), _overhang(across, out_size[1])
    parts = []
    for r, c in itertools.product(down, across):
        rows, columns = replace(r.reach, start=r.reach.start + above), replace(c.reach, start=c.reach.start + left)
        how = cut(rows, columns, G, strips, lambda how: how.gather_time(OC) + 2 * how.product_time(OC, C))
        parts.append((r, c, how))
    return parts, border


def _overhang(axis: list[Phase], size: int) -> tuple[int, int]:
    """Return how far the phases reach out of the outputs, before the first and past the last."""
    return max(0, *(-p.reach.start for p in axis)), max(0, *(p.reach.end - size for p in axis))


def _by_group(w: Array, G: int) -> Array:
    """Return the view (G, C/G, KH, KW, OC/G) of filters (OC, KH, KW, C/G): input and output channels exchanged."""
    OC, KH, KW, CG = w.shape
    # the first axis alone is split, which takes no copy
    return w.reshape(G, OC // G, KH, KW, CG).transpose(0, 4, 2, 3, 1)


def expand_transposed(w: Array, how: Strips) -> Array:
    """Return e' (G, K', B·C/G) from the filters (OC, KH, KW, C/G) that a phase meets."""
    if not w.size:
        return w
    if how.G == 1:
        return how.expand(w.transpose(3, 1, 2, 0))  # (OC, KH, KW, C) -> (C, KH, KW, OC)
    by_group = _by_group(w, how.G)
    # (G, C/G, KH, KW, OC/G) -> (C, KH, KW, OC/G)
    return how.expand(by_group.reshape(-1, *by_group.shape[2:]))


def fold_transposed(de: Array, dw: Array, how: Strips) -> None:
    """Write the adjoint of `expand_transposed` into ``dw`` (OC, KH, KW, C/G), a view."""
    if how.G == 1:
        return how.fold(de, dw.transpose(3, 1, 2, 0))  # (OC, KH, KW, C) -> (C, KH, KW, OC)
    OC, KH, KW, CG = dw.shape
    # (G, K', C/G) -> (G, KH, KW, OC/G, C/G) -> (G, OC/G, KH, KW, C/G) -> (OC, KH, KW, C/G)
    dw[...] = de.reshape(how.G, KH, KW, OC // how.G, CG).transpose(0, 3, 1, 2, 4).reshape(dw.shape)
