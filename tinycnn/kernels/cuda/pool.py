"""Twins of `tinycnn.kernels.pool`."""

from __future__ import annotations

from ...backend import Array
from ..window import Window
from .module import THREADS, TYPES, Variant, blocks_for, kernel

VARIANTS: list[Variant] = [("pool", dtype, {}) for dtype in TYPES]


def _sizes(image: Array, window: Window, out: Array) -> tuple[int, ...]:
    """Return what the kernels take as SIZES: of images (N, H, W, C), and of what the window makes of them."""
    (PH, _), (PW, _) = window.padding
    return (*image.shape, *out.shape[1:3], *window.kernel, *window.stride, PH, PW, *window.dilation)


def max_pool(x: Array, window: Window, y: Array) -> None:
    """Write the maximum over the window at every position into ``y``."""
    kernel("pool", "max_pool", x.dtype)(blocks_for(y.size), THREADS, x, y, *_sizes(x, window, y))
