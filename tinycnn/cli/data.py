"""``tinycnn data``: which datasets there are, where their files lie, and getting them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, TextIO
from urllib.parse import urlsplit

import typer

from ..messages import some
from .errors import FAILED, CommandError, bad_input

app = typer.Typer(
    help="List the datasets, say where their files are, download them.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
)
NameArgument = Annotated[str, typer.Argument(help="Of a dataset (tinycnn data list).")]
DataDirOption = Annotated[
    Path | None, typer.Option(help="Folder of the data files. [default: $TINYCNN_DATA, then the downloads]")
]
JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


@app.command("list")
def list_datasets(data_dir: DataDirOption = None, json_line: JsonLine = False) -> None:
    """List the datasets, and which of them are here."""
    from .. import data

    rows = [_row(name, data_dir) for name in data.names()]
    if json_line:
        print(json.dumps({"datasets": rows}))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        size = row["download_bytes"]
        can = f"not here; tinycnn data download {row['name']} ({_size(size)})" if size else "not here"
        print(f"{row['name']:{width}}  {row['what']}\n{'':{width}}  {_common(row['files']) if row['files'] else can}")


def _row(name: str, data_dir: Path | None) -> dict[str, Any]:
    from ..data import DataError, registry

    known = registry.entry(name)
    try:
        files = [str(path) for path in known.locate(data_dir)]
    except DataError:
        files = []
    parts = known.origin.parts if known.origin else ()
    size = sum(file.size for file in {part.download for part in parts})
    return {"name": name, "what": known.what, "files": files, "download_bytes": size}


def _common(files: list[str]) -> str:
    """Return the file, or the folder of several."""
    return files[0] if len(files) == 1 else str(Path(files[0]).parent)


@app.command()
def where(name: NameArgument, data_dir: DataDirOption = None, json_line: JsonLine = False) -> None:
    """Say which files a dataset would be read from; of photographs, how many there are."""
    from ..data import registry

    with bad_input():
        files = registry.where(name, data_dir)
        splits = _photographs(files[0]) if "shorter" in registry.entry(name).options else {}
    if json_line:
        print(
            json.dumps({"data": name, "files": [str(path) for path in files]} | ({"splits": splits} if splits else {}))
        )
        return
    for path in files:
        print(path)
    for split, found in splits.items():
        classes = some(f"{n:,} {label}" for label, n in found["classes"].items())
        ignored = some(f"{n:,} {kind}" for kind, n in found["ignored"].items()) if found["ignored"] else ""
        print(
            f"{split}: {found['images']:,} pictures: {classes}" + (f"; other files ignored: {ignored}" * bool(ignored))
        )


def _photographs(path: Path) -> dict[str, Any]:
    """Return, for each split, how many pictures and other files there are."""
    from ..data.imagefolder import open_folder

    found = {}
    for split in ("train", "test"):
        source = open_folder(path, split)
        counts = {label: int((source.labels == k).sum()) for k, label in enumerate(source.classes)}
        found[split] = {"images": len(source), "classes": counts, "ignored": source.ignored}
    return found


@app.command()
def download(
    names: Annotated[list[str], typer.Argument(help="Of datasets (tinycnn data list).", metavar="NAMES...")],
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder to put them in; made if it is not there. [default: the cache]")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json_line: JsonLine = False,
) -> None:
    """Download datasets; what is here already is left alone, and a damaged download is fetched again."""
    from .. import data
    from ..data import registry

    with bad_input():
        for name in names:
            registry.entry(name)
    results = []
    for name in names:
        try:
            fetched = registry.download(name, data_dir, watcher(sys.stderr, quiet))
        except data.DataError as error:
            raise CommandError(str(error), FAILED) from error
        files = [str(path) for path in registry.where(name, data_dir)]
        results.append({"data": name, "fetched": [str(path) for path in fetched], "files": files})
        if not json_line:
            words = f"{len(fetched)} file{'s' * (len(fetched) > 1)} downloaded" if fetched else "nothing to download"
            print(f"{name}: {words}: {_common(files)}")
    if json_line:
        print(json.dumps({"datasets": results}))


# ---- for commands that need a dataset --------------------------------------------------------------------------


def ready(name: str, data_dir: Path | str | None, quiet: bool = False) -> None:
    """Download what is missing of a dataset that is about to be loaded, and tell of it on standard error.

    Raises:
        ValueError, OSError: as `tinycnn.data.registry.fetch_missing`.
    """
    from .. import data
    from ..data import registry

    if name in data.names():  # of another name, loading says more
        registry.fetch_missing(name, data_dir, watcher(sys.stderr, quiet))


def watcher(stream: TextIO, quiet: bool) -> Any:
    """Return what tells of transfers: a line for each, and a bar on a terminal."""

    def watch(file: Any, url: str) -> Any:
        print(f"downloading {file.name} ({_size(file.size)}) from {urlsplit(url).hostname}", file=stream, flush=True)
        return _Bar(stream, file.size) if stream.isatty() else None

    return None if quiet else watch


def _size(n: float) -> str:
    """Return a number of bytes in words.

    >>> _size(28881), _size(170498071)
    ('29 kB', '170 MB')
    """
    return f"{n / 1e6:,.0f} MB" if n >= 1e6 else f"{n / 1e3:,.0f} kB"


class _Bar:
    """A bar of rich's, moved the way pooch does it."""

    def __init__(self, stream: TextIO, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = BarColumn(bar_width=24), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True)
        self.progress = Progress(*columns, console=Console(file=stream), transient=True)
        self.task = self.progress.add_task("", total=total)
        self.progress.start()

    @property
    def total(self) -> float:
        return self.progress.tasks[0].total or 0

    @total.setter
    def total(self, n: float) -> None:
        self.progress.update(self.task, total=n or None)

    def update(self, n: int) -> None:
        self.progress.update(self.task, advance=n)

    def reset(self) -> None:
        self.progress.update(self.task, completed=0)

    def close(self) -> None:
        self.progress.stop()
