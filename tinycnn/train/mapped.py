"""A file as arrays: mapped into memory, so that a number is read when somebody looks at it.

Loading 138 million weights from an array that was read first would hold them twice.  From a mapped file each goes
straight to its parameter: the system brings a page in when it is touched, and `MappedFile.release` lets pages go that
have been copied.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

PathLike: TypeAlias = str | os.PathLike[str]
PIECE = 8 << 20
"""Bytes that are copied, summed or written at a time."""


class CheckpointError(ValueError):
    """A file of weights is missing, damaged, or not what was asked for; the message names the file and the cure."""


class MappedFile:
    """The bytes of a file, to be read only.

    Args:
        path: of a regular file.  (A pipe could be waited for without end.)

    Attributes:
        path: as given.
        bytes: all of them.

    Raises:
        CheckpointError: there is none, it cannot be read, or it is no regular file.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)
        try:
            descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            raise CheckpointError(f"{path}: there is no such file: check the path") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot be read ({error}): check the path and its permissions") from None
        try:
            what = os.fstat(descriptor)
            if not stat.S_ISREG(what.st_mode):
                raise CheckpointError(f"{path}: not a file: name a file of weights")
            self._map = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) if what.st_size else None
        finally:
            os.close(descriptor)
        self.bytes = memoryview(self._map if self._map is not None else b"")

    def array(self, offset: int, count: int, dtype: np.typing.DTypeLike = np.uint8) -> np.ndarray:
        """Return ``count`` numbers from ``offset`` on, as a vector that cannot be written to."""
        return np.frombuffer(self.bytes, dtype, count, offset) if count else np.empty(0, dtype)

    def release(self) -> None:
        """Let the pages go that have been read so far; one that is looked at again is brought in again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


class Weights(dict[str, np.ndarray]):
    """Arrays by name: views of a mapped file, not to be written to (copy those that shall change).

    They are good as long as nobody shortens the file; replacing it, as everything here does, is no harm.

    Attributes:
        file: where they lie.
        extra: what the file holds beside them: its metadata, or what a training program kept next to its weights.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], file: MappedFile, extra: Mapping[str, Any] | None = None):
        super().__init__(arrays)
        self.file, self.extra = file, dict(extra or {})

    def release(self) -> None:
        """Let go of the memory of what has been read so far (`MappedFile.release`)."""
        self.file.release()

    def renamed(self, arrays: Mapping[str, np.ndarray]) -> Weights:
        """Return ``arrays``, views of the same file, with the same extras."""
        return Weights(arrays, self.file, self.extra)


def pieces(x: np.ndarray, nbytes: int = PIECE) -> Iterator[Any]:
    """Yield indices that cut ``x`` along its first axis into pieces of at most ``nbytes``, or of one row."""
    rows = max(1, nbytes * len(x) // max(x.nbytes, 1)) if x.ndim else 1
    yield from (slice(i, i + rows) for i in range(0, len(x), rows)) if x.ndim else [()]
