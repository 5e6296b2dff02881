"""Pictures in files (JPEG, PNG and whatever else Pillow reads) as grey or RGB pixels of 8 bits."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from .files import DataError, PathLike

MODES = {1: "L", 3: "RGB"}
"""Pillow's name of a picture of so many channels."""
LONGEST = 100
"""The longer side over the shorter one: beyond that a resized picture would take all memory."""


def open_picture(raw: bytes, path: PathLike, channels: int) -> Any:
    """Return a picture of Pillow's in grey (one channel) or RGB (three), the right way up, on white where transparent.

    Args:
        raw: content of the file.
        path: names the file in errors.
        channels: 1 or 3.

    Raises:
        DataError: damaged, no picture, or too large; or Pillow is absent.
    """
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
                return _in_mode(ImageOps.exif_transpose(file), channels, path)
    except DataError:
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: too large, over {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels: shrink it") from None
    except (OSError, ValueError, SyntaxError) as error:
        what = "not an image that Pillow reads" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path}: {what}: is it whole, and an image?") from None


def _in_mode(picture: Any, channels: int, path: PathLike) -> Any:
    """Return the picture in grey or RGB, on white where it is transparent."""
    from PIL import Image

    if picture.mode.startswith("I;16"):  # 0..65535; Pillow's own conversion would cut off at 255
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise DataError(f"{path}: pixels of 32 bits have no known range: save it with 8 or 16 bits per pixel")
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert(MODES[channels])


def cover(picture: Any, size: tuple[int, int], path: PathLike, shorter: int | None = None) -> Any:
    """Return the middle (H, W) of a picture of Pillow's whose shorter side is first brought to ``shorter`` pixels.

    Shrinking, every pixel counts (bilinear, antialiased), as in torchvision's ``Resize``.

    Args:
        picture: any.
        size: (H, W).
        path: names the file in errors.
        shorter: at least the larger of both; by default the picture becomes just large enough to cover (H, W).

    Raises:
        DataError: a picture that is a mere line.
    """
    from PIL import Image

    (w, h), (H, W) = picture.size, size
    if max(w, h) > LONGEST * min(w, h):
        raise DataError(f"{path}: {w}×{h} pixels, over {LONGEST} times as long as wide: cut out the part that counts")
    if shorter is None:
        scale = max(W / w, H / h)
        new = max(W, round(w * scale)), max(H, round(h * scale))
    else:
        new = max(shorter, int(shorter * w / h)), max(shorter, int(shorter * h / w))
    picture = picture.resize(new, Image.Resampling.BILINEAR)
    left, top = round((new[0] - W) / 2), round((new[1] - H) / 2)
    return picture.crop((left, top, left + W, top + H))
