"""Rectangles within images, one for each: where to crop, what to erase, what to paste.

A batch of boxes is an array (4, N): top, left, bottom, right, the last two exclusive.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module, device_of, to_device

ATTEMPTS = 10
"""How many boxes are drawn for an image before giving up on one that fits."""


def draw_boxes(
    N: int,
    H: int,
    W: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a box within each of N images of H×W: its area, its shape, then its place.

    The area is uniform in ``scale``·H·W, width over height uniform in its logarithm between the two of ``ratio``, so
    that wide and tall are equally likely for (1/r, r).  Of `ATTEMPTS` the first that fits is taken.

    Returns:
        The boxes (4, N), and which images have one, (N,) bool; the others' boxes are the whole image.
    """
    area = H * W * rng.uniform(*scale, (ATTEMPTS, N))
    shape = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1]), (ATTEMPTS, N)))
    h, w = np.rint(np.sqrt(area / shape)).astype(np.int64), np.rint(np.sqrt(area * shape)).astype(np.int64)
    fits = (h >= 1) & (h <= H) & (w >= 1) & (w <= W)
    first, found = np.argmax(fits, axis=0), np.logical_or.reduce(fits)
    h, w = (np.where(found, np.take_along_axis(v, first[None], 0)[0], whole) for v, whole in ((h, H), (w, W)))
    top, left = rng.integers(0, H - h + 1), rng.integers(0, W - w + 1)
    return np.stack([top, left, top + h, left + w]), found


def draw_around(N: int, H: int, W: int, size: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw boxes (4, N) of ``size`` (2, N) or (2, 1) whose middle is any pixel; what is beyond the edge is cut off."""
    middle = np.stack([rng.integers(0, H, N), rng.integers(0, W, N)])
    corner = middle - size // 2
    limits = np.array([[H], [W]])
    return np.concatenate([np.clip(corner, 0, limits), np.clip(corner + size, 0, limits)])


def inside(boxes: np.ndarray, x: Array) -> Array:
    """Return which pixels of the images (N, H, W, C) lie in their boxes, (N, H, W, 1) bool."""
    (_, H, W, _), xp = x.shape, array_module(x)
    # (4, N) -> (4, N, 1, 1)
    top, left, bottom, right = to_device(boxes, device_of(x))[..., None, None]
    h, w = xp.arange(H)[:, None], xp.arange(W)
    return ((h >= top) & (h < bottom) & (w >= left) & (w < right))[..., None]
