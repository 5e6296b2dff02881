"""Images from files, as a network's input wants them before scaling: (1, C, H, W)."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from ..data import DataError
from ..data.files import read_bytes
from ..data.picture import open_picture

GRAY, RGB = 1, 3


def read_image(path: Path, channels: int, invert: bool = False) -> np.ndarray:
    """Return an image as (1, C, H, W): uint8, or floats between 0 and 1 from a ``.npy`` file that holds them.

    Args:
        path: of a ``.npy`` array (H, W), (C, H, W) or (H, W, C), or of anything that Pillow reads.
        channels: C, 1 for grey or 3 for red, green, blue.
        invert: exchange dark and bright.

    Raises:
        DataError: no such file, damaged, no image, of the wrong shape or values; or Pillow is needed and absent.
    """
    raw = read_bytes(path)
    x = _from_npy(raw, path, channels) if path.suffix == ".npy" else _from_picture(raw, path, channels)
    if invert:
        x = (255 if x.dtype == np.uint8 else 1) - x
    # (C, H, W) -> (1, C, H, W)
    return x[None]


def bright_border(x: np.ndarray) -> bool:
    """Whether the outermost pixels of (1, C, H, W) are bright on average: ink on paper, most likely."""
    edges = [x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]]
    full = 255 if x.dtype == np.uint8 else 1
    return bool(np.concatenate([edge.ravel() for edge in edges]).mean() > full / 2)


def _from_npy(raw: bytes, path: Path, channels: int) -> np.ndarray:
    try:
        x = np.load(io.BytesIO(raw), allow_pickle=False)
    except Exception as error:  # numpy.load parses a header of Python: damaged ones raise some ten kinds
        raise DataError(f"{path}: not a whole .npy file of numbers ({error}): save it with numpy.save") from None
    if not isinstance(x, np.ndarray):
        raise DataError(f"{path}: an archive of arrays, not one array: save it with numpy.save")
    x = x[None] if x.ndim == 2 else x
    if x.ndim == 3 and x.shape[0] != channels and x.shape[2] == channels:
        x = x.transpose(2, 0, 1)  # (H, W, C) -> (C, H, W)
    if x.ndim != 3 or x.shape[0] != channels or x.size == 0:
        raise DataError(
            f"{path}: shape {x.shape}: the network takes images of {channels} channel(s), ({channels}, H, W)"
        )
    if x.dtype == np.uint8:
        return x
    if x.dtype.kind != "f":
        raise DataError(f"{path}: must hold uint8, or floats between 0 and 1, got {x.dtype}")
    if not (np.isfinite(x).all() and x.min() >= 0 and x.max() <= 1):
        raise DataError(
            f"{path}: must hold uint8, or floats between 0 and 1, got {x.dtype} from {x.min()} to {x.max()}"
        )
    return x.astype(np.float32)


def _from_picture(raw: bytes, path: Path, channels: int) -> np.ndarray:
    x = np.asarray(open_picture(raw, path, channels))
    # (H, W) -> (1, H, W), or (H, W, C) -> (C, H, W)
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
