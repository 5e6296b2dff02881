"""IDX, the file format of MNIST: a header of sizes, then the values.

    00 00  type  D      type: one byte, see `TYPES`;  D: the number of dimensions, one byte
    D sizes             four bytes each, unsigned, most significant byte first
    values              last index fastest, most significant byte first

``00 00 08 03`` therefore opens a file of images (bytes, three dimensions: image, row, column) and
``00 00 08 01`` one of labels.  Source: LeCun, Cortes & Burges, "The MNIST database", file format section.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .files import DataError, PathLike, read_bytes

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""Type byte -> dtype."""
MAX_DIMENSIONS = 32
"""As many as an array of every version of NumPy can have."""
GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: PathLike) -> np.ndarray:
    """Read an IDX file, plain or gzipped, whatever its name says.

    Returns:
        A new array of the file's shape and type, in this machine's byte order.

    Raises:
        DataError: the file is missing, truncated, longer than its header says, fails gzip's own
            checksum, or is something else altogether.
    """
    return parse_idx(read_bytes(Path(path)), path)


def parse_idx(raw: bytes, path: PathLike) -> np.ndarray:
    """Do what `read_idx` does, with the content ``raw`` of the file at ``path`` (which errors name)."""
    if raw.startswith(GZIP_MAGIC):
        raw = _gunzip(raw, path)
    dtype, shape, start = _parse_header(raw, path)
    expected, found = math.prod(shape) * dtype.itemsize, len(raw) - start
    if found != expected:
        what = "truncated" if found < expected else "longer than it should be"
        raise DataError(
            f"{path}: {what}: its header, shape {shape} of {dtype.name}, announces {expected:,} bytes of values "
            f"and {found:,} follow: download the file again"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def _gunzip(raw: bytes, path: PathLike) -> bytes:
    try:
        return gzip.decompress(raw)
    except EOFError:
        raise DataError(f"{path}: truncated: the gzip stream stops before its end: download the file again") from None
    except (OSError, zlib.error, struct.error) as error:  # struct.error: cut inside the gzip header, Python 3.10
        raise DataError(f"{path}: damaged: {error}: download the file again") from None


def _parse_header(raw: bytes, path: PathLike) -> tuple[np.dtype, tuple[int, ...], int]:
    """Return (dtype, shape, offset of the first value)."""
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in TYPES or raw[3] == 0:
        raise DataError(
            f"{path}: not an IDX file: it starts with {raw[:4].hex(' ') or 'nothing'}, MNIST's images with "
            f"00 00 08 03 and labels with 00 00 08 01: name the right file, or download it again"
        )
    D, start = raw[3], 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{path}: truncated: {len(raw)} bytes hold no header of {D} sizes: download the file again")
    if D > MAX_DIMENSIONS:
        raise DataError(f"{path}: an array of {D} dimensions: not an IDX file of images or labels: download it again")
    return np.dtype(TYPES[raw[2]]), struct.unpack(f">{D}I", raw[4:start]), start
