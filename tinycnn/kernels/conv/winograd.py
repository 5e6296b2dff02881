"""Winograd's convolution: a 3×3 filter with 2.25 or 4 times fewer multiplications.

**Idea.**  A polynomial is known by its values at enough points, and there a product is cheap: one multiplication per
point.  A convolution is a product of polynomials, so evaluate, multiply point by point, interpolate.

=========  ===========================================================================================
m, t       outputs along a side of a tile, 2 or 4;  inputs that they see, t = m + 2
d, y, w    one tile (t×t) of one input channel;  of one output channel (m×m);  one 3×3 filter
A, G, B    evaluation of a polynomial of m terms (t×m), of 3 terms (t×3);  interpolation (t×t)
V, U, M    input, filters and output at the t² points;  T tiles: V is (t², T, C), M (t², T, OC)
n, TH, TW  images of a slice, and the rows and columns of tiles in each: T = n·TH·TW
=========  ===========================================================================================

**One dimension.**  Let u and g be polynomials of m and 3 coefficients.  Their product has t = m + 2.  Take t points
a₀, a₁, …, the last of them ∞ (where the value of a polynomial is its leading coefficient).  Then::

    u·g = B [(G g) ⊙ (A u)]        A[i, j] = aᵢ^j,  G[i, j] = aᵢ^j / Π (aᵢ − aₖ),  column i of B: Π (x − aₖ),  k ≠ i

which takes t multiplications instead of 3m (Toom 1963, Cook 1966; B and G are Lagrange's interpolation).  The rows of
∞ in A and G are (0, …, 0, 1), and its column in B is the product over all other points.  Multiplying by g is a linear
map of u; its transpose is the sliding dot product yᵢ = Σ g[k] d[i + k] that networks call a convolution::

    y = Aᵀ [(G g) ⊙ (Bᵀ d)]

For m = 2 with the points 0, 1, −1, ∞, for example, 4 multiplications instead of 6::

        ⎡1  0⎤        ⎡−1  0   0  0⎤        ⎡−1    0   0 ⎤
    A = ⎢1  1⎥    B = ⎢ 0  1  −1 −1⎥    G = ⎢½    ½   ½ ⎥
        ⎢1 −1⎥        ⎢ 1  1   1  0⎥        ⎢½   −½   ½ ⎥
        ⎣0  1⎦        ⎣ 0  0   0  1⎦        ⎣ 0    0   1 ⎦

**Forward**, in both dimensions (Winograd 1980; Lavin & Gray 2016, equation 8)::

    V = Bᵀ d B        U = G w Gᵀ        M[p] = V[p] U[p]ᵀ  for each point p        y = Aᵀ M A          (1)

Tiles overlap by two pixels.  Channels are summed up at the points, where that is a matrix product (T×C)·(C×OC):
nearly all of the work is t² of those.

**Backward.**  Each step is linear, so the gradients take the adjoint steps in reverse::

    dM = A dy Aᵀ                                                                                       (2)
    dV[p] = dM[p] U[p]        dd = B dV Bᵀ, overlapping tiles added up to dx                           (3)
    dU[p] = dM[p]ᵀ V[p]       dw = Gᵀ dU G                                                             (4)

(3) is the product of polynomials that (1) was the transpose of.  Nothing is saved for it but x: V is made again.

**Cost.**  t²/m² multiplications for each output, input channel and output channel: 2.25 for m = 4, 4 for m = 2,
against 9.  Evaluating and interpolating take about 700 + 500 FLOP per tile and channel for m = 4 (300 + 200 for
m = 2), so that it pays from a few dozen channels on.  Where m does not divide the size of the output, the last
tiles are computed in full.  Memory: V and M have t²/m² times the numbers of x and y, U has t²/9 times those of w.

**How the work is cut.**  Where tiles are many, the batch is cut, as everywhere, and forward a single image into bands
of tile rows.  Where they are few and the weights large (512 channels on 4×4 pixels), every slice would read all of U,
which is larger than any cache.  There the weights are cut: V is made once for the whole batch, and a slice is some of
the filters, whose U is made, used once and forgotten (or read, where it is kept); backward, some of the input channels.

**Accuracy.**  F(2×2) is exact on small integers, since A and B hold 0 and ±1, and G halves.  Larger tiles need
more points, and powers of those spread: the sums in B and A cancel digits that float32 does not have to spare.
How much depends on the points.  0, ±1, ±2, ∞ are usual.  Near 0, ±p, ±1/p, ∞, which Barabasz et al. 2020 favour, a
search found the least error at p = 2/3 and, as good, 0, ±5/8, ±3/2, ∞, where A and B are binary fractions and only G is
rounded: less than half.
Root mean square error over that of the result, float32, x ≥ 0 of 64 and of 256 channels::

                                 y              dx              dw
    im2col                       2.1e-7 2.6e-7  1.6e-7 1.5e-7   2.4e-7 2.3e-7
    F(2×2)                       2.4e-7 4.3e-7  2.7e-7 2.7e-7   4.4e-7 3.1e-7
    F(4×4)                       6.9e-7 1.2e-6  8.0e-7 7.9e-7   6.7e-7 6.6e-7
    F(4×4) with 0, ±1, ±2, ∞     1.5e-6 2.7e-6  1.7e-6 1.8e-6   1.5e-6 1.5e-6

Sources: Winograd 1980, "Arithmetic complexity of computations"; Lavin & Gray 2016, "Fast algorithms for convolutional
neural networks"; Barabasz, Anderson, Soodhalter & Gregg 2020, "Error analysis and improving the accuracy of Winograd
convolution for deep neural networks".
"""

from __future__ import annotations

from ...backend import Array, array_module
from ...parallel import SLICE_BYTES, each_band, each_slice, scratch, sum_slices
from ..window import Window
from .finish import Finish
from .points import (
    FOR_BACKWARD,
    FOR_FORWARD,
    GROUP,
    Plan,
    each_group,
    filters_from_points,
    filters_to_points,
    make_plan,
    multiply,
)
from .tiles import from_points, put_tiles, to_points

LARGER = 4
"""Slices touch so many times more than is usual: long matrix products gain more from it than caches lose."""
BLOCK = 64
"""Filters whose U is kept lie in blocks of so many: what OpenBLAS need not pack (`kernels.gemm`), and can read fast."""


# ---- forward


def forward(x: Array, w: Array, b: Array | None, window: Window, m: int) -> Array:
    """Equation (1).

    Args:
        x: (N, H, W, C), contiguous.
        w: (OC, 3, 3, C), contiguous.
        b: (OC,), or None.
        window: 3×3, with stride and dilation 1.
        m: outputs along a side of a tile, 2 or 4.

    Returns:
        y (N, OH, OW, OC).
    """
    plan = make_plan(x, window, m)
    y = array_module(x).empty((len(x), *window.out_size(*x.shape[1:3]), len(w)), x.dtype)
    convolve(x, NewPoints(w, plan), plan, y, Finish(b))
    return y


class NewPoints:
    """Filters w (OC, 3, 3, C) whose U is made when somebody asks for it."""

    group = GROUP

    def __init__(self, w: Array, plan: Plan) -> None:
        self.w, self.plan = w, plan

    def all(self) -> Array:
        """Return U of all filters, (t², 1, C, OC)."""
        w, plan = self.w, self.plan
        OC, _, _, C = w.shape
        U = array_module(w).empty((plan.P, C, OC), w.dtype)

        def some_channels(c: slice) -> None:
            filters_to_points(w[..., c], FOR_FORWARD, plan, U[:, c])

        each_group(some_channels, C, OC * plan.tile_bytes // 2, w)
        return U[:, None]

    def some(self, s: slice) -> Array:
        """Return U of some filters, (t², 1, C, oc), in scratch."""
        w = self.w[s]
        U = scratch("winograd U", (self.plan.P, w.shape[3], len(w)), w.dtype, like=w)
        filters_to_points(w, FOR_FORWARD, self.plan, U)
        return U[:, None]


class KeptPoints:
    """U of filters that do not change, (t², OC/group, C, group): blocks of ``group`` filters."""

    def __init__(self, w: Array, plan: Plan) -> None:
        U = NewPoints(w, plan).all()
        P, _, C, OC = U.shape
        self.group = BLOCK if OC % BLOCK == 0 else OC
        # (t², 1, C, OC) -> (t², C, OC/group, group) -> (t², OC/group, C, group)
        self.U = array_module(w).ascontiguousarray(U.reshape(P, C, -1, self.group).transpose(0, 2, 1, 3))

    def all(self) -> Array:
        """Return U."""
        return self.U

    def some(self, s: slice) -> Array:
        """Return U of some filters, which are whole blocks."""
        return self.U[:, s.start // self.group : -(-s.stop // self.group)]


def convolve(x: Array, filters: NewPoints | KeptPoints, plan: Plan, y: Array, finish: Finish) -> None:
    """Write equation (1) and what follows it into ``y`` (N, OH, OW, OC)."""
    by = convolve_by_filters if plan.cuts_weights(len(x), x.shape[3], y.shape[3]) else convolve_by_images
    by(x, filters, plan, y, finish)


def convolve_by_images(x: Array, filters: NewPoints | KeptPoints, plan: Plan, y: Array, finish: Finish) -> None:
    """Equation (1), cut into images, and single ones into bands of tile rows."""
    C, OC, (TH, TW, m, *_) = x.shape[3], y.shape[3], plan.outputs
    U, finish_rows = filters.all(), finish.without_bias(y)

    def some_rows(images: slice, band: slice) -> None:
        inputs, outputs = plan.band(band)
        V = scratch("winograd V", (plan.P, len(x[images]) * inputs.TH * TW, C), x.dtype, like=x)
        to_points(x[images], plan.B.T, inputs, V)
        pixels = multiply_points(V, U, finish.b, plan)
        put_tiles(pixels, outputs, y[images])
        finish_rows(images, slice(band.start * m, band.stop * m))

    each_band(some_rows, x, TH, TW * (C + OC) * plan.tile_bytes, max(LARGER * SLICE_BYTES, U.nbytes))


def convolve_by_filters(x: Array, filters: NewPoints | KeptPoints, plan: Plan, y: Array, finish: Finish) -> None:
    """Equation (1), a slice being some of the filters."""
    P, T, C, OC = plan.P, plan.tiles(len(x)), x.shape[3], y.shape[3]
    V = scratch("winograd all V", (P, T, C), x.dtype, like=x)

    def some_images(s: slice) -> None:
        to_points(x[s], plan.B.T, plan.inputs, V[:, plan.tiles(s.start) : plan.tiles(s.stop)])

    def some_filters(s: slice) -> None:
        part = scratch("winograd part", (*y.shape[:3], s.stop - s.start), x.dtype, like=x)
        pixels = multiply_points(V, filters.some(s), None if finish.b is None else finish.b[s], plan)
        put_tiles(pixels, plan.outputs, part)
        finish.of_channels(s).without_bias(part)(slice(None), slice(None))
        y[..., s] = part

    each_slice(some_images, x, plan.tiles(1) * C * plan.tile_bytes)
    each_group(some_filters, OC, C * plan.tile_bytes, x, filters.group, LARGER * SLICE_BYTES)


def multiply_points(V: Array, U: Array, b: Array | None, plan: Plan) -> Array:
    """Return Aᵀ M A + b of all tiles, (m², T, OC) in scratch; V is (t², T, C), U (t², OC/block, C, block).

    b (OC,) or None is one more point: all pixels of a tile have it.
    """
    (P, T, _), (_, blocks, _, block) = V.shape, U.shape
    M = scratch("winograd M", (P + 1, T, blocks * block), V.dtype, like=V)
    # (t², T, OC) -> (t², T, OC/block, block) -> (t², OC/block, T, block), a view
    out = M[:P].reshape(P, T, blocks, block).transpose(0, 2, 1, 3)
    # (t², 1, T, C) @ (t², OC/block, C, block) -> (t², OC/block, T, block)
    array_module(V).matmul(V[:, None], U, out=out)
    if b is not None:
        M[P] = b
    K = plan.AA[:, : P + (b is not None)]
    return multiply(K, M[: K.shape[1]], scratch("winograd pixels", (len(K), *M.shape[1:]), V.dtype, like=V))


# ---- backward


def backward(
    dy: Array,
    x: Array,
    w: Array,
    window: Window,
    m: int,
    need_dx: bool = True,
    need_dw: bool = True,
    out: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """Equations (2) to (4).

    Args:
        dy: (N, OH, OW, OC), contiguous.
        x, w, window, m: as `forward` had them.
        need_dx, need_dw: which gradients to compute.
        out: where to write dw; memory of its own if it is None.

    Returns:
        dx (N, H, W, C) and dw (OC, 3, 3, C), or None.
    """
    plan = make_plan(x, window, m)
    dx = array_module(x).empty(x.shape, x.dtype) if need_dx else None
    dw = None
    if need_dw:
        dw = array_module(w).empty_like(w) if out is None else out
    by = backward_by_channels if plan.cuts_weights(len(x), x.shape[3], len(w)) else backward_by_images
    by(dy, x, w, plan, dx, dw)
    return dx, dw


def backward_by_images(dy: Array, x: Array, w: Array, plan: Plan, dx: Array | None, dw: Array | None) -> None:
    """Equations (2) to (4), a slice being some of the images: fill dx and dw."""
    xp, P = array_module(x), plan.P
    C, OC = x.shape[3], len(w)
    U: Array = xp.empty((P, OC, C), x.dtype) if dx is not None else None

    def some_filters(s: slice) -> None:
        filters_to_points(w[s], FOR_BACKWARD, plan, U[:, s])

    def some_images(s: slice) -> tuple[Array, ...]:
        row = len(x[s]) * plan.inputs.TW
        total = scratch("winograd dw", (9, OC, C), x.dtype, like=x)
        total.fill(0)
        clear_below(dx, s, plan)
        for inputs, outputs in plan.bands(row * (C + OC) * plan.tile_bytes, x):
            V = scratch("winograd V", (P, inputs.TH * row, C), x.dtype, like=x)
            dM = scratch("winograd M", (P, inputs.TH * row, OC), x.dtype, like=x)
            to_points(dy[s], plan.A, outputs, dM)
            if dx is not None:
                xp.matmul(dM, U, out=V)
                from_points(V, plan.B, inputs, dx[s])
            if dw is not None:
                to_points(x[s], plan.B.T, inputs, V)
                total += filters_from_points(dM, V, plan)
        return () if dw is None else (total,)

    if dx is not None:
        each_group(some_filters, OC, C * plan.tile_bytes // 2, x)
    sums = sum_slices(some_images, x, plan.tiles(1) * (C + OC) * plan.tile_bytes // LARGER)
    if dw is not None:
        # (9, OC, C) -> (OC, 9, C)
        dw.reshape(OC, 9, C)[...] = sums[0].transpose(1, 0, 2)


def backward_by_channels(dy: Array, x: Array, w: Array, plan: Plan, dx: Array | None, dw: Array | None) -> None:
    """Equations (2) to (4), a slice being some of the input channels: fill dx and dw."""
    xp, P, T = array_module(x), plan.P, plan.tiles(len(x))
    C, OC = x.shape[3], len(w)
    dM = xp.empty((P, T, OC), x.dtype)

    def some_images(s: slice) -> None:
        to_points(dy[s], plan.A, plan.outputs, dM[:, plan.tiles(s.start) : plan.tiles(s.stop)])

    def some_channels(c: slice) -> None:
        U = scratch("winograd U", (P, OC, c.stop - c.start), x.dtype, like=x)
        V = scratch("winograd V", (P, T, c.stop - c.start), x.dtype, like=x)
        part = scratch("winograd part", (*x.shape[:3], c.stop - c.start), x.dtype, like=x)
        if dx is not None:
            filters_to_points(w[..., c], FOR_BACKWARD, plan, U)
            xp.matmul(dM, U, out=V)
            clear_below(part, slice(None), plan)
            from_points(V, plan.B, plan.inputs, part)
            dx[..., c] = part
        if dw is not None:
            part[...] = x[..., c]
            to_points(part, plan.B.T, plan.inputs, V)
            # (9, OC, c) -> (OC, 9, c)
            dw.reshape(OC, 9, C)[..., c] = filters_from_points(dM, V, plan).transpose(1, 0, 2)

    each_slice(some_images, dy, plan.tiles(1) * OC * plan.tile_bytes)
    each_group(some_channels, C, OC * plan.tile_bytes // 2, x)


def clear_below(dx: Array | None, s: slice, plan: Plan) -> None:
    """Zero the rows of ``dx`` that only the overlaps of the last tiles reach."""
    if dx is not None:
        tiles = plan.inputs
        dx[s, max(tiles.step * tiles.TH - tiles.top, 0) :] = 0
