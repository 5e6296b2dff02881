"""Images bent and turned: every new pixel looks up where it comes from, and interpolates there.

=======  =======================================================================
x        images (N, H, W, C);  u, v: row and column, real numbers, pixel centres at whole ones
A        the map of places, about the centre of the image c:  place ↦ A·(place − c) + c + t
=======  =======================================================================

A pixel of the result at q shows the old image at the place that is mapped to q, so what is needed is the inverse::

    (u, v) = A⁻¹·(q − c − t) + c

With i = ⌊u⌋, j = ⌊v⌋, α = u − i and β = v − j, **bilinear** interpolation goes along two rows, then between them::

    above = x[i, j] + β·(x[i, j+1] − x[i, j]),   below = the same in row i+1
    y     = above + α·(below − above)

Beyond the edge the image is ``fill`` and the interpolation blends over to it, so that y is continuous in (u, v): a
border of one pixel of ``fill`` is put around, and places further away are moved onto it.  For whole u and v a pixel
comes out as it went in.

Cost: four reads of memory at random for each number of y, three multiplications.
Sources: Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks", section 2 (why images are
distorted to train); the decomposition of A is that of torchvision's RandomAffine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from .base import Fill, ImageTransform, Range, as_before, as_floats, check_range, padded, range_around

# ---- making ----------------------------------------------------------------------------------------------------


def sampled(x: Array, rows: Array, cols: Array, fill: Fill = 0) -> Array:
    """Return the images (N, H, W, C) looked up at real places, ``rows`` and ``cols`` (N, OH, OW): (N, OH, OW, C)."""
    C, stride = x.shape[3], x.shape[2] + 2
    index, alpha, beta = _neighbours(rows, cols, x.shape[:3])
    framed = padded(x, 1, 1, fill=fill)
    y = array_module(x).empty((*rows.shape, C), x.dtype)
    for c in range(C):  # one channel after the other: weights and pixels are then arrays of one shape, all in the cache
        # (N, H + 2, W + 2) -> (N·(H + 2)·(W + 2),)
        plane = as_floats(framed[..., c]).reshape(-1)
        above = _between(plane[index], plane[1:][index], beta)
        below = _between(plane[stride:][index], plane[stride + 1 :][index], beta)
        y[..., c] = as_before(_between(above, below, alpha), x)
    return y


def _neighbours(rows: Array, cols: Array, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Return where the upper left of the four pixels is in the framed images, laid out in a row, and α and β."""
    (N, H, W), xp = shape, array_module(rows)
    u, v = (xp.clip(place + 1, 0, n + 1) for place, n in ((rows, H), (cols, W)))  # 1 is where the image begins
    i, j = (xp.minimum(xp.floor(place), n) for place, n in ((u, H), (v, W)))
    u -= i
    v -= j
    index = i.astype(np.int64)
    index *= W + 2
    index += j.astype(np.int64)
    index += xp.arange(N)[:, None, None] * ((H + 2) * (W + 2))
    return index, u, v


def _between(a: Array, b: Array, share: Array) -> Array:
    """Return a + share·(b − a), overwriting both."""
    b -= a
    b *= share
    a += b
    return a


def inverse_places(x: Array, maps: np.ndarray, moves: np.ndarray) -> tuple[Array, Array]:
    """Return the rows and columns (N, H, W) that the pixels of affinely mapped images come from.

    Args:
        x: the images (N, H, W, C).
        maps: A for every image, (N, 2, 2), of (row, column).
        moves: t, (2, N).
    """
    (_, H, W, _), xp = x.shape, array_module(x)
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    centre = (H - 1) / 2, (W - 1) / 2
    # (N, 2, 2) -> (2, 2, N, 1, 1);  (2, N) -> (2, N, 1, 1)
    a = to_device(np.linalg.inv(maps).transpose(1, 2, 0)[..., None, None].astype(dtype), device_of(x))
    t = to_device(moves[..., None, None].astype(dtype), device_of(x))
    h = (xp.arange(H) - centre[0]).astype(dtype)[:, None] - t[0]  # (N, H, 1)
    w = (xp.arange(W) - centre[1]).astype(dtype) - t[1]  # (N, 1, W)
    rows, cols = (a[k, 0] * h + a[k, 1] * w + dtype(centre[k]) for k in (0, 1))
    return rows, cols


def affine_maps(degrees: np.ndarray, scale: np.ndarray, shear: np.ndarray) -> np.ndarray:
    """Return A of (row, column) for every image, (N, 2, 2).

    To the right along x and down along y, with angles a (clockwise), and k and l of the shears::

        (x, y) ↦ scale · [cos a  −sin a] · [   1    0] · [1  −tan k] · (x, y)
                         [sin a   cos a]   [−tan l  1]   [0     1  ]

    Args:
        degrees: a, (N,).
        scale: (N,).
        shear: k and l in degrees, (2, N).
    """
    a, (k, l) = np.deg2rad(degrees), np.tan(np.deg2rad(shear))  # noqa: E741 (as in the formula)
    zero, one, cos, sin = np.zeros_like(a), np.ones_like(a), np.cos(a), np.sin(a)
    turn, along_y, along_x = (
        # (2, 2, N) -> (N, 2, 2)
        np.array(rows).transpose(2, 0, 1)
        for rows in ([[cos, -sin], [sin, cos]], [[one, zero], [-l, one]], [[one, -k], [zero, one]])
    )
    # of (x, y) -> of (y, x)
    return scale[:, None, None] * (turn @ along_y @ along_x)[:, ::-1, ::-1]


# ---- drawing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RandomAffine(ImageTransform):
    """Turn, move, enlarge and shear every image about its centre, by amounts drawn uniformly; bilinear.

    Attributes:
        degrees: of rotation, clockwise for positive ones: d for −d … d, or (least, most); 0 for none.
        translate: (a, b): moves by at most a·W to the sides and b·H up and down, in whole pixels.
        scale: (least, most) factor of size.
        shear: degrees: s for −s … s along x; (least, most) along x; or four numbers, along x and along y.
        fill: what comes in at the borders, one number or one for every channel.

    Raises:
        ValueError: an argument out of range.

    >>> x = np.array([[[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]], np.uint8)
    >>> RandomAffine(degrees=(90, 90))(x, np.random.default_rng(0))[0, 0].tolist()
    [[7, 4, 1], [8, 5, 2], [9, 6, 3]]
    """

    degrees: Range
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: float | tuple[float, ...] | None = None
    fill: Fill = 0

    def __post_init__(self) -> None:
        check_range(self, "degrees", range_around(0, self.degrees), -np.inf)
        if self.translate is not None and not (len(self.translate) == 2 and all(0 <= t <= 1 for t in self.translate)):
            raise ValueError(f"RandomAffine: translate must be two numbers between 0 and 1, got {self.translate}")
        if self.scale is not None and not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1] < np.inf):
            raise ValueError(f"RandomAffine: scale must be (a, b) with 0 < a ≤ b, got {self.scale}")
        for along in self._shears():
            check_range(self, "shear", along, -89, 89)

    def _shears(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Return the ranges of degrees along x and along y."""
        if isinstance(self.shear, tuple | list) and len(self.shear) == 4:
            return (self.shear[0], self.shear[1]), (self.shear[2], self.shear[3])
        return range_around(0, self.shear or 0), (0, 0)  # type: ignore[arg-type]

    def draw(self, N: int, H: int, W: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw A, (N, 2, 2), and t, (2, N), of `inverse_places`."""
        degrees = rng.uniform(*range_around(0, self.degrees), N)
        right, down = np.multiply(self.translate or (0, 0), (W, H))
        moves = np.rint([rng.uniform(-down, down, N), rng.uniform(-right, right, N)])
        scale = rng.uniform(*(self.scale or (1.0, 1.0)), N)
        shear = np.stack([rng.uniform(*along, N) for along in self._shears()])
        return affine_maps(degrees, scale, shear), moves

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Map the images."""
        N, H, W, _ = x.shape
        rows, cols = inverse_places(x, *self.draw(N, H, W, rng))
        return sampled(x, rows, cols, self.fill)


@dataclass(frozen=True)
class RandomRotation(ImageTransform):
    """Turn every image about its centre by an angle drawn uniformly; bilinear.

    Attributes:
        degrees: d for −d … d, or (least, most); counter-clockwise for positive ones.
        fill: what comes in at the corners, one number or one for every channel.

    Raises:
        ValueError: degrees are no range.
    """

    degrees: Range
    fill: Fill = 0

    def __post_init__(self) -> None:
        check_range(self, "degrees", range_around(0, self.degrees), -np.inf)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Turn the images."""
        least, most = range_around(0, self.degrees)
        return RandomAffine((-most, -least), fill=self.fill).change(x, rng)
