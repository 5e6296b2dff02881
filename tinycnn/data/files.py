"""Finding a dataset's files in the user's folders, and refusing wrong ones.

They are looked for below the folder that is given; if none is, below the one that ``$TINYCNN_DATA`` names, and then
among what was downloaded before, in the cache folder (``$TINYCNN_CACHE``, or what the system has for caches).

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

from ..kernels.cuda.measured import cache_folder

VARIABLE = "TINYCNN_DATA"
"""The environment variable that names the data directory when no argument does."""

PathLike: TypeAlias = str | os.PathLike[str]


class DataError(ValueError):
    """A data file is missing, damaged or not what it should be; the message names it and the cure."""


class MissingError(DataError):
    """A data file is in none of the places where it may be."""


# ---- what there is to find -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Download:
    """A file on the web.

    Attributes:
        name: of the file.
        md5s: the published checksum, and others that are as good: of the same content, unzipped.
        size: in bytes.
        urls: where it lies, the first to be tried first.
    """

    name: str
    md5s: tuple[str, ...]
    size: int
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What a dataset cannot do without.

    Attributes:
        names: files that have it, in the order in which they are tried.
        download: the file to download where there is none of them.
    """

    names: tuple[str, ...]
    download: Download


@dataclass(frozen=True)
class Origin:
    """Where a dataset's files come from, and where they may lie.

    Attributes:
        name: the dataset's.
        url: where a user finds the files.
        folders: places below the data directory, in the order in which they are tried.
        parts: none if the dataset cannot be downloaded.
    """

    name: str
    url: str
    folders: tuple[str, ...]
    parts: tuple[Part, ...] = ()


# ---- finding ---------------------------------------------------------------------------------------------------


def downloads_folder() -> Path:
    """Return the folder that datasets are downloaded to, unless another one is named."""
    return cache_folder().expanduser() / "data"


def roots(origin: Origin, data_dir: PathLike | None = None) -> list[Path]:
    """Return the folders to look in: ``data_dir`` alone, or else that of ``$TINYCNN_DATA`` and the downloads.

    Raises:
        MissingError: there is none.
        DataError: the one that is named does not exist.
    """
    downloads = downloads_folder()
    chosen = data_dir if data_dir is not None else os.environ.get(VARIABLE)
    if not chosen:
        if downloads.is_dir():
            return [downloads]
        raise MissingError(
            f"{origin.name}: no data directory, and nothing in {downloads}: {_cure(origin)} into a folder "
            f"and name it by data_dir (--data-dir) or ${VARIABLE}"
        )
    root = Path(chosen).expanduser()
    if not root.is_dir():
        setting = "data_dir" if data_dir is not None else f"${VARIABLE}"
        raise DataError(
            f"{origin.name}: the data directory {root} ({setting}) is not a folder: "
            f"create it and download the files from {origin.url} into it, or name another"
        )
    return [root] if data_dir is not None or not downloads.is_dir() else [root, downloads]


def find(origin: Origin, names: Sequence[str], data_dir: PathLike | None = None) -> Path:
    """Return the first file of any of these names in any of the origin's folders.

    Raises:
        MissingError: there is none; the message says where it was looked for and where to get it.
    """
    tried = roots(origin, data_dir)
    for root in tried:
        for folder in origin.folders:
            for name in names:
                if (path := root / folder / name).is_file():
                    return path
    raise missing(origin, " or ".join(names[:2]), tried)


def missing(origin: Origin, what: str, tried: Sequence[Path]) -> MissingError:
    """Return the error that ``what`` is in none of the folders ``tried``."""
    looked = ", ".join(folder or "." for folder in origin.folders)
    return MissingError(
        f"{origin.name}: no {what} in {' or '.join(map(str, tried))} (looked in {looked}): {_cure(origin)} into "
        f"{tried[0] / origin.folders[0]}, or name another folder by data_dir (--data-dir) or ${VARIABLE}"
    )


def _cure(origin: Origin) -> str:
    easily = f"run 'tinycnn data download {origin.name}' or load it with download=True; or " if origin.parts else ""
    return f"{easily}download it from {origin.url}"


# ---- reading ---------------------------------------------------------------------------------------------------


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


def md5_of_file(path: Path) -> str:
    """Return the MD5 of a file, read a little at a time."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_md5(raw: bytes, expected: Collection[str], path: PathLike, origin: Origin, hint: str = "") -> None:
    """Make sure that ``raw``, read from ``path``, has one of the published checksums.

    Raises:
        DataError: it has none of them.
    """
    found = md5(raw)
    if found not in expected:
        raise DataError(
            f"{path}: {len(raw):,} bytes with MD5 {found}, published is {' or '.join(expected)}: "
            f"{hint or 'the file is damaged or another one'}; download it again from {origin.url}"
        )


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` into the file at ``path``, which is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
