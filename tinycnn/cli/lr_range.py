"""``tinycnn lr-range``: which learning rates a network can be trained with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from .. import parallel
from . import options as o
from . import progress
from .errors import FAILED, CommandError, bad_input, words_of

Lowest = Annotated[float, typer.Option(help="Learning rate to begin with.")]
Highest = Annotated[float, typer.Option(help="Learning rate to end with, if the loss has not run away before.")]
Steps = Annotated[int, typer.Option(help="Batches to learn from, at most.")]
Out = Annotated[Path | None, typer.Option(metavar="PNG", help="Draw loss against learning rate.")]


def lr_range(
    recipe: o.Recipe = None,
    model: o.Model = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    batch_size: o.BatchSize = None,
    optimizer: o.Optimizer = None,
    momentum: o.Momentum = None,
    weight_decay: o.WeightDecay = None,
    clip_norm: o.ClipNorm = None,
    seed: o.Seed = None,
    assignments: o.Set = None,
    lowest: Lowest = 1e-6,
    highest: Highest = 10.0,
    steps: Steps = 100,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = 0,
    out: Out = None,
    quiet: o.Quiet = False,
    json_line: o.JsonLine = False,
) -> None:
    """Train a few batches with a growing learning rate, and say with which the loss falls fastest.

    Nothing is kept but the picture.  The number is a hint for these options: look at the curve.
    """
    chosen: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "data": data,
        "batch_size": batch_size,
        "optimizer": optimizer,
    }
    chosen |= {"momentum": momentum, "weight_decay": weight_decay, "clip_norm": clip_norm, "seed": seed}
    stream = progress.stream_for(json_line)
    with bad_input(options=(*chosen, "lowest", "highest", "steps", "threads")):
        if threads is not None:
            parallel.set_num_threads(threads)
        if out is not None and not out.parent.is_dir():
            raise CommandError(f"{out}: there is no folder {out.parent}: make it, or name another")
        if out is not None and find_spec("matplotlib") is None:  # before the work, not after it
            raise CommandError(f"{out}: drawing needs matplotlib: pip install 'tinycnn[plot]'", FAILED)
        run = _run(o.merged(chosen, assignments), device, data_dir, workers, quiet)
        with _bar(stream, quiet) as count:
            found = _test(run, lowest, highest, steps, count)
    drawn = out is not None and _drawn(found, out)
    if json_line:
        print(json.dumps({**dataclasses.asdict(found), "plot": str(out) if drawn else None}))
    else:
        print(_words(found), *([f"loss against learning rate: {out}"] if drawn else []), sep="\n", file=stream)


def _run(given: dict[str, Any], device: str | None, data_dir: Path | None, workers: int, quiet: bool) -> Any:
    """Return a run of these settings that nothing is written of."""
    from ..train import Run, Settings, recipes
    from .data import ready

    where = None if data_dir is None else str(data_dir)
    name = given.pop("recipe", None)
    settings = Settings.choose(**given) if name is None else recipes.find(name).settings(**given)
    ready(settings.data, where, quiet)
    if settings.accumulate > 1:
        raise CommandError(
            "accumulate: a step is one batch here: leave it out, and give --batch-size for all of a step"
        )
    constant = dataclasses.replace(settings, schedule="none", schedule_options={})
    return Run(constant, Path(), device or "cpu", where, workers)


def _test(run: Any, lowest: float, highest: float, steps: int, count: Callable[[int, int], None]) -> Any:
    from ..train import lr_range_test

    trainer = run.trainer
    try:
        return lr_range_test(
            *(trainer.model, trainer.optimizer, trainer.loss_fn, run.training, lowest, highest, steps),
            clip_norm=run.settings.clip_norm,
            precision=trainer.captured.precision,
            progress=count,
        )
    except ValueError as error:
        raise ValueError(str(error).removeprefix("lr_range_test: ")) from None  # it begins with an option's name


def _drawn(found: Any, out: Path) -> bool:
    try:
        found.plot(out)
    except OSError as error:
        raise CommandError(words_of(error), FAILED) from error
    return True


def _words(found: Any) -> str:
    end = "the loss ran away" if found.diverged else "the loss did not run away"
    what = f"from {found.lrs[0]:.1e} to {found.lrs[-1]:.1e} in {len(found.lrs)} steps; {end}"
    if found.suggestion is None:
        return f"{what}; it never fell: try other rates (--lowest, --highest), or more --steps"
    return f"{what}\nit fell fastest at lr {found.suggestion:.2g}"


@contextmanager
def _bar(stream: TextIO, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Give what shows how far the test is, if ``stream`` is a terminal."""
    if quiet or not stream.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("learning rates"), BarColumn(bar_width=24), MofNCompleteColumn())
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
