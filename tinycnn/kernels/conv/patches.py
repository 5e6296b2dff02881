"""Convolution as one matrix product: patches, and strips of patches.

**Patches (im2col).**  The patch that the window sees at a position, flattened, is a row of a matrix ``cols``; the
filters, flattened, are the columns of another; their product is the output (`tinycnn.kernels.im2col` has the story)::

    y = cols e,    cols (M, K),  e (K, OC),    K = KH·KW·C,  M = n·OH·OW              (1)

**Strips.**  Neighbouring patches overlap: of a 3×3 patch, two thirds are in the next one again.  So let one row of
cols hold all that the window sees at B neighbouring positions, U = (B − 1)·S + D·(KW − 1) + 1 columns of pixels in
place of B·KW, and let e hold every filter B times, each S pixels further on, with zeros around it::

    e[(kh, u, c), (j, o)] = w[o, kh, kw, c]  if u = S·j + D·kw for some kw, else 0      (a banded Toeplitz matrix)

cols shrinks to a share U/(B·KW) and is copied in longer runs; the product is B times as wide, which BLAS likes where
OC is small; but it has U/KW times as many multiplications, the rest of them with zeros.  That pays where channels are
few: in the first layers of a network.  (0·∞ is NaN: where a pixel is not finite, its B neighbours are not either.)

**Gradient of the filters.**  y is linear in e, and e holds copies of w: each w collects from all its places (`fold`)::

    de = colsᵀ dy                                                                     (2)

**Cost** of a row of cols: K numbers copied, in KH runs; 2·K·B·OC FLOP (`cost`).  **Error**: that of sums of K products,
some √K·2⁻²⁴ relative to Σ|w·x| in float32.

Arrays are (n, H, W, C), filters (OC, KH, KW, C/G) with G groups, all C-contiguous.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace

from ...backend import Array, array_module
from ...parallel import SLICE_BYTES, each_band, each_slice, scratch, sum_slices
from .. import gemm
from ..window import Window, pad
from .cost import add_time, copy_time, product_time
from .finish import Finish

FEW = 2
"""Filters are cut into parts that take so many times more than a slice otherwise, as each needs all patches."""
LARGE = 1 << 17
"""Filters of more numbers than this are not worth transposing: their products are too large to gain from it."""


@dataclass(frozen=True)
class Reach:
    """Which pixels a window sees along one axis: at position i, start + step·i + dilation·k for k in range(taps)."""

    start: int
    count: int
    step: int
    taps: int
    dilation: int

    @property
    def end(self) -> int:
        """One past the last pixel seen."""
        return self.start + self.step * (self.count - 1) + self.dilation * (self.taps - 1) + 1

    def part(self, first: int, end: int) -> Reach:
        """Return what positions ``first`` to ``end`` see."""
        return replace(self, start=self.start + self.step * first, count=end - first)


@dataclass(frozen=True)
class Strips:
    """How a convolution is cut into strips: of ``B`` neighbouring positions of the window, in ``G`` groups of channels.

    ``rows`` and ``columns`` say what the window reaches, in an image padded so that nothing lies outside.
    """

    rows: Reach
    columns: Reach
    B: int
    G: int

    @property
    def width(self) -> int:
        """U, the columns of pixels in a strip; where it holds one patch, without those that dilation skips."""
        across = self.columns
        return (self.B - 1) * across.step + across.dilation * (across.taps - 1) + 1 if self.B > 1 else across.taps

    def places(self, image: Array) -> Array:
        """Return the view (G, n, OH, OW/B, KH, U, C/G) of an ``image`` (n, H, W, C): where every strip lies in it."""
        (n, _, _, C), (sn, sh, sw, sc) = image.shape, image.strides
        rows, columns, G = self.rows, self.columns, self.G
        shape = (G, n, rows.count, columns.count // self.B, rows.taps, self.width, C // G)
        to_next_cell = rows.dilation * sh, sw if self.B > 1 else columns.dilation * sw, sc
        strides = (C // G * sc, sn, rows.step * sh, self.B * columns.step * sw, *to_next_cell)
        corner = image[:, rows.start :, columns.start :]
        return array_module(image).lib.stride_tricks.as_strided(corner, shape, strides)

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (small and few)
    def band(self, count: int) -> Strips:
        """Return these strips on ``count`` rows of the output, cut out by themselves (`Window.band`)."""
        return replace(self, rows=replace(self.rows, count=count))

    def gather(self, image: Array) -> Array:
        """Return cols (G, M, K) of an ``image`` (n, H, W, C), in scratch; a view where the window is a single pixel."""
        places = self.places(image)
        G, n, OH, T, KH, U, CG = places.shape
        cols = image
        if not self._is_identity(image.shape):
            cols = scratch("cols", places.shape, image.dtype, like=image)
            cols[...] = places
        return cols.reshape(G, n * OH * T, KH * U * CG)

    def _is_identity(self, shape: tuple[int, ...]) -> bool:
        """Whether cols would be the image itself, pixel by pixel."""
        axes = zip((self.rows, self.columns), shape[1:3], strict=True)
        return self.G == 1 and all(r.taps == r.step == 1 and r.count == size for r, size in axes)

    def expand(self, w: Array) -> Array:
        """Return e (G, K, B·OC/G) from filters (OC, KH, KW, C/G), which need not be contiguous."""
        OC, KH, _, CG = w.shape
        xp = array_module(w)
        if self.B > 1:
            e = xp.zeros((KH, self.width, CG, self.B, OC), w.dtype)
            for copy in self._copies(e):
                copy[...] = w.transpose(1, 2, 3, 0)  # (OC, KH, KW, C) -> (KH, KW, C, OC)
            return e.reshape(1, KH * self.width * CG, self.B * OC)
        # (OC, KH, KW, C/G) -> (G, OC/G, KH, KW, C/G) -> (G, KH, KW, C/G, OC/G) -> (G, K, OC/G)
        by_group = w.reshape(self.G, OC // self.G, KH, -1, CG)
        if w.flags.c_contiguous and w.size > LARGE:
            return by_group.reshape(self.G, OC // self.G, -1).transpose(0, 2, 1)  # a view
        return xp.ascontiguousarray(by_group.transpose(0, 2, 3, 4, 1)).reshape(self.G, -1, OC // self.G)

    def fold(self, de: Array, dw: Array) -> None:
        """Write the adjoint of `expand` into ``dw`` (OC, KH, KW, C/G), which need not be contiguous."""
        OC, KH, KW, CG = dw.shape
        if self.B > 1:
            copies = self._copies(de.reshape(KH, self.width, CG, self.B, OC))
            dw[...] = functools.reduce(operator.add, copies).transpose(3, 0, 1, 2)  # (KH, KW, C, OC) -> (OC, KH, KW, C)
        else:
            # (G, K, OC/G) -> (G, KH, KW, C/G, OC/G) -> (G, OC/G, KH, KW, C/G)
            by_group = de.reshape(self.G, KH, KW, CG, OC // self.G).transpose(0, 4, 1, 2, 3)
            for g in range(self.G):
                dw[g * (OC // self.G) : (g + 1) * (OC // self.G)] = by_group[g]

    def _copies(self, e: Array) -> list[Array]:
        """Where the B copies of the filters stand in ``e`` (KH, U, C, B, OC), each a view (KH, KW, C, OC)."""
        across = self.columns
        firsts = range(0, self.B * across.step, across.step)
        reach = across.dilation * (across.taps - 1) + 1
        return [e[:, u : u + reach : across.dilation, :, j] for j, u in enumerate(firsts)]

    def multiply(self, cols: Array, e: Array, y: Array) -> None:
        """Write cols e into ``y`` (n, OH, OW, OC)."""
        if self.G == 1:
            # (n, OH, OW, OC) -> (M, B·OC)
            return gemm.rows(cols[0], e[0], y.reshape(cols.shape[1], e.shape[2]))
        # (n, OH, OW, OC) -> (M, G, OC/G) -> (G, M, OC/G);  (G, M, K) @ (G, K, OC/G)
        array_module(y).matmul(cols, e, out=y.reshape(cols.shape[1], self.G, e.shape[2]).transpose(1, 0, 2))

    def multiply_transposed(self, dy: Array, et: Array) -> Array:
        """Return dcols = dy eᵀ (G, M, K) for ``dy`` (n, OH, OW, OC), in scratch."""
        (G, _, K), M = et.shape, dy.size // (self.B * dy.shape[3])
        dcols = scratch("dcols", (G, M, K), dy.dtype, like=dy)
        if G == 1:
            # (n, OH, OW, OC) -> (M, B·OC)
            gemm.rows(dy.reshape(M, et.shape[1]), et[0], dcols[0])
            return dcols
        # (n, OH, OW, OC) -> (M, G, OC/G) -> (G, M, OC/G);  (G, M, OC/G) @ (G, OC/G, K)
        return array_module(dy).matmul(dy.reshape(M, G, et.shape[1]).transpose(1, 0, 2), et, out=dcols)

    def products(self, cols: Array, dy: Array, name: str = "products") -> Array:
        """Return de = colsᵀ dy (G, K, B·OC/G) for ``dy`` (n, OH, OW, OC), in scratch ``name``."""
        G, M, K = cols.shape
        if G == 1:
            return gemm.inner(cols[0], dy.reshape(M, self.B * dy.shape[3]), name)[None]
        OCG = dy.shape[3] // G
        out = scratch(name, (G, K, OCG), dy.dtype, like=dy)
        # (G, K, M) @ (G, M, OC/G)
        return array_module(dy).matmul(cols.transpose(0, 2, 1), dy.reshape(M, G, OCG).transpose(1, 0, 2), out=out)

    def bands(self, image: Array, OC: int) -> list[tuple[slice, Strips]]:
        """Return (rows of the output, strips of those rows), so few rows at a time that they fit a slice.

        Only a slice of a single large ``image`` (n, H, W, C), padded, needs more than one band.
        """
        (n, _, _, C), OH = image.shape, self.rows.count
        large = n == 1 and not self._is_identity(image.shape)
        count = min(OH, -(-self.item_bytes(C, OC, image.itemsize) // SLICE_BYTES)) if large else 1
        edges = [i * OH // count for i in range(count + 1)]
        return [(slice(a, b), replace(self, rows=self.rows.part(a, b))) for a, b in itertools.pairwise(edges)]

    def item_bytes(self, C: int, OC: int, itemsize: int) -> int:
        """Memory that one image needs: its strips, what they were cut from, and its outputs."""
        return itemsize * (self.positions * (C + OC) + self.numbers(C))

    @property
    def positions(self) -> int:
        """OH·OW."""
        return self.rows.count * self.columns.count

    def numbers(self, C: int) -> int:
        """Size of cols, of one image of C channels."""
        return self.positions // self.B * self.rows.taps * self.width * C

    def gather_time(self, C: int) -> float:
        """Time to gather one image (`cost`)."""
        return copy_time(self.numbers(C), self.width * C // self.G)

    def add_time(self, C: int) -> float:
        """Time to add strips up to one image (`scatter`)."""
        return add_time(self.numbers(C), self.width * C // self.G)

    def product_time(self, C: int, OC: int) -> float:
        """Time of the product of the strips of one image with e."""
        G, K = self.G, self.rows.taps * self.width * C // self.G
        return G * product_time(self.positions / self.B, K, self.B * OC // G)


def cut(rows: Reach, columns: Reach, G: int, strips: bool, time: Callable[[Strips], float]) -> Strips:
    """Return the strips that take the least ``time``; single patches unless ``strips`` and there is one group."""
    single = Strips(rows, columns, 1, G)
    if not strips or G > 1 or rows.taps * columns.taps == 0:
        return single
    widths = [B for B in range(2, columns.count + 1) if columns.count % B == 0]
    return min([single, *(Strips(rows, columns, B, 1) for B in widths)], key=time)


def reaches(window: Window, OH: int, OW: int) -> tuple[Reach, Reach]:
    """Return what the window reaches down and across, in the padded image."""
    rows, columns = (
        Reach(0, out, step, taps, dilation)
        for out, step, taps, dilation in zip((OH, OW), window.stride, window.kernel, window.dilation, strict=True)
    )
    return rows, columns


@functools.lru_cache(maxsize=4096)
def forward_strips(x_shape: tuple[int, ...], OC: int, window: Window, G: int, strips: bool) -> Strips:
    """Return the strips by which to convolve x of ``x_shape`` (N, H, W, C) with OC filters."""
    C = x_shape[3]
    rows, columns = reaches(window, *window.out_size(*x_shape[1:3]))
    return cut(rows, columns, G, strips, lambda how: how.gather_time(C) + how.product_time(C, OC))


def forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, strips: bool = False) -> Array:
    """Return y (N, OH, OW, OC), equation (1), plus the bias ``b`` (OC,) if there is one."""
    how = forward_strips(x.shape, len(w), window, G, strips)
    y = array_module(x).empty((len(x), how.rows.count, how.columns.count, len(w)), x.dtype)
    convolve(x, how.expand(w), window, how, y, Finish(b))
    return y


def convolve(x: Array, e: Array, window: Window, how: Strips, y: Array, finish: Finish) -> None:
    """Write equation (1) and what follows it into ``y`` (N, OH, OW, OC), for filters ``e`` as `Strips.expand` has them.

    The images are cut, and single ones into bands of rows of y.  Where filters are larger than images, filters are cut.
    """
    OC, H, image_bytes = y.shape[3], x.shape[1], how.item_bytes(x.shape[3], y.shape[3], x.itemsize)
    if e.nbytes > len(x) * image_bytes and how.G == how.B == 1:
        cols = how.gather(pad(x, window))

        def some_filters(c: slice) -> None:
            how.multiply(cols, e[..., c], y[..., c])
            finish.of_channels(c)(y[..., c])

        return each_slice(some_filters, e[0].T, e.nbytes // OC, FEW * SLICE_BYTES)

    finish_rows = finish.rows(y)

    def some_rows(images: slice, band: slice) -> None:
        seen, inner = window.band(band.start, band.stop, H)
        cols = how.band(band.stop - band.start).gather(pad(x[images, seen], inner))
        how.multiply(cols, e, y[images, band])
        finish_rows(images, band)

    each_band(some_rows, x, how.rows.count, image_bytes // max(how.rows.count, 1), e.nbytes)


def backward_weight(
    dy: Array, x: Array, w: Array, window: Window, G: int = 1, strips: bool = False, out: Array | None = None
) -> Array:
    """Return dw (OC, KH, KW, C/G), equation (2); in ``out`` if it is given."""
    how = forward_strips(x.shape, len(w), window, G, strips)
    dw = array_module(w).empty_like(w) if out is None else out

    def one_slice(s: slice) -> tuple[Array]:
        padded = pad(x[s], window)
        (part, band), *others = how.bands(padded, len(w))
        total = band.products(band.gather(padded), dy[s][:, part])
        for part, band in others:
            total += band.products(band.gather(padded), dy[s][:, part], "more products")
        return (total,)

    (de,) = sum_slices(one_slice, x, how.item_bytes(x.shape[3], len(w), x.itemsize), w.nbytes)
    how.fold(de, dw)
    return dw
