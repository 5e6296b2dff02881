"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

try:
    import fcntl as _fcntl
except ImportError:  # Windows
    fcntl: ModuleType | None = None
else:
    fcntl = _fcntl

Buffer: TypeAlias = bytes | memoryview


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` into the file at ``path``; whoever looks sees the old file or the new one, nothing between."""
    write_chunks(path, [content])


def write_chunks(path: Path, chunks: Iterable[Buffer]) -> None:
    """As `write_bytes`, for content that comes in pieces, of which only one need be in memory at a time.

    The bytes go to a temporary name in the same folder, are pushed to the disk, and only then take the name: a
    rename within a folder is atomic.  A process killed on the way leaves the temporary file, and the next
    write of the same name overwrites it.

    Raises:
        OSError: it cannot be written, or something that is no file, such as a folder or /dev/null, has the name.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "there is something that is no file: name another", str(path))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # nobody knows the temporary name
            del error.filename2
        raise
    _sync_folder(path.parent)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process out of ``folder`` that asks likewise; a process that ends, however it ends, lets go.

    Raises:
        FileExistsError: another process is in there.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileExistsError(
                f"{folder}: another process is training in this folder: wait for it, or name another folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Push a rename to the disk, where the system lets a folder be opened for that (Windows does not)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_json_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write one line of JSON per row."""
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
