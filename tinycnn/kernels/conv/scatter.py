"""The backward of a convolution as the adjoint of its forward, step by step: col2im.

**Idea.**  The forward gathers strips of x into the rows of cols, multiplies, and is done (`patches`)::

    y = cols e,   cols = gather(x)

Each step is linear, so the backward takes their adjoints in reverse.  Of the product::

    dcols = dy eᵀ                                                                     (1)
    de = colsᵀ dy                                                                     (2)

and of the gather, which copied each pixel to several places: each pixel adds up what comes back from all of them::

    dx = Σ over strips of dcols                                                       (3)

A strip is one run of U·C numbers in each row of the window, so (3) adds runs, not single numbers.  Neighbouring strips
overlap; every q-th, q = ⌈reach/(B·S)⌉, do not, and are added in one operation: KH·q of them in all.

**Against `phases`**, which reads dy where this writes dx: (1) has as many multiplications as the forward, while there
every *pixel* takes as many as an output, also those near a border without padding that few windows see.  So this is
the better way for a large window without padding (LeNet-5's second layer), and the slower one otherwise: adding up
costs three times what gathering does.
"""

from __future__ import annotations

from ...backend import Array, array_module
from ...parallel import scratch, sum_slices
from ..window import Window, pad
from .patches import Strips


def backward(
    dy: Array,
    x: Array | None,
    x_shape: tuple[int, ...],
    w: Array,
    window: Window,
    how: Strips,
    out: Array | None = None,
) -> tuple[Array, Array | None]:
    """Return dx (N, H, W, C) and, unless ``x`` is None, dw (OC, KH, KW, C/G).

    Args:
        dy: (N, OH, OW, OC).
        x: (N, H, W, C), of ``x_shape``.
        w: (OC, KH, KW, C/G).
        window, how: the sliding window, and the strips that the forward is seen as.
        out: where to write dw; memory of its own if it is None.
    """
    xp = array_module(dy)
    _, H, W, C = x_shape
    et = xp.ascontiguousarray(how.expand(w).transpose(0, 2, 1))  # (G, K, B·OC/G) -> (G, B·OC/G, K)
    dx = xp.empty(x_shape, dy.dtype)

    def one_slice(s: slice) -> tuple[Array, ...]:
        padded = scratch("dx", (len(dy[s]), *window.padded_size(H, W), C), dx.dtype, like=dx)
        padded.fill(0)
        add_strips(how.multiply_transposed(dy[s], et), how, padded)
        dx[s] = padded[window.interior(H, W)]
        return () if x is None else (how.products(how.gather(pad(x[s], window)), dy[s]),)

    sums = sum_slices(one_slice, dy, how.item_bytes(C, len(w), dy.itemsize), w.nbytes)
    if x is None:
        return dx, None
    dw = xp.empty_like(w) if out is None else out
    how.fold(sums[0], dw)
    return dx, dw


def add_strips(dcols: Array, how: Strips, padded: Array) -> None:
    """Add every strip of ``dcols`` (G, M, K) to its place in ``padded`` (n, H, W, C): equation (3)."""
    n, _, _, C = padded.shape
    rows, columns, G, T = how.rows, how.columns, how.G, how.columns.count // how.B
    # (G, M, K) -> (G, n, OH, T, KH, U, C/G)
    strips = dcols.reshape(G, n, rows.count, T, rows.taps, how.width, C // G)
    places = how.places(padded)
    apart = -(-(columns.dilation * (columns.taps - 1) + 1 + (how.B - 1) * columns.step) // (how.B * columns.step))
    for kh in range(rows.taps):
        for first in range(min(apart, T)):
            places[:, :, :, first::apart, kh] += strips[:, :, :, first::apart, kh]
