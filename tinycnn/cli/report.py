"""``tinycnn report`` and ``tinycnn compare``: what runs came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .errors import CommandError, bad_input

JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="[default: RUN/report.html]")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data files. [default: as in training]")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or auto. [default: as in training]")] = None,
    json_line: JsonLine = False,
) -> None:
    """Write a page about a run: result, curves, mistakes, filters, configuration.

    The page is one file that needs no other, and no network.  Of a run that is not finished it is shorter.
    """
    from ..backend import resolve_device
    from ..report import write

    with bad_input():
        if device is not None:
            resolve_device(device)
        path = write(run, out, device, data_dir)
    print(json.dumps({"run": str(run), "report": str(path)}) if json_line else f"report in {path}")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The picture: .png, .svg or .pdf.")] = Path("compare.png"),
    json_line: JsonLine = False,
) -> None:
    """Draw the error of several runs by epoch in one picture, and list their results."""
    from ..report import compare as several
    from ..report.story import read

    with bad_input():
        found = [read(run) for run in runs]
        try:
            several.draw(found, out)
        except ImportError as error:
            raise CommandError(str(error)) from None
    if json_line:
        print(json.dumps({"runs": [several.summary(run) for run in found], "picture": str(out)}))
        return
    print(several.table(found))
    print(f"picture in {out}")
