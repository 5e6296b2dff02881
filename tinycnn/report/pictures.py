"""Pixels as pictures within a page: PNG in a ``data:`` address.

A PNG file is a signature and chunks, each with its length, four letters and a CRC: IHDR says how large the picture is,
IDAT holds the rows, each led by a byte for its filter (0: none), in one zlib stream (ISO/IEC 15948).
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from ..data import fit_images

LARGEST = 96
"""Pixels along the longer side that a picture is shrunk to."""
COLD, MIDDLE, WARM = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], np.float64)
"""Blue, nearly white and red: of numbers below, at and above zero."""


def png(pixels: np.ndarray) -> bytes:
    """Return a PNG file of uint8 pixels, grey (H, W) or RGB (H, W, 3)."""
    H, W = pixels.shape[:2]
    # (H, W, C) -> (H, W·C) -> (H, 1 + W·C), rows led by their filter
    rows = np.hstack([np.zeros((H, 1), np.uint8), pixels.reshape(H, -1)])
    header = struct.pack(">IIBBBBB", W, H, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    chunks = _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def address(pixels: np.ndarray) -> str:
    """Return the address of a picture that holds the picture."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def shown(image: np.ndarray) -> np.ndarray:
    """Return an image (C, H, W) of a dataset as pixels to show: its first three channels in RGB, or its first in grey.

    Large ones are shrunk to `LARGEST`.
    """
    C, H, W = image.shape
    image = image[: 3 if C >= 3 else 1]
    longer = max(H, W)
    if longer > LARGEST:
        size = max(1, round(H * LARGEST / longer)), max(1, round(W * LARGEST / longer))
        image = fit_images(image[None], size, method="resize")[0]
    # (C, H, W) -> (H, W, C), or (H, W)
    return np.ascontiguousarray(image.transpose(1, 2, 0)) if len(image) == 3 else np.ascontiguousarray(image[0])


def filters(weight: np.ndarray) -> list[np.ndarray]:
    """Return a picture of each filter of a first convolution.

    Of three input channels, a filter is seen in RGB as the image that excites it most: 0 is the middle of the scale,
    the largest magnitude of the whole layer its ends.  Of any other number, each channel gets a picture of its own on
    a scale from blue (negative) over white to red.

    Args:
        weight: (OC, C, KH, KW).
    """
    weight = weight.astype(np.float64) / max(float(np.abs(weight).max(initial=0)), 1e-30)
    if weight.shape[1] == 3:
        # (OC, 3, KH, KW) -> (OC, KH, KW, 3)
        return list(np.rint(127.5 + 127.5 * weight.transpose(0, 2, 3, 1)).astype(np.uint8))
    # (OC, C, KH, KW) -> (OC·C, KH, KW)
    return [diverging(one) for one in weight.reshape(-1, *weight.shape[2:])]


def diverging(values: np.ndarray) -> np.ndarray:
    """Return numbers from −1 to 1 as colours: (…) -> (…, 3) of uint8."""
    share = np.clip(np.abs(values), 0, 1)[..., None]
    ends = np.where(values[..., None] < 0, COLD, WARM)
    return np.rint(MIDDLE + (ends - MIDDLE) * share).astype(np.uint8)


def heat(counts: np.ndarray) -> np.ndarray:
    """Return a matrix of counts (K, K) as grey pixels: white is none; the darker, the larger the part of its row."""
    part = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.rint(255 - 255 * np.sqrt(part)).astype(np.uint8)
