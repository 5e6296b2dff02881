"""Twin of `assemble` in `tinycnn.data.augment`."""

from __future__ import annotations

from ...backend import Array
from .module import BLOCKS, THREADS, TYPES, Variant, kernel, packed

VARIANTS: list[Variant] = [("augment", dtype, {}) for dtype in TYPES]


def assemble(images: Array, indices: Array, moves: Array | None, colours: Array | None, scale: Array, y: Array) -> None:
    """Write a batch into ``y``: images gathered, moved, coloured and scaled."""
    N, H, W, C = y.shape
    if not y.flags.c_contiguous or images.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"assemble writes contiguous images like those it takes: got {images.shape} for {y.shape}, "
            f"strides {y.strides}"
        )
    if y.size == 0:
        return
    threads = min(THREADS, -(-W * C // 32) * 32)
    arrays = (None if array is None else packed(array) for array in (indices, moves, colours, scale))
    launch = kernel("augment", "assemble", y.dtype)
    launch(min(N * H, BLOCKS), threads, packed(images), *arrays, y, N, H, W, C)
