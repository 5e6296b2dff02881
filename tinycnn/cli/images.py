"""Images from files, as a network's input wants them before scaling: (1, C, H, W)."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from ..data import DataError
from ..data.files import read_bytes

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
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise DataError(
            f"{path}: reading images needs Pillow: pip install 'tinycnn[data]', or give .npy arrays"
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw)) as file:
                x = np.asarray(_in_mode(ImageOps.exif_transpose(file), channels, path))
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: too large, over {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: shrink it") from None
    except (OSError, ValueError, SyntaxError) as error:
        what = "not an image that Pillow reads" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: {what}: is it whole, and an image?") from None
    # (H, W) -> (1, H, W), or (H, W, C) -> (C, H, W)
    return x[None] if x.ndim == 2 else x.transpose(2, 0, 1)


def _in_mode(picture: Any, channels: int, path: Path) -> Any:
    """Return the picture in grey or RGB, on white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith("I;16"):  # 0..65535; Pillow's own conversion would cut off at 255
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert(
            "L" if channels == GRAY else "RGB"
        )
    if picture.mode in ("I", "F"):
        raise DataError(f"{path}: pixels of 32 bits have no known range: save it with 8 or 16 bits per pixel")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L" if channels == GRAY else "RGB")
