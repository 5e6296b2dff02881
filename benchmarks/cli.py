"""The command line of the benchmarks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tinycnn

from .progress import Progress
from .report import Report, Table

app = typer.Typer(
    name="benchmarks",
    help="Measure tinycnn against PyTorch and other libraries.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ALL = ("steps", "layers", "optimizers", "memory", "scaling", "peers")
WIDTH = 160
"""Columns of the tables where standard output is no terminal."""
RESULTS = Path(__file__).parent / "results"

Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file too.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Of tinycnn and of PyTorch. [default: all cores]")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer and smaller cases, few repeats: does it run at all?")]
Only = Annotated[str, typer.Option(help="Only cases whose name contains this: resnet, 3×3, …")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the results into this folder (needs matplotlib).")]


@app.command()
def layers(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """Single layers: forward and backward, of every shape of the usual networks."""
    _run(["layers"], json, threads, quick, plot, only=only)


@app.command()
def steps(
    json: Json = None,
    threads: Threads = None,
    quick: Quick = False,
    plot: Plot = None,
    only: Only = "",
    profile: Annotated[bool, typer.Option("--profile", help="Show where our time goes, layer by layer.")] = False,
) -> None:
    """Whole training steps."""
    _run(["steps"], json, threads, quick, plot, only=only, profile=profile)


def _run(
    names: list[str], json: Path | None, threads: int | None, quick: bool, plot: Path | None, **options: Any
) -> Report:
    """Measure, show, and write what was asked for."""
    threads = _set_threads(threads)
    from .header import describe

    progress, console = (
        Progress(sys.stderr.isatty()),
        Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH),
    )
    tables: list[Table] = []
    header: dict[str, str] = {}
    for name in names:
        module = importlib.import_module(f".{name}", __package__)
        header = header or describe(threads, module.QUICK if quick else module.FULL)
        tables += module.run(threads=threads, quick=quick, progress=progress, **options)
    report = Report(header, tables)
    report.print(console)
    if json:
        report.write(json)
    return report


def _set_threads(threads: int | None) -> int:
    """Give tinycnn and PyTorch the same number of threads."""
    import torch

    tinycnn.set_num_threads(threads or tinycnn.get_num_threads())
    torch.set_num_threads(tinycnn.get_num_threads())
    return tinycnn.get_num_threads()


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: after the program's name; by default those of this process.
    """
    return app(args=arguments, prog_name="python -m benchmarks", standalone_mode=False) or 0
