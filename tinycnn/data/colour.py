"""Other light, other colours.

=======  =================================================================================
p        a pixel, its channels between 0 and 1;  g its grey, 0.299·r + 0.587·g + 0.114·b
ḡ        the mean of g over the image
=======  =================================================================================

::

    brightness   p ← b·p
    contrast     p ← c·p + (1 − c)·ḡ
    saturation   p ← s·p + (1 − s)·g
    hue          the colour circle turned by h of a turn; value and saturation of HSV stay

each clipped to 0..1.  The first three blend an image with black, with its mean grey, and with its grey version: 0 is
those, 1 the image, more goes beyond it.

**Hue.**  With v = max p, m = min p and d = v − m, the six edges of the colour hexagon are numbered by H: of a pixel
whose largest channel is red H = (g − b)/d, green (b − r)/d + 2, blue (r − g)/d + 4 (Smith 1978, "Color gamut transform
pairs").  Back from H, between 0 and 6: along the circle each channel is full for a third, 0 for a third, and a straight
line in between, so p = m + d·(|H − 3| − 1, 2 − |H − 2|, 2 − |H − 4|), what d multiplies clipped to 0..1.

`tinycnn.data.Augment` makes brightness, contrast, saturation and lighting in one step, without clipping in between;
on a GPU in the kernel that forms the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module
from .augment import GREY, Augment, Augmentation, Changes
from .base import ImageTransform, Range, as_before, as_floats, beside, check_range, full_scale, range_around

NAMES = ("brightness", "contrast", "saturation", "hue")

# ---- making changes, of planes (C, N, H, W) with values in 0..1 ------------------------------------------------


def grey(p: Array) -> Array:
    """Return how bright the pixels look, (C, N, H, W) -> (N, H, W)."""
    if len(p) == 1:
        return p[0]
    r, g, b = p
    dtype = p.dtype.type
    return dtype(GREY[0]) * r + dtype(GREY[1]) * g + dtype(GREY[2]) * b


def blended(p: Array, other: Array, factor: Array) -> Array:
    """Return factor·p + (1 − factor)·other, clipped to 0..1."""
    return array_module(p).clip(factor * p + (1 - factor) * other, 0, 1)


def brightened(p: Array, factor: Array) -> Array:
    """Return the planes times a factor for every image, (N, 1, 1)."""
    return array_module(p).clip(factor * p, 0, 1)


def contrasted(p: Array, factor: Array) -> Array:
    """Return the planes with their distance from the mean grey of their image multiplied."""
    return blended(p, grey(p).mean(axis=(1, 2), keepdims=True), factor)


def saturated(p: Array, factor: Array) -> Array:
    """Return the planes with their distance from grey multiplied."""
    return blended(p, grey(p), factor)


def hue_turned(p: Array, turns: Array) -> Array:
    """Return the planes of red, green and blue with the hue of every image moved by ``turns`` (N, 1, 1)."""
    xp = array_module(p)
    r, g, b = p
    value, least = p.max(axis=0), p.min(axis=0)
    d = value - least
    safe = xp.where(d == 0, 1, d).astype(p.dtype)  # of grey pixels every hue is right: d multiplies what comes of it
    place = xp.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4)
    place = xp.where(value == r, (g - b) / safe, place) + 6 * turns
    place -= 6 * xp.floor(place / 6)
    shares = xp.abs(place - 3) - 1, 2 - xp.abs(place - 2), 2 - xp.abs(place - 4)
    return xp.stack([least + d * xp.clip(share, 0, 1) for share in shares])


CHANGES = dict(zip(NAMES, (brightened, contrasted, saturated, hue_turned), strict=True))


# ---- drawing them ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue of every image, by amounts of its own.

    They are done one after the other, in an order that is drawn anew for every batch; what is 0 is left out.

    Attributes:
        brightness, contrast, saturation: a for factors uniform in max(0, 1 − a) … 1 + a, or (least, most).
        hue: h for turns of the colour circle in −h … h, at most ½, or (least, most).

    Grey images have brightness and contrast only.

    Raises:
        ValueError: an argument out of range; images of other than 1 and 3 channels.

    >>> x = np.array([200, 0, 0], np.uint8).reshape(1, 3, 1, 1)
    >>> ColorJitter(hue=(1 / 3, 1 / 3))(x, np.random.default_rng(0)).ravel().tolist()  # red becomes green
    [0, 200, 0]
    """

    brightness: Range = 0.0
    contrast: Range = 0.0
    saturation: Range = 0.0
    hue: Range = 0.0

    def __post_init__(self) -> None:
        for name in NAMES:
            value = getattr(self, name)
            if not isinstance(value, tuple | list) and not value >= 0:
                raise ValueError(f"ColorJitter: {name} must be at least 0, got {value!r}")
            least, most = (-0.5, 0.5) if name == "hue" else (0, np.inf)
            check_range(self, name, self._range(name), least, most)

    def _range(self, name: str) -> tuple[float, float]:
        if name == "hue":
            return range_around(0, self.hue)
        value: Range = getattr(self, name)
        least, most = range_around(1, value)
        return (least, most) if isinstance(value, tuple | list) else (max(0.0, least), most)

    def draw(self, N: int, C: int, rng: np.random.Generator) -> list[tuple[str, np.ndarray]]:
        """Draw what happens, in which order, and how much of it to each image, (N,)."""
        wanted = [name for name in (NAMES if C == 3 else NAMES[:2]) if getattr(self, name)]
        return [(wanted[k], rng.uniform(*self._range(wanted[k]), N)) for k in rng.permutation(len(wanted))]

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Change the colours."""
        if x.shape[3] not in (1, 3):
            raise ValueError(f"ColorJitter takes images of 1 or 3 channels, got {x.shape[3]}")
        # (N, H, W, C) -> (C, N, H, W): as planes, a number for every image goes with long runs of pixels
        p = array_module(x).ascontiguousarray(as_floats(x).transpose(3, 0, 1, 2)) / full_scale(x)
        for name, amounts in self.draw(len(x), x.shape[3], rng):
            p = CHANGES[name](p, beside(amounts, x, 2))
        # (C, N, H, W) -> (N, H, W, C)
        return array_module(x).ascontiguousarray(as_before(p * full_scale(x), x).transpose(1, 2, 3, 0))


@dataclass(frozen=True)
class PCALighting(Augmentation):
    """Add the colour noise of AlexNet: every image gets a little more or less light, coloured as images vary.

    With λᵢ and pᵢ the eigenvalues and eigenvectors of the covariance Σ of the channels, over all pixels of the training
    set, and aᵢ normal with deviation ``std``, one draw for an image::

        p ← p + Σᵢ aᵢ·λᵢ·pᵢ

    The noise is drawn as Σz, z normal in every channel: it has the same covariance, std²·Σ².

    Attributes:
        covariance: Σ as `tinycnn.data.pixel_covariance` gives it.
        std: 0.1 in the paper.

    Raises:
        ValueError: std is negative.

    Source: Krizhevsky, Sutskever, Hinton 2012, "ImageNet classification with deep convolutional neural networks",
    section 4.1.
    """

    covariance: tuple[tuple[float, ...], ...]
    std: float = 0.1

    def __post_init__(self) -> None:
        if not self.std >= 0:
            raise ValueError(f"PCALighting: std must be at least 0, got {self.std!r}")

    def draw(self, means: np.ndarray, rng: np.random.Generator) -> Changes:
        """Draw the light of each image."""
        return Augment(lighting=self.std, covariance=self.covariance).draw(means, rng)
