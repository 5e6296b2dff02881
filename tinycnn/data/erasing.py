"""Pieces of an image taken away, so that a network does not hang on one part of what it shows.

Sources: DeVries, Taylor 2017, "Improved regularization of convolutional neural networks with cutout"; Zhong, Zheng,
Kang, Li, Yang 2020, "Random erasing data augmentation".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from .base import Fill, ImageTransform, check_probability, check_range, pixel, sides
from .boxes import draw_around, draw_boxes, inside


def erased(x: Array, boxes: np.ndarray, value: Array) -> Array:
    """Return the images (N, H, W, C) with ``value`` in their boxes (4, N): a pixel (C,), or images like x."""
    return array_module(x).where(inside(boxes, x), value, x)


def noise_like(x: Array, rng: np.random.Generator) -> Array:
    """Return images like ``x`` of uniform noise: bytes 0..255, or floats in 0..1."""
    if x.dtype == np.uint8:
        return to_device(rng.integers(0, 256, x.shape, np.uint8), device_of(x))
    return to_device(rng.random(x.shape, np.float32).astype(x.dtype), device_of(x))


@dataclass(frozen=True)
class Cutout(ImageTransform):
    """Erase a square of every image; its middle is any pixel, so that it may reach over the edge.

    Attributes:
        size: of the square, or (height, width): 16 in the paper for CIFAR-10, 8 for CIFAR-100.
        fill: what takes its place, one number or one for every channel.

    Raises:
        ValueError: a size below 1.

    >>> x = np.ones((1, 1, 3, 4), np.uint8)
    >>> Cutout(2)(x, np.random.default_rng(2))[0, 0].tolist()
    [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1]]
    """

    size: int | tuple[int, int]
    fill: Fill = 0

    def __post_init__(self) -> None:
        sides(self, "size", self.size)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Cut the squares out."""
        size = np.array(sides(self, "size", self.size))[:, None]
        N, H, W, _ = x.shape
        return erased(x, draw_around(N, H, W, size, rng), pixel(self.fill, x))


@dataclass(frozen=True)
class RandomErasing(ImageTransform):
    """Erase, with probability p, a rectangle of any shape from an image.

    Attributes:
        p: of an image to lose one.
        scale: its area, at least and at most, as a share of the image's.
        ratio: of its sides, height to width, at least and at most.
        value: what takes its place: one number or one for every channel, or ``"random"``: noise, uniform (the paper's;
            torchvision's is normal, for images that are normalised already).

    An image that ten rectangles drawn do not fit into stays as it is.

    Raises:
        ValueError: an argument out of range.
    """

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: Fill | str = 0

    def __post_init__(self) -> None:
        check_probability(self, self.p)
        check_range(self, "scale", self.scale, 0, 1)
        check_range(self, "ratio", self.ratio, 1e-3, 1e3)
        if isinstance(self.value, str) and self.value != "random":
            raise ValueError(
                f"RandomErasing: value must be a number, one for each channel or 'random', got {self.value!r}"
            )

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Erase the rectangles."""
        N, H, W, _ = x.shape
        least, most = self.ratio
        chosen = rng.random(N) < self.p
        boxes, found = draw_boxes(N, H, W, self.scale, (1 / most, 1 / least), rng)
        boxes[2:] *= chosen & found  # an empty box erases nothing
        value = noise_like(x, rng) if isinstance(self.value, str) else pixel(self.value, x)
        return erased(x, boxes, value)
