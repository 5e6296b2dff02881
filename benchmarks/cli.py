"""The command line of the benchmarks."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import tinycnn

from .gpu_worker import PARTS as GPU_PARTS
from .progress import Progress
from .report import Report

app = typer.Typer(
    name="benchmarks",
    help="Measure tinycnn against PyTorch and other libraries.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ALL = ("steps", "inference", "frozen", "layers", "optimizers", "loader", "memory", "scaling", "peers")
WIDTH = 160
"""Columns of the tables where standard output is no terminal."""
RESULTS = Path(__file__).parent / "results"

UsageProblem: type[Exception] = typer.BadParameter.__mro__[2]
"""What typer raises for a wrong option or argument."""

Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file too (.json or .md).")]
Threads = Annotated[int | None, typer.Option(min=1, help="Of tinycnn and of PyTorch. [default: all cores]")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer and smaller cases, few repeats: does it run at all?")]
Plot = Annotated[Path | None, typer.Option("--plot", help="Draw the results into this folder (needs matplotlib).")]
Only = Annotated[str, typer.Option(help="Only cases whose name contains this: resnet, 3×3, Adam, …")]
Profile = Annotated[bool, typer.Option("--profile", help="Show where our time goes, layer by layer.")]
Out = Annotated[Path | None, typer.Option(help="Folder for cpu.md and cpu.json. [default: benchmarks/results]")]


@app.command()
def layers(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """Single layers: forward and backward, of every shape of the usual networks."""
    run(["layers"], json, threads, quick, plot, only=only)


@app.command()
def steps(
    json: Json = None,
    threads: Threads = None,
    quick: Quick = False,
    plot: Plot = None,
    only: Only = "",
    profile: Profile = False,
) -> None:
    """Whole training steps."""
    run(["steps"], json, threads, quick, plot, only=only, profile=profile)


@app.command()
def inference(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """Networks in evaluation, convolution and normalisation folded into one."""
    run(["inference"], json, threads, quick, plot, only=only)


@app.command()
def frozen(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """Training steps of networks whose lower layers are frozen."""
    run(["frozen"], json, threads, quick, plot, only=only)


@app.command()
def optimizers(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """One update of ten million parameters, by every optimizer."""
    run(["optimizers"], json, threads, quick, plot, only=only)


@app.command()
def loader(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """What the loader costs a training step, and how fast it augments and decodes by itself."""
    run(["loader"], json, threads, quick, plot, only=only)


@app.command()
def memory(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """The peak memory of training steps, each in a fresh process."""
    run(["memory"], json, threads, quick, plot, only=only)


@app.command()
def scaling(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = ""
) -> None:
    """How cost grows with batch, image size and depth, and shrinks with threads."""
    run(["scaling"], json, threads, quick, plot, only=only)


@app.command()
def peers(json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, only: Only = "") -> None:
    """The same convolution and training step in other libraries, as far as they are installed."""
    run(["peers"], json, threads, quick, plot, only=only)


@app.command()
def gpu(
    out: Annotated[Path | None, typer.Option(help="Files, without .json and .md. [default: results/<gpu>]")] = None,
    parts: Annotated[str, typer.Option(help="Some of them, with commas between.")] = ",".join(GPU_PARTS),
    budget: Annotated[float, typer.Option(min=1, help="Seconds, in all.")] = 600,
    again: Annotated[bool, typer.Option("--again", help="Measure also what is in the file already.")] = False,
) -> int:
    """Everything on one NVIDIA GPU, tests included; goes on where it stopped."""
    names = [name.strip() for name in parts.split(",")]
    unknown = [name for name in names if name not in GPU_PARTS]
    if unknown:
        raise typer.BadParameter(f"no part is called {unknown[0]!r}: choose from {', '.join(GPU_PARTS)}")
    from . import gpu as everything
    from .gpu_rig import Rig

    card = Rig().name()
    path = out or RESULTS / re.sub(r"[^a-z0-9]+", "_", card.lower()).strip("_")
    path = path.with_suffix("") if path.suffix in (".json", ".md") else path
    report = everything.run(path, names, budget, again, card, False, lambda words: print(words, file=sys.stderr))
    report.print(Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH))
    return int(any(table.name == "missing" for table in report.tables))


@app.command("cuda-resources")
def cuda_resources(
    out: Annotated[Path, typer.Option(help="Markdown or JSON file.")] = RESULTS / "cuda_resources.md",
) -> None:
    """Registers, shared memory and spills of the CUDA kernels; needs NVIDIA's compiler, no GPU."""
    from . import resources

    report = resources.report(resources.run())
    report.print(Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH))
    report.write(out)


@app.command("all")
def everything(
    json: Json = None, threads: Threads = None, quick: Quick = False, plot: Plot = None, out: Out = None
) -> None:
    """Everything; written to benchmarks/results, unless --quick."""
    report = run(list(ALL), json, threads, quick, plot)
    folder = out or (None if quick else RESULTS)
    if folder:
        report.write(folder / "cpu.md")
        report.write(folder / "cpu.json")


def run(names: list[str], json: Path | None, threads: int | None, quick: bool, plot: Path | None, **how: Any) -> Report:
    """Measure, show as it comes, and write and draw what was asked for."""
    threads = _set_threads(threads)
    from .header import describe

    progress = Progress(sys.stderr.isatty())
    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    report = Report(describe(threads), [])
    report.print(console)
    for name in names:
        module = importlib.import_module(f".{name}", __package__)
        tables = module.run(threads=threads, quick=quick, progress=progress, **how)
        Report({}, tables).print(console)
        report.tables += tables
        if json:
            report.write(json)
    if plot:
        from .plots import draw

        for path in draw(report, plot):
            console.print(str(path))
    return report


def _set_threads(threads: int | None) -> int:
    """Give tinycnn and PyTorch the same number of threads, and return it."""
    import torch

    tinycnn.set_num_threads(threads or tinycnn.get_num_threads())
    torch.set_num_threads(tinycnn.get_num_threads())
    return tinycnn.get_num_threads()


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: after the program's name; by default those of this process.
    """
    try:
        return app(args=arguments, prog_name="python -m benchmarks", standalone_mode=False) or 0
    except tinycnn.DeviceError as error:
        return _say(str(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except UsageProblem as error:
        return _say(error.format_message(), getattr(error, "exit_code", 2))  # type: ignore[attr-defined]
    except ImportError as error:
        if (error.name or "").startswith("cuda"):
            return _say("NVIDIA's compiler is not installed: pip install -e '.[dev]'", 2)
        if error.name not in ("torch", "matplotlib"):
            raise
        return _say(f"{error.name} is not installed: pip install -e '.[torch,plot]'", 2)


def _say(words: str, code: int) -> int:
    print(f"benchmarks: {words}", file=sys.stderr)
    return code
