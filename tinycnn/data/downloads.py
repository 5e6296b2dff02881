"""Downloading published files, so that a file of a dataset's name is always the one that was published.

The transfer is pooch's (the extra ``data`` brings it).  What comes goes into ``NAME.part``.  An interrupted transfer is
taken up where it stopped, now or the next time, if the server can do that, and otherwise begun again.  When all of it
is there and has the published checksum, the file takes its name.  With another checksum it is kept as ``NAME.bad``, to
look at (a login page of the network, often), and the next address is tried.

With ``TINYCNN_OFFLINE=1`` in the environment nothing here touches the network.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from .files import DataError, Download, MissingError, Origin, PathLike, downloads_folder, find, md5_of_file

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OFFLINE = "TINYCNN_OFFLINE"
ATTEMPTS = 4
"""How often a transfer that breaks off is taken up again, as long as each brought something."""
TIMEOUT = 30
"""Seconds without a sign of the server, after which it is given up."""
CHUNK = 1 << 14
"""Bytes that are written at a time; fewer than that are lost when a transfer breaks off."""


class Bar(Protocol):
    """What pooch tells of a transfer: ``total`` is set to the bytes to come, ``update`` adds those that came."""

    total: float

    def update(self, n: int) -> None: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...


Watch: TypeAlias = Callable[[Download, str], "Bar | None"]
"""Called with a file and its address when a transfer begins."""


def offline() -> bool:
    """Whether the environment forbids downloads."""
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "no", "false", "off")


def folder_of(origin: Origin, data_dir: PathLike | None = None) -> Path:
    """Return where a dataset is downloaded to: its folder in ``data_dir``, by default in the cache."""
    root = downloads_folder() if data_dir is None else Path(data_dir).expanduser()
    return root / origin.folders[0]


def download(origin: Origin, data_dir: PathLike | None = None, watch: Watch | None = None) -> list[Path]:
    """Fetch what a dataset lacks, and what is damaged of an earlier download.

    Args:
        origin: of the dataset.
        data_dir: see `folder_of`; made if it is not there.  What is found in it in any layout is not downloaded.
        watch: to be told of every transfer.

    Returns:
        The files fetched; none if all are there.

    Raises:
        DataError: the network is out of bounds, out of reach, or sends something else; pooch is absent.
        OSError: a file cannot be written.
    """
    folder = folder_of(origin, data_dir)
    if data_dir is not None and not offline():
        Path(data_dir).expanduser().mkdir(parents=True, exist_ok=True)
    wanted = [part.download for part in origin.parts if _lacks(origin, part.names, data_dir)]
    wanted += [part.download for part in origin.parts if _is_damaged(folder / part.download.name, part.download)]
    wanted = list(dict.fromkeys(wanted))
    if wanted and offline():
        names = ", ".join(file.name for file in wanted)
        raise MissingError(f"{origin.name}: {names}: not downloaded, since ${OFFLINE} is set: unset it to allow it")
    return [fetch(file, folder, watch) for file in wanted]


def _lacks(origin: Origin, names: tuple[str, ...], data_dir: PathLike | None) -> bool:
    try:
        find(origin, names, data_dir)
    except MissingError:
        return True
    return False


# ---- one file --------------------------------------------------------------------------------------------------


def fetch(file: Download, folder: Path, watch: Watch | None = None) -> Path:
    """Download a file into ``folder``, which is made; one that is there and whole is left alone.

    Raises:
        DataError: no address has it, or not with the right checksum; pooch is absent.
        OSError: it cannot be written.
    """
    import_pooch(file, folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / file.name, folder / f"{file.name}.part"
    with _alone(folder):
        if path.is_file():
            if not _is_damaged(path, file):
                return path
            path.replace(_aside(path))
        errors = []
        for url in file.urls:
            error = _try(file, url, part, watch)
            if error is None:
                part.replace(path)
                return path
            errors.append(f"{url}: {error}")
    raise DataError(
        f"{file.name}: not downloaded: {'; '.join(errors)}: check the connection, or put the file into {folder}"
    )


def _try(file: Download, url: str, part: Path, watch: Watch | None) -> str | None:
    """Fetch a file from one address into ``part``, and return what went wrong."""
    if part.is_file() and not _is_damaged(part, file):
        return None  # whole: it only lacked its name
    transfer = _Transfer(file, url, part, watch)
    problem = transfer.run()
    if problem is None and transfer.resumed and _is_damaged(part, file):
        part.unlink()  # it was begun with bytes of another file, perhaps
        problem = transfer.run()
    if problem is not None or not _is_damaged(part, file):
        return problem
    found, size = md5_of_file(part), part.stat().st_size
    kept = part.replace(_aside(part.with_suffix("")))
    wanted = f"{' or '.join(file.md5s)} with {file.size:,}"
    return f"sent {size:,} bytes with MD5 {found}, published is {wanted}: kept as {kept}"


def _is_damaged(path: Path, file: Download) -> bool:
    return path.is_file() and md5_of_file(path) not in file.md5s


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.bad")


class _Transfer:
    """One file from one address, in as many pieces as it takes.

    Attributes:
        status: of the last response.
        resumed: some piece began where another ended.
    """

    def __init__(self, file: Download, url: str, part: Path, watch: Watch | None) -> None:
        self.file, self.url, self.part, self.watch = file, url, part, watch
        self.status, self.resumed = 0, False

    def run(self) -> str | None:
        """Transfer, and return what went wrong."""
        for _ in range(ATTEMPTS):
            before = self._size()
            problem = self._piece(before)
            now = self._size()
            if problem is None or now <= before:
                break
        if now == 0:
            self.part.unlink(missing_ok=True)
        elif problem is not None:
            problem += f"; {self.part} has {now:,} of {self.file.size:,} bytes, and the next attempt goes on from there"
        return problem

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _piece(self, start: int) -> str | None:
        """Append the bytes from ``start`` on, and return what went wrong."""
        import requests

        try:
            self._get(start)
        except requests.HTTPError:
            if self.status == 416 and start:  # it has no such bytes: what we have is of another file
                self.part.unlink()
                return self._piece(0)
            return f"the server answers {self.status}"
        except requests.RequestException as error:
            return _words(error)
        except OSError as error:  # of the disk
            error.filename = error.filename or str(self.part)
            raise
        return None

    def _get(self, start: int) -> None:
        pooch = import_pooch(self.file, self.part.parent)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        bar = self.watch(self.file, self.url) if self.watch else None
        with open(self.part, "ab") as file:
            get = pooch.HTTPDownloader(
                progressbar=bar or False,
                chunk_size=CHUNK,
                timeout=TIMEOUT,
                headers=headers,
                hooks={"response": lambda response, **_: self._look(response.status_code, file)},
            )
            try:
                get(self.url, file, None)
            finally:
                if bar is not None:
                    bar.close()

    def _look(self, status: int, file: BinaryIO) -> None:
        """Begin again if the server sends the file from its beginning, asked or not."""
        self.status = status
        if status == 206:
            self.resumed = True
        elif status == 200:
            file.truncate(0)


def _words(error: Exception) -> str:
    import requests

    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return f"no answer within {TIMEOUT} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())


def import_pooch(file: Download, folder: Path) -> Any:
    """Return pooch.

    Raises:
        DataError: it is not installed.
    """
    try:
        import pooch
    except ImportError:
        raise DataError(
            f"{file.name}: downloading needs pooch: pip install 'tinycnn[data]', or get {file.urls[0]} into {folder}"
        ) from None
    return pooch


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time download into a folder; the others wait, and find the files then."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
