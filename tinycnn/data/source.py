"""Where a loader takes images from: memory, a mapped file, or photographs that are decoded when they are asked for.

What they have in common is a `Source`, which is all that a loader needs to know::

    source = data.open_folder("photos", "train", size=(224, 224))   # nothing is decoded yet
    x = source.get(np.array([3, 1, 4]))                             # uint8 (3, 3, 224, 224), three files decoded
    y = source.labels[[3, 1, 4]]
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from ..files import Buffer, write_chunks
from ..parameter import channels_last
from .files import DataError, PathLike

CHUNK = 64 << 20
"""Bytes of images that `write_images` has in memory at a time."""


@runtime_checkable
class Source(Protocol):
    """Labelled images of one size, by number.

    ``get`` may be called by several threads at once: it depends on ``indices`` alone and changes nothing.  It returns
    new memory, which the caller may write to.

    Attributes:
        shape: (C, H, W) of every image.
        labels: int64 (N,), in memory.
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...

    @property
    def labels(self) -> np.ndarray: ...

    def __len__(self) -> int:
        """Number of images, N."""
        ...

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at ``indices`` (n,): uint8 (n, C, H, W) on channels-last memory.

        Raises:
            DataError: a file cannot be read; the message names it.
        """
        ...


class ArraySource:
    """Images in an array, in memory or mapped from a file (`open_images`).

    Args:
        images: uint8 (N, C, H, W); gathering is fastest on channels-last memory.  It is never copied whole.
        labels: integers (N,).

    Raises:
        ValueError: another dtype or number of axes, or lengths that differ.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        labels = np.asarray(labels)
        if images.ndim != 4 or images.dtype != np.uint8:
            raise ValueError(f"images must be uint8 (N, C, H, W), got {images.dtype} {images.shape}")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{len(images):,} images need as many integer labels, got {labels.dtype} {tuple(labels.shape)}"
            )
        self._images = images
        self.labels = labels.astype(np.int64)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, C, H, W = self._images.shape
        return C, H, W

    def __len__(self) -> int:
        return len(self._images)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at ``indices``, see `Source`."""
        # (N, C, H, W) -> (N, H, W, C) -> (n, H, W, C) -> (n, C, H, W): rows are gathered in memory order
        x = np.asarray(self._images.transpose(0, 2, 3, 1)[indices]).transpose(0, 3, 1, 2)
        return channels_last(x)


def open_images(path: PathLike, labels: PathLike) -> ArraySource:
    """Return the images of a ``.npy`` file, mapped into memory: what is not asked for is not read.

    Args:
        path: uint8 (N, H, W, C), or (N, H, W) of one channel, as `write_images` and ``numpy.save`` write them.
        labels: integers (N,), another ``.npy`` file.

    Raises:
        DataError: a file is missing, truncated, no array, or holds something else; lengths differ.
    """
    images, y = _open(Path(path), "r"), _open(Path(labels), None)
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(f"{path}: images must be uint8 (N, H, W, C) or (N, H, W), got {images.dtype} {images.shape}")
    if y.shape != (len(images),) or y.dtype.kind not in "iu":
        raise DataError(
            f"{labels}: {len(images):,} images in {path} need as many integer labels, got {y.dtype} {y.shape}"
        )
    images = images[..., None] if images.ndim == 3 else images  # (N, H, W) -> (N, H, W, 1)
    # (N, H, W, C) -> (N, C, H, W)
    return ArraySource(images.transpose(0, 3, 1, 2), y)


def _open(path: Path, mode: str | None) -> np.ndarray:
    try:
        found = np.load(path, mmap_mode=mode, allow_pickle=False)  # type: ignore[arg-type]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from None
    except Exception as error:  # numpy.load parses a header of Python: damaged ones raise some ten kinds
        raise DataError(f"{path}: not a whole .npy file ({error}): write it again") from None
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: several arrays in one file: give a .npy file with one")
    return found


def write_images(source: Source, path: PathLike) -> None:
    """Write all images of a source into a ``.npy`` file, uint8 (N, H, W, C), a few at a time.

    Photographs are decoded and resized once this way, and every epoch afterwards reads them as they are
    (`open_images`).  The file takes its name when it is complete.

    Raises:
        DataError: an image cannot be read.
        OSError: the file cannot be written.
    """
    write_chunks(Path(path), _npy(source))


def _npy(source: Source) -> Iterator[Buffer]:
    """Yield a ``.npy`` file, piece by piece: its header, then some images at a time."""
    N, (C, H, W) = len(source), source.shape
    header = io.BytesIO()
    about = {"descr": "|u1", "fortran_order": False, "shape": (N, H, W, C)}
    np.lib.format.write_array_header_1_0(header, about)
    yield header.getvalue()
    n = max(1, CHUNK // (C * H * W))
    for i in range(0, N, n):
        # (n, C, H, W) -> (n, H, W, C)
        x = source.get(np.arange(i, min(i + n, N))).transpose(0, 2, 3, 1)
        yield np.ascontiguousarray(x).data.cast("B")
