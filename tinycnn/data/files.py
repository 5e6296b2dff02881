"""Finding a dataset's files in the user's data directory, and refusing wrong ones.

A published file is read whole and its MD5 compared before anything looks inside, so what is parsed is what
was published.  (MD5 is what the publishers give; it guards against damage and mix-ups, not against forgers.)
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

VARIABLE = "TINYCNN_DATA"
"""The environment variable that names the data directory when no argument does."""

PathLike: TypeAlias = str | os.PathLike[str]


class DataError(ValueError):
    """A data file is missing, damaged or not what it should be; the message names it and the cure."""


@dataclass(frozen=True)
class Source:
    """Where a dataset's files come from, and where they may lie.

    Attributes:
        name: the dataset's.
        url: where a user finds the files.
        folders: places below the data directory, in the order in which they are tried.
    """

    name: str
    url: str
    folders: tuple[str, ...]


def data_directory(source: Source, data_dir: PathLike | None = None) -> Path:
    """Return the folder to look in: ``data_dir``, else what ``$TINYCNN_DATA`` says.

    Raises:
        DataError: neither is given, or the folder does not exist.
    """
    chosen = data_dir if data_dir is not None else os.environ.get(VARIABLE)
    if not chosen:
        raise DataError(
            f"{source.name}: no data directory: download the files from {source.url} into a folder "
            f"and name it by data_dir (--data-dir) or ${VARIABLE}"
        )
    root = Path(chosen).expanduser()
    if not root.is_dir():
        origin = "data_dir" if data_dir is not None else f"${VARIABLE}"
        raise DataError(
            f"{source.name}: the data directory {root} ({origin}) is not a folder: "
            f"create it and download the files from {source.url} into it, or name another"
        )
    return root


def find(source: Source, names: Sequence[str], data_dir: PathLike | None = None) -> Path:
    """Return the first file of any of these names in any of the source's folders.

    Raises:
        DataError: there is none; the message says where it was looked for and where to get it.
    """
    root = data_directory(source, data_dir)
    for folder in source.folders:
        for name in names:
            if (path := root / folder / name).is_file():
                return path
    looked = ", ".join(folder or "." for folder in source.folders)
    raise DataError(
        f"{source.name}: no {' or '.join(names[:2])} in {root} (looked in {looked}): download it from {source.url} "
        f"into {root / source.folders[0]}, or name another folder by data_dir (--data-dir) or ${VARIABLE}"
    )


def read_bytes(path: Path) -> bytes:
    """Return the whole file.

    Raises:
        DataError: it cannot be opened or read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from None


def md5(raw: bytes) -> str:
    """Return the MD5 of ``raw`` in hexadecimal."""
    return hashlib.md5(raw, usedforsecurity=False).hexdigest()


def check_md5(raw: bytes, expected: Collection[str], path: PathLike, source: Source, hint: str = "") -> None:
    """Make sure that ``raw``, read from ``path``, has one of the published checksums.

    Raises:
        DataError: it has none of them.
    """
    found = md5(raw)
    if found not in expected:
        raise DataError(
            f"{path}: {len(raw):,} bytes with MD5 {found}, published is {' or '.join(expected)}: "
            f"{hint or 'the file is damaged or another one'}; download it again from {source.url}"
        )
