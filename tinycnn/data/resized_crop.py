"""Windows of any size and shape, brought to one size.

An image is resized as in `tinycnn.data.transforms.interpolation_matrix`: along each axis a product with a matrix of
triangles, as wide as one pixel of the result, so that what shrinks is averaged and none of it skipped.  Here every
image has matrices of its own, whose triangles are cut off at the window: y = R·x·Kᵀ, (OH, H)·(H, W)·(W, OW).

Sources: Szegedy et al. 2015, "Going deeper with convolutions", section 6 (the sampling of windows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from .base import ImageTransform, as_before, as_floats, check_range, sides
from .boxes import draw_boxes


def window_matrices(size: int, start: np.ndarray, length: np.ndarray, new_size: int) -> np.ndarray:
    """Return matrices (N, new_size, size) that resize, linearly, what is from ``start`` (N,) on of ``length`` (N,).

    With s = length/new_size the centre of new pixel i is at u = start + (i + ½)·s − ½.  Pixel j of the window weighs in
    with max(0, 1 − |j − u| / max(1, s)), divided by the sum of all.
    """
    # (N,) -> (N, 1, 1)
    start, length = start[:, None, None], length[:, None, None]
    s, j = length / new_size, np.arange(size)
    u = start + (np.arange(new_size)[:, None] + 0.5) * s - 0.5
    weights = np.maximum(0, 1 - np.abs(j - u) / np.maximum(1, s)) * ((j >= start) & (j < start + length))
    return weights / weights.sum(axis=2, keepdims=True)


def resized(x: Array, boxes: np.ndarray, size: tuple[int, int]) -> Array:
    """Return what is in the boxes (4, N) of the images (N, H, W, C), each brought to ``size``: (N, OH, OW, C)."""
    (N, H, W, C), (OH, OW) = x.shape, size
    pixels, (top, left, bottom, right) = as_floats(x), boxes
    rows, cols = (
        to_device(window_matrices(*window).astype(pixels.dtype), device_of(x))
        for window in ((H, top, bottom - top, OH), (W, left, right - left, OW))
    )
    # (N, OH, H) · (N, H, W·C) -> (N, OH, W, C) -> (N, W, OH·C)
    y = (rows @ pixels.reshape(N, H, W * C)).reshape(N, OH, W, C).transpose(0, 2, 1, 3).reshape(N, W, OH * C)
    # (N, OW, W) · (N, W, OH·C) -> (N, OW, OH, C) -> (N, OH, OW, C)
    y = (cols @ y).reshape(N, OW, OH, C).transpose(0, 2, 1, 3)
    return array_module(x).ascontiguousarray(as_before(y, x))


def central_box(H: int, W: int, ratio: tuple[float, float]) -> np.ndarray:
    """Return the largest box (4,) in the middle of an image whose width over height is in ``ratio``."""
    h, w = min(H, max(1, round(W / ratio[0]))), min(W, max(1, round(H * ratio[1])))
    top, left = (H - h) // 2, (W - w) // 2
    return np.array([top, left, top + h, left + w])


@dataclass(frozen=True)
class RandomResizedCrop(ImageTransform):
    """Cut a window of random area and shape out of every image and bring it to one size; bilinear, antialiased.

    What networks for photographs are trained with: the object is seen from near and far, whole and in part.

    Attributes:
        size: of the result, one number or (height, width).
        scale: area of the window, at least and at most, as a share of the image's.
        ratio: its width over its height, at least and at most.

    An image that ten windows drawn do not fit into gives the largest one in its middle.

    Raises:
        ValueError: an argument out of range.

    >>> x = np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4)
    >>> RandomResizedCrop(2, scale=(1.0, 1.0), ratio=(1.0, 1.0))(x, np.random.default_rng(0))[0, 0].tolist()
    [[4, 5], [10, 11]]
    """

    size: int | tuple[int, int]
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        sides(self, "size", self.size)
        check_range(self, "scale", self.scale, 0, 1)
        check_range(self, "ratio", self.ratio, 1e-3, 1e3)

    def draw(self, N: int, H: int, W: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the windows, (4, N)."""
        boxes, found = draw_boxes(N, H, W, self.scale, self.ratio, rng)
        return np.where(found, boxes, central_box(H, W, self.ratio)[:, None])

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Cut and resize."""
        N, H, W, _ = x.shape
        return resized(x, self.draw(N, H, W, rng), sides(self, "size", self.size))
