"""Twins of `tinycnn.kernels.pool`."""

from __future__ import annotations

from typing import Any

from ...backend import Array
from ..window import Window
from .module import THREADS, TYPES, Variant, blocks_for, kernel, packed

VARIANTS: list[Variant] = [("pool", dtype, {}) for dtype in TYPES]
LARGE = 16
"""Pixels of a bin from which a block makes one, not a thread."""


def max_pool(x: Array, window: Window, y: Array) -> None:
    """Write the maximum over the window at every position into ``y``."""
    _launch("max_pool", y, packed(x), y, *_sizes(x, window, y))


def max_pool_winners(x: Array, window: Window, y: Array, winners: Array) -> None:
    """Do what `max_pool` does, and write into ``winners`` which cell of the window the maximum came from."""
    _launch(f"max_pool_winners{_large(winners)}", y, packed(x), y, winners, *_sizes(x, window, y))


def max_pool_backward(dy: Array, winners: Array, window: Window, dx: Array) -> None:
    """Write into ``dx`` the sum of the ``dy`` of all windows that the pixel won."""
    _launch(f"max_pool_backward{_large(winners)}", dx, packed(dy), winners, dx, *_sizes(dx, window, dy))


def mean_pool(x: Array, window: Window, divisor: Any, y: Array) -> None:
    """Write the mean over the window at every position into ``y``."""
    _launch("mean_pool", y, packed(x), y, *_sizes(x, window, y), divisor.include_pad, divisor.fixed or 0)


def mean_pool_backward(dy: Array, window: Window, divisor: Any, dx: Array) -> None:
    """Write the adjoint of `mean_pool` into ``dx``."""
    _launch("mean_pool_backward", dx, packed(dy), dx, *_sizes(dx, window, dy), divisor.include_pad, divisor.fixed or 0)


def bin_means(x: Array, y: Array) -> None:
    """Write the mean over every bin into ``y``."""
    sizes = *x.shape, *y.shape[1:3]
    if y.size and x.shape[1] * x.shape[2] >= LARGE * y.shape[1] * y.shape[2]:
        N, OH, OW, C = y.shape
        kernel("pool", "bin_means_large", x.dtype)(blocks_for(N * OH * OW * C, 32), THREADS, packed(x), y, *sizes)
    else:
        _launch("bin_means", y, packed(x), y, *sizes)


def bin_means_backward(dy: Array, dx: Array) -> None:
    """Write the adjoint of `bin_means` into ``dx``."""
    _launch("bin_means_backward", dx, packed(dy), dx, *dx.shape, *dy.shape[1:3])


def _launch(name: str, out: Array, *args: Any) -> None:
    """Launch a kernel of which a thread makes 16 bytes of ``out``, or a single number where these are no channels."""
    V = 16 // out.itemsize
    if out.size:
        kernel("pool", name, out.dtype)(
            blocks_for(out.size // V if out.shape[3] % V == 0 else out.size), THREADS, *args
        )


def _sizes(image: Array, window: Window, out: Array) -> tuple[int, ...]:
    """Return what the kernels take as SIZES: of images (N, H, W, C), and of what the window makes of them."""
    (PH, _), (PW, _) = window.padding
    return (*image.shape, *out.shape[1:3], *window.kernel, *window.stride, PH, PW, *window.dilation)


def _large(winners: Array) -> str:
    """Return what the names of kernels end with that count cells in two bytes."""
    return "" if winners.dtype.itemsize == 1 else "_large"
