"""From published pixels to what a network takes: size and scale.

All of these work on whole batches (N, C, H, W), on NumPy and CuPy arrays alike, and return channels-last memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module
from ..parameter import channels_last

PAD_UP_TO = 1.25
"""How many times larger a grey image may become by a border alone, see `fit_images`."""


# ---- scale -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Normalize:
    """Subtract a mean and divide by a standard deviation, channel by channel.

    For pixels p of uint8:   y = (p/255 − mean) / std  =  (p − 255·mean) · 1/(255·std)

    so inputs have about zero mean and unit variance, the range that weight initialisation assumes.
    Floating-point images are taken to lie in 0..1 already.

    Attributes:
        mean, std: one value per channel, as fractions of full intensity.
        dtype: of the result, ``"float32"``, ``"float64"``, ``"float16"`` or ``"bfloat16"``.

    Raises:
        ValueError: lengths differ, a ``std`` is not positive, or the images have another number of channels.

    >>> pixels = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    >>> Normalize((0.2,), (0.4,))(pixels).ravel().round(6)
    array([-0.5,  0. ,  2. ], dtype=float32)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise ValueError(f"Normalize needs as many std as mean, all positive: got mean {self.mean}, std {self.std}")

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return the images (N, C, H, W) scaled, in ``dtype``; nothing is drawn, ``rng`` is there for `Compose`."""
        N, C, H, W = x.shape
        if len(self.mean) != C:
            raise ValueError(f"Normalize has {len(self.mean)} means, the images {C} channels, shape {tuple(x.shape)}")
        offset, factor = array_module(x).asarray(self.scale(255 if x.dtype == np.uint8 else 1))
        # (N, C, H, W) -> (N, H, W, C) -> (N·H, W·C): broadcasting over rows of W·C is faster than over C alone
        y = x.transpose(0, 2, 3, 1).reshape(N * H, W * C).astype(offset.dtype)
        y -= array_module(x).tile(offset, W)
        y *= array_module(x).tile(factor, W)
        # (N·H, W·C) -> (N, H, W, C) -> (N, C, H, W)
        return y.astype(self.dtype, copy=False).reshape(N, H, W, C).transpose(0, 3, 1, 2)

    def scale(self, full: int = 255) -> np.ndarray:
        """Return what is subtracted and what is multiplied by, (2, C), for pixels of 0..full.

        They are float64 for that dtype, else float32: what has 16 bits is rounded at the end.
        """
        mean, std = np.array(self.mean), np.array(self.std)
        return np.stack([mean * full, 1 / (std * full)]).astype("float64" if self.dtype == "float64" else "float32")


# ---- size ------------------------------------------------------------------------------------------------------


def interpolation_matrix(size: int, new_size: int) -> np.ndarray:
    """Return the (new_size, size) matrix that resizes one axis linearly; every row sums to 1.

    With s = size/new_size, the centre of new pixel i lies at u = (i + ½)·s − ½ among the old ones.  Old pixel j
    weighs in with max(0, 1 − |j − u| / max(1, s)), a triangle around u, and the weights are divided by their
    sum.  Enlarging (s ≤ 1), the triangle reaches the two nearest pixels: linear interpolation, edge pixels
    continued outwards.  Shrinking, it widens to s pixels either side, so that none is skipped (no aliasing).
    This is what Pillow's ``BILINEAR`` and PyTorch's ``interpolate(mode="bilinear", antialias=True)`` do.
    """
    s = size / new_size
    u = (np.arange(new_size) + 0.5) * s - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(size) - u[:, None]) / max(1, s))
    return weights / weights.sum(axis=1, keepdims=True)


def _resize(x: Array, size: tuple[int, int]) -> Array:
    xp = array_module(x)
    dtype = np.float32 if x.dtype == np.uint8 else x.dtype
    rows, cols = (
        xp.asarray(interpolation_matrix(old, new).astype(dtype)) for old, new in zip(x.shape[2:], size, strict=True)
    )
    # (OH, H) · (N, C, H, W) · (W, OW) -> (N, C, OH, OW)
    y = rows @ x.astype(dtype) @ cols.T
    return xp.rint(y).astype(np.uint8) if x.dtype == np.uint8 else y


def _pad(x: Array, size: tuple[int, int]) -> Array:
    (N, C, H, W), (OH, OW) = x.shape, size
    top, left = (OH - H) // 2, (OW - W) // 2
    y = array_module(x).zeros((N, C, OH, OW), x.dtype)
    y[:, :, top : top + H, left : left + W] = x
    return y


def fit_images(x: Array, size: tuple[int, int], method: str = "auto") -> Array:
    """Return images brought to another size, of the dtype they had.

    Args:
        x: (N, C, H, W).
        size: (height, width) wanted.
        method: ``"pad"`` sets the image in the middle of a border of zeros, ``"resize"`` interpolates
            (`interpolation_matrix`, along each axis).  ``"auto"`` pads a grey image that is to grow by at most a
            quarter, as LeNet-5 takes MNIST's 28×28 digits on 32×32 (they are drawn on 0), and resizes any other.

    Raises:
        ValueError: a size below 1, an unknown method, or padding to less than the image has.

    >>> fit_images(np.ones((1, 1, 2, 2), np.uint8), (4, 4), "pad")[0, 0].tolist()
    [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    """
    C, H, W = x.shape[1:]
    OH, OW = size
    if min(size) < 1 or method not in ("auto", "pad", "resize"):
        raise ValueError(f"cannot fit images to size {size} by {method!r}: sizes from 1, methods auto, pad, resize")
    grows = OH >= H and OW >= W
    if method == "pad" and not grows:
        raise ValueError(f"cannot pad images of {H}×{W} to {OH}×{OW}: use method='resize'")
    if method == "auto":
        method = "pad" if C == 1 and grows and OH <= PAD_UP_TO * H and OW <= PAD_UP_TO * W else "resize"
    if (OH, OW) != (H, W):
        x = _pad(x, size) if method == "pad" else _resize(x, size)
    return channels_last(x)
