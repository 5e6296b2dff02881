"""What transforms of images share: memory order, types of numbers, and checks of what users pass.

A transform is called with a batch of images (N, C, H, W) and a generator, ``T(…)(x, rng)``, and returns the batch
changed, in the dtype it had, on channels-last memory.  It works in two steps: a few numbers for every image are drawn
on the CPU, from ``rng`` alone, and what follows is arithmetic on arrays of NumPy or CuPy.  So a GPU does to every image
what the CPU does: to the bit where pixels are only moved or set, and up to rounding where floats are computed.

Pixels are bytes 0..255, or floats that are taken to lie in 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module, device_of, to_device

Range: TypeAlias = float | tuple[float, float]
"""A number a, for −a … a (or around 1, where that is said), or (least, most)."""
Fill: TypeAlias = float | tuple[float, ...]
"""What is put where an image has nothing: one number, or one for every channel, in the images' own units."""
PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


class ImageTransform:
    """Base of the transforms: ``T(x, rng)`` on images (N, C, H, W), by way of `change` on (N, H, W, C).

    Raises:
        ValueError: the array has not four axes, or is neither of bytes nor of floats.
    """

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images changed; ``x`` is left as it was (what nothing happens to may be ``x`` itself)."""
        if x.ndim != 4 or (x.dtype.kind in "iubc" and x.dtype != np.uint8):
            raise ValueError(
                f"{type(self).__name__} takes images (N, C, H, W) of uint8 or floats, got {x.dtype} {tuple(x.shape)}"
            )
        # (N, C, H, W) -> (N, H, W, C), contiguous, and back as a view
        y = self.change(array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1)), rng)
        return y.transpose(0, 3, 1, 2)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images (N, H, W, C), changed and contiguous."""
        raise NotImplementedError


# ---- types of numbers ------------------------------------------------------------------------------------------


def as_floats(x: Array) -> Array:
    """Return bytes and floats of 16 bits as float32, other floats as they are."""
    return x.astype(np.float32) if x.dtype.itemsize < 4 else x


def as_before(y: Array, x: Array) -> Array:
    """Return computed pixels ``y`` in the dtype of ``x``, bytes rounded to the nearest and clipped to 0..255."""
    if x.dtype == np.uint8:
        y = array_module(y).clip(array_module(y).rint(y), 0, 255)
    return y.astype(x.dtype, copy=False)


def full_scale(x: Array) -> int:
    """Return the value of full intensity: 255 for bytes, 1 for floats."""
    return 255 if x.dtype == np.uint8 else 1


def beside(values: np.ndarray, x: Array, axes: int) -> Array:
    """Return numbers drawn, (N,), in the float type and on the device of ``x``, with ``axes`` more axes of length 1."""
    dtype = x.dtype if x.dtype.itemsize >= 4 else np.float32
    # (N,) -> (N, 1, …, 1)
    return to_device(values.astype(dtype), device_of(x)).reshape(-1, *(1,) * axes)


# ---- borders ---------------------------------------------------------------------------------------------------


def pixel(fill: Fill, x: Array) -> Array:
    """Return ``fill`` as a pixel (C,) of the images (N, H, W, C).

    Raises:
        ValueError: a number of values other than 1 and C, or values that bytes cannot have.
    """
    C, values = x.shape[3], np.atleast_1d(np.asarray(fill, np.float64))
    if values.shape not in ((1,), (C,)):
        raise ValueError(f"fill must be one number or one for each of the {C} channels, got {fill}")
    if x.dtype == np.uint8 and not all(v in range(256) for v in values):
        raise ValueError(f"fill of uint8 images must be whole numbers from 0 to 255, got {fill}")
    return to_device(np.resize(values, C).astype(x.dtype), device_of(x))


def padded(x: Array, rows: int, cols: int, mode: str = "constant", fill: Fill = 0) -> Array:
    """Return the images (N, H, W, C) with a border: (N, H + 2·rows, W + 2·cols, C).

    With mode ``"constant"`` it is ``fill``; the others continue the image as `numpy.pad` does.
    """
    (N, H, W, C), xp = x.shape, array_module(x)
    if mode != "constant":
        return xp.pad(x, ((0, 0), (rows, rows), (cols, cols), (0, 0)), mode=mode)
    y = xp.empty((N, H + 2 * rows, W + 2 * cols, C), x.dtype)
    y[...] = pixel(fill, x)
    y[:, rows : rows + H, cols : cols + W] = x
    return y


# ---- arguments -------------------------------------------------------------------------------------------------


def check_probability(owner: object, p: float) -> None:
    """Raise ValueError unless ``p`` is a probability."""
    if not 0 <= p <= 1:
        raise ValueError(f"{type(owner).__name__}: p must lie between 0 and 1, got {p!r}")


def check_range(owner: object, name: str, values: Sequence[float], least: float, most: float = np.inf) -> None:
    """Raise ValueError unless ``values`` are (a, b) with least ≤ a ≤ b ≤ most."""
    if len(values) != 2 or not least <= values[0] <= values[1] <= most:
        raise ValueError(
            f"{type(owner).__name__}: {name} must be (a, b) with {least:g} ≤ a ≤ b ≤ {most:g}, got {tuple(values)}"
        )


def range_around(centre: float, value: Range) -> tuple[float, float]:
    """Return (centre − value, centre + value), or ``value`` itself if it is a range already."""
    if isinstance(value, tuple | list):
        return tuple(value)  # type: ignore[return-value]
    return centre - value, centre + value


def sides(owner: object, name: str, size: int | tuple[int, int], least: int = 1) -> tuple[int, int]:
    """Return (height, width) of one number, or of both.

    Raises:
        ValueError: they are not whole numbers from ``least`` on.
    """
    both = tuple(size) if isinstance(size, tuple | list) else (size, size)
    if len(both) != 2 or not all(isinstance(v, int | np.integer) and v >= least for v in both):
        raise ValueError(
            f"{type(owner).__name__}: {name} must be a whole number from {least} on, or two of them, got {size!r}"
        )
    return both
