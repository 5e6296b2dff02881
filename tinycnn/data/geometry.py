"""Pixels that only change places: mirror images, quarter turns, random crops.

No pixel is computed, so bytes stay what they were and a GPU makes the CPU's images, to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from .base import PADDING_MODES, Fill, ImageTransform, check_probability, padded, sides

ROWS, COLS = 1, 2
"""Axes of images (N, H, W, C)."""


def flipped(x: Array, which: np.ndarray, axis: int) -> Array:
    """Return the images (N, H, W, C), those with ``which`` (N,) bool reversed along an axis."""
    if not which.any():
        return x
    chosen, y = to_device(np.flatnonzero(which), device_of(x)), x.copy()
    y[chosen] = array_module(x).flip(x[chosen], axis)
    return y


def turned(x: Array, quarters: np.ndarray) -> Array:
    """Return square images (N, H, H, C), each turned counter-clockwise by 0 to 3 ``quarters`` (N,) of a turn.

    A quarter turn is a transposition, then rows in reverse; a half turn is rows and columns in reverse.
    """
    odd = np.flatnonzero(quarters % 2)
    if len(odd):
        chosen, y = to_device(odd, device_of(x)), x.copy()
        y[chosen] = x[chosen].transpose(0, 2, 1, 3)  # (n, H, W, C) -> (n, W, H, C)
        x = y
    x = flipped(x, (quarters == 1) | (quarters == 2), ROWS)
    return flipped(x, (quarters == 2) | (quarters == 3), COLS)


def windows(x: Array, top: np.ndarray, left: np.ndarray, size: tuple[int, int]) -> Array:
    """Return a window of every image, (N, H, W, C) -> (N, OH, OW, C), its corner at ``top`` and ``left`` (N,)."""
    xp, device, C = array_module(x), device_of(x), x.shape[3]
    # every window as a view: (N, H, W, C) -> (N, H − OH + 1, W − OW + 1, 1, OH, OW, C)
    views = xp.lib.stride_tricks.sliding_window_view(x, (*size, C), axis=(1, 2, 3))
    return views[xp.arange(len(x)), to_device(top, device), to_device(left, device), 0]


@dataclass(frozen=True)
class RandomHorizontalFlip(ImageTransform):
    """Mirror an image, left to right, with probability p.

    A cat that looks the other way is a cat; a mirrored 2 is no digit.

    Raises:
        ValueError: p is no probability.

    >>> x = np.arange(3, dtype=np.uint8).reshape(1, 1, 1, 3)
    >>> RandomHorizontalFlip(p=1.0)(x, np.random.default_rng(0)).ravel().tolist()
    [2, 1, 0]
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self, self.p)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Mirror some of the images."""
        return flipped(x, rng.random(len(x)) < self.p, COLS)


@dataclass(frozen=True)
class RandomVerticalFlip(ImageTransform):
    """Turn an image upside down, as a mirror on the floor does, with probability p.

    For pictures without an up and down: cells under a microscope, the earth from above.

    Raises:
        ValueError: p is no probability.
    """

    p: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self, self.p)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Turn some of the images upside down."""
        return flipped(x, rng.random(len(x)) < self.p, ROWS)


@dataclass(frozen=True)
class RandomRotation90(ImageTransform):
    """Turn every image by 0, 90, 180 or 270 degrees, all equally likely.

    Raises:
        ValueError: the images are not square.
    """

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Turn the images."""
        if x.shape[ROWS] != x.shape[COLS]:
            raise ValueError(f"RandomRotation90 takes square images, got {x.shape[ROWS]}×{x.shape[COLS]}")
        return turned(x, rng.integers(0, 4, len(x)))


@dataclass(frozen=True)
class RandomCrop(ImageTransform):
    """Cut a window out of every image, at a place drawn uniformly, after a border was put around it.

    ``RandomCrop(32, padding=4)`` and a `RandomHorizontalFlip` are what CIFAR networks are trained with since He et al.
    2016 (section 4.2).  `tinycnn.data.Augment(shift=4, mirror=True)` is the same, in one kernel on a GPU.

    Attributes:
        size: of the window, one number or (height, width).
        padding: how wide the border is.
        padding_mode: what it shows: ``"constant"`` is ``fill``; ``"edge"`` the outermost pixel; ``"reflect"`` the
            mirror image about that pixel, ``"symmetric"`` with that pixel twice.
        fill: one number, or one for every channel.

    Raises:
        ValueError: an argument out of range, an unknown mode, or a window larger than the image with its border.

    >>> x = np.full((1, 1, 2, 2), 7, np.uint8)
    >>> RandomCrop((2, 4), padding=1)(x, np.random.default_rng(0))[0, 0].tolist()
    [[0, 7, 7, 0], [0, 0, 0, 0]]
    """

    size: int | tuple[int, int]
    padding: int = 0
    padding_mode: str = "constant"
    fill: Fill = 0

    def __post_init__(self) -> None:
        sides(self, "size", self.size)
        sides(self, "padding", self.padding, 0)
        if self.padding_mode not in PADDING_MODES:
            raise ValueError(f"RandomCrop: padding_mode must be one of {PADDING_MODES}, got {self.padding_mode!r}")

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Cut the windows out."""
        OH, OW = sides(self, "size", self.size)
        if self.padding:
            x = padded(x, self.padding, self.padding, self.padding_mode, self.fill)
        N, H, W, _ = x.shape
        if OH > H or OW > W:
            raise ValueError(f"RandomCrop: a window of {OH}×{OW} does not fit into {H}×{W}, the border included")
        top, left = rng.integers(0, H - OH + 1, N), rng.integers(0, W - OW + 1, N)
        return windows(x, top, left, (OH, OW))
