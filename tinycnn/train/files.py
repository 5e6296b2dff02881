"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes) -> None:
    """Put ``content`` into the file at ``path``; whoever looks sees the old file or the new one, nothing between.

    The bytes go to a temporary name in the same folder, are pushed to the disk, and only then take the name: a
    rename within a folder is atomic.  A process killed on the way leaves the temporary file, and the next
    write of the same name overwrites it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


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
