"""Random changes that leave what is on an image: moves, mirroring, light and colour.

An augmentation works in two steps.  `Augmentation.draw` draws what shall happen to every image of a batch, a few
numbers each (`Changes`); making the changes is then arithmetic without chance.  So a GPU makes the CPU's images: the
numbers are drawn on the CPU and sent to it, and `assemble`, which forms a whole batch, is one kernel there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module, device_of, to_device, to_numpy
from ..kernels.cuda import twin

GREY = (0.299, 0.587, 0.114)
"""How bright red, green and blue look, by ITU-R BT.601."""


# ---- making changes --------------------------------------------------------------------------------------------


class Changes(NamedTuple):
    """What happens to each of N images (N, H, W, C).

    Attributes:
        moves: int64 (4, N): how many pixels down and to the right the image moves, zeros following; then 1 if it
            is mirrored, left to right, and 1 if it is turned upside down.
        colours: float32 (N, C, C + 1), rows (M | t): a pixel p, a vector of C channels between 0 and 255, becomes
            Mp + t; or None.
    """

    moves: np.ndarray
    colours: np.ndarray | None = None


def moved(x: Array, moves: np.ndarray) -> Array:
    """Return the images (N, H, W, C), each moved in its own way (see `Changes`)."""
    (N, H, W, C), xp, device = x.shape, array_module(x), device_of(x)
    k = int(np.abs(moves[:2]).max())
    padded = xp.zeros((N, H + 2 * k, W + 2 * k, C), x.dtype)
    padded[:, k : k + H, k : k + W] = x
    # every H×W window as a view: (N, H + 2k, W + 2k, C) -> (N, 2k + 1, 2k + 1, 1, H, W, C)
    windows = xp.lib.stride_tricks.sliding_window_view(padded, (H, W, C), axis=(1, 2, 3))
    top, left = to_device(k - moves[:2], device)
    y = windows[xp.arange(N), top, left, 0]
    for turned, axis in zip(moves[2:], (2, 1), strict=True):
        if turned.any():
            # (N,) -> (N, 1, 1, 1)
            y = xp.where(to_device(turned != 0, device)[:, None, None, None], xp.flip(y, axis), y)
    return y


def coloured(x: Array, colours: np.ndarray) -> Array:
    """Return the images (N, H, W, C) with Mp + t for every pixel p, as in `Changes`.

    The sums run over the channels in order, t first, each step rounded to float32.  The result is clipped to 0..255,
    of bytes it is rounded; floats are taken to lie in 0..1.
    """
    xp, full, is_bytes = array_module(x), np.float32(255), x.dtype == np.uint8
    # (N, C, C + 1) -> (C, C + 1, N, 1, 1);  (N, H, W, C) -> (C, N, H, W): planes are long runs of pixels
    matrices = to_device(colours, device_of(x)).transpose(1, 2, 0)[..., None, None]
    planes = x.transpose(3, 0, 1, 2).astype(np.float32, order="C") * (1 if is_bytes else full)
    y = xp.empty(x.shape, x.dtype)
    for c, row in enumerate(matrices):
        q = xp.zeros(planes.shape[1:], np.float32) + row[-1]
        for k, plane in enumerate(planes):
            q += plane * row[k]
        q = xp.clip(q, 0, full)
        y[..., c] = xp.rint(q) if is_bytes else q / full
    return y


@twin("augment")
def assemble(images: Array, indices: Array, moves: Array | None, colours: Array | None, scale: Array, y: Array) -> None:
    """Write a batch into ``y``: images gathered, moved, coloured and scaled.

        q = the pixel of images[indices[n]] that moves to (h, w), 0 if none does
        q = Mq + t, clipped to 0..255 and rounded, if there are colours
        y[n, h, w, c] = (q[c] − scale[0, c]) · scale[1, c]

    Args:
        images: uint8 (number of images, H, W, C), contiguous.
        indices: int64 (N,), of images.
        moves, colours: see `Changes`; None for none.
        scale: (2, C) of y's dtype, of float32 for one of 16 bits (`Normalize.scale`).
        y: (N, H, W, C), contiguous, written.
    """
    x = images[indices]
    x = x if moves is None else moved(x, moves)
    x = x if colours is None else coloured(x, colours)
    y[...] = (x.astype(scale.dtype) - scale[0]) * scale[1]


# ---- drawing changes -------------------------------------------------------------------------------------------


class Augmentation:
    """A transform for `Loader` that can say beforehand what it will do."""

    uses_means = False
    """Whether `draw` needs the images' means."""

    def draw(self, means: np.ndarray, rng: np.random.Generator) -> Changes:
        """Draw what happens to N images.

        Args:
            means: (N, C), of the pixels of each, between 0 and 255; any numbers unless ``uses_means``.
            rng: the only source of randomness.
        """
        raise NotImplementedError

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images (N, C, H, W), changed, in the dtype they had."""
        x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        means = pixel_means(x) if self.uses_means else np.zeros((x.shape[0], x.shape[3]))
        changes = self.draw(means, rng)
        y = moved(x, changes.moves)
        y = y if changes.colours is None else coloured(y, changes.colours)
        return y.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


def pixel_means(x: Array) -> np.ndarray:
    """Return the mean of every channel of every image, (N, H, W, C) -> (N, C), between 0 and 255.

    Sums of bytes are exact in any order, so that a GPU finds the same means.
    """
    is_bytes = x.dtype == np.uint8
    sums = to_numpy(x.sum(axis=(1, 2), dtype=np.int64 if is_bytes else np.float64))
    return sums * ((1 if is_bytes else 255) / (x.shape[1] * x.shape[2]))


@dataclass(frozen=True)
class RandomShift(Augmentation):
    """Move every image by −pixels … pixels along each axis, drawn uniformly and independently; zeros move in.

    A picture of a 7 one pixel further left is still a 7, and learning so is learning from many times the images.  For
    images in a border of zeros this is the random crop that CIFAR-10 is trained with (He et al. 2016, section 4.2).

    Attributes:
        pixels: the largest shift.

    Raises:
        ValueError: ``pixels`` is negative.
    """

    pixels: int

    def __post_init__(self) -> None:
        if self.pixels < 0:
            raise ValueError(f"RandomShift needs a number of pixels of at least 0, got {self.pixels}")

    def draw(self, means: np.ndarray, rng: np.random.Generator) -> Changes:
        """Draw how far each image moves."""
        moves, k = np.zeros((4, len(means)), np.int64), self.pixels
        moves[:2] = k - rng.integers(0, 2 * k + 1, (2, len(means)))
        return Changes(moves)


@dataclass(frozen=True)
class Augment(Augmentation):
    """All random changes there are, in this order; each is left out unless it is asked for.

    Of an image with pixels p (bytes), and g the grey that looks as bright (`GREY`; the mean of other than three
    channels), with ḡ its mean over the image:

        moves        as `RandomShift`, then mirrored and turned upside down with probability ½ each
        brightness   p ← b·p                 b uniform in 1 ± brightness
        contrast     p ← c·p + (1 − c)·ḡ     c uniform in 1 ± contrast
        saturation   p ← s·p + (1 − s)·g     s uniform in 1 ± saturation
        lighting     p ← p + 255·Σz          z normal with deviation ``lighting``, Σ the covariance of the channels

    The last is the noise of AlexNet (Krizhevsky et al. 2012, section 4.1): the colour of the light changes as colours
    of the images do, by aᵢλᵢ along the i-th principal component with aᵢ normal.  That noise has the covariance PΛ²Pᵀ =
    Σ², and so has Σz: no eigenvectors are needed.

    All four are affine in p, so they are drawn as one matrix and one vector for each image, clipped once at the end.
    ḡ is of the whole image, before it was moved.

    Attributes:
        shift: pixels, at most, along each axis.
        mirror, upside_down: whether images are turned left to right, and top to bottom.
        brightness, contrast, saturation: between 0 and 1; 0.4 is usual for photographs.
        lighting: 0.1 in AlexNet.
        covariance: Σ of the channels as fractions of full intensity, (C, C); see `pixel_covariance`.

    Raises:
        ValueError: a value out of range, or lighting without covariance.
    """

    shift: int = 0
    mirror: bool = False
    upside_down: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    lighting: float = 0.0
    covariance: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        RandomShift(self.shift)
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.lighting < 0 or (self.lighting and self.covariance is None):
            raise ValueError(
                f"lighting must be at least 0 and needs a covariance: got {self.lighting} and {self.covariance}"
            )

    @property
    def uses_means(self) -> bool:  # type: ignore[override]
        """Whether contrast changes, around the mean."""
        return self.contrast > 0

    def draw(self, means: np.ndarray, rng: np.random.Generator) -> Changes:
        """Draw what happens to each image."""
        N = len(means)
        moves = RandomShift(self.shift).draw(means, rng).moves
        moves[2] = rng.integers(0, 2, N) if self.mirror else 0
        moves[3] = rng.integers(0, 2, N) if self.upside_down else 0
        if not (self.brightness or self.contrast or self.saturation or self.lighting):
            return Changes(moves)
        return Changes(moves, self._draw_colours(means, rng))

    def _draw_colours(self, means: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        N, C = means.shape
        b, c, s = (
            1 + amount * rng.uniform(-1, 1, (N, 1)) for amount in (self.brightness, self.contrast, self.saturation)
        )
        grey = np.array(GREY if C == 3 else [1 / C] * C)
        # M = b·c·(s·I + (1 − s)·1·gᵀ): (N, 1) -> (N, 1, 1), (C, C) -> (N, C, C)
        saturation = s[:, None] * np.eye(C) + (1 - s[:, None]) * np.tile(grey, (C, 1))
        colours = np.empty((N, C, C + 1), np.float32)
        colours[..., :-1] = (b * c)[:, None] * saturation
        colours[..., -1] = b * (1 - c) * (means @ grey)[:, None]
        if self.lighting:
            z = rng.normal(scale=self.lighting, size=(N, C))
            colours[..., -1] += 255 * z @ np.asarray(self.covariance)
        return colours


def pixel_covariance(images: np.ndarray) -> tuple[tuple[float, ...], ...]:
    """Return the covariance of the channels over all pixels of images (N, C, H, W), bytes as fractions of 255."""
    C, n = images.shape[1], images.size // images.shape[1]
    sums, products = np.zeros(C), np.zeros((C, C))
    for image in images:  # one at a time: the whole as floats would be eight times its size
        p = image.reshape(C, -1) / (255 if images.dtype == np.uint8 else 1)  # (C, H, W) -> (C, H·W)
        sums, products = sums + p.sum(axis=1), products + p @ p.T
    covariance = products / n - np.outer(sums, sums) / n**2
    return tuple(tuple(row) for row in covariance.tolist())
