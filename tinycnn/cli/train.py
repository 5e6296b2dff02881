"""``tinycnn train``."""

from __future__ import annotations

import collections
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from .. import parallel
from ..backend import CPU, gpu_name
from ..messages import counted
from . import options as o
from . import progress
from .errors import CommandError, bad_input
from .stopping import Interruption, failures, interrupted, stop_on_signal
from .trained import RUNS

__all__ = ["Interruption", "train"]


def train(
    recipe: o.Recipe = None,
    model: o.Model = None,
    data: o.Data = None,
    data_dir: o.DataDir = None,
    fraction: o.Fraction = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    accumulate: o.Accumulate = None,
    optimizer: o.Optimizer = None,
    lr: o.Lr = None,
    momentum: o.Momentum = None,
    schedule: o.Schedule = None,
    clip_norm: o.ClipNorm = None,
    precision: o.Precision = None,
    shift: o.Shift = None,
    augment: o.Augment = None,
    mix: o.Mix = None,
    normalize: o.Normalize = None,
    val_fraction: o.ValFraction = None,
    weight_decay: o.WeightDecay = None,
    label_smoothing: o.LabelSmoothing = None,
    ema: o.Ema = None,
    patience: o.Patience = None,
    recompute_statistics: o.RecomputeStatistics = None,
    seed: o.Seed = None,
    assignments: o.Set = None,
    tune: o.Tune = False,
    algorithms: o.Algorithms = None,
    device: o.Device = None,
    threads: o.Threads = None,
    workers: o.Workers = 0,
    save_every: o.SaveEvery = None,
    record: o.Record = None,
    out: o.Out = None,
    resume: o.Resume = None,
    dry_run: o.DryRun = False,
    tensorboard: o.TensorBoard = False,
    quiet: o.Quiet = False,
    json_line: o.JsonLine = False,
) -> None:
    """Train a network; by default LeNet-5 on handwritten digits."""
    chosen: dict[str, Any] = {
        "recipe": recipe,
        "model": model,
        "data": data,
        "fraction": fraction,
        "batch_size": batch_size,
    }
    chosen |= {"accumulate": accumulate, "optimizer": optimizer, "lr": lr, "momentum": momentum, "schedule": schedule}
    chosen |= {"clip_norm": clip_norm, "precision": precision, "shift": shift, "augment": augment, "mix": mix}
    chosen |= {"normalize": normalize, "val_fraction": val_fraction, "weight_decay": weight_decay, "seed": seed}
    chosen |= {"label_smoothing": label_smoothing, "ema": ema, "patience": patience, "save_every": save_every}
    chosen |= {"recompute_statistics": recompute_statistics, "algorithms": algorithms, "record": record}
    place = _Place(device, None if data_dir is None else str(data_dir), workers)
    with bad_input(options=(*chosen, "epochs", "threads")):
        if threads is not None:
            parallel.set_num_threads(threads)
        if tensorboard:
            _check_tensorboard()  # before there is a run folder
        given = o.merged(chosen, assignments)
        if resume is not None and dry_run:
            raise CommandError("--dry-run cannot be given with --resume: the run's settings are in its config.json")
        if resume is not None:
            run = _resumed(resume, given | ({"tune": True} if tune else {}), out, place, epochs, quiet)
        else:
            tuning = progress.tuning(progress.stream_for(json_line), quiet) if tune else None
            settings = _settings(given | ({} if epochs is None else {"epochs": epochs}), tune)
            if dry_run:
                return _show(settings)
            run = _new(settings, out, place, tuning, quiet)
    if tensorboard:
        _add_tensorboard(run)
    _go(run, quiet, json_line)


class _Place(NamedTuple):
    """Where a run computes, where its data are, and how many threads prepare them."""

    device: str | None
    data_dir: str | None
    workers: int


def _settings(given: dict[str, Any], tune: bool) -> Any:
    """Return the settings: a recipe's, or the defaults, with what is given in their place."""
    from ..train import Settings, recipes
    from ..train.recorder import COUNT

    if "algorithms" in given:
        if tune:
            raise CommandError("--tune cannot be given with --algorithms: measure, or take what another run measured")
        given = given | {"algorithms": _recorded(given["algorithms"])}
    given.setdefault("record", COUNT)
    name = given.pop("recipe", None)
    return Settings.choose(**given) if name is None else recipes.find(name).settings(**given)


def _show(settings: Any) -> None:
    from ..train import recipes

    print(json.dumps({"settings": settings.to_dict(), **recipes.describe(settings)}, indent=2, ensure_ascii=False))


def _new(settings: Any, out: Path | None, place: _Place, tuning: Any, quiet: bool) -> Any:
    from ..train import Run, recipes
    from .data import ready

    ready(settings.data, place.data_dir, quiet)
    device = place.device or "cpu"
    if out is not None:
        return Run.new(settings, out, device, place.data_dir, tuning, place.workers)
    with _fresh_folder(recipes.folder_name(settings)) as folder:
        return Run.new(settings, folder, device, place.data_dir, tuning, place.workers)


def _recorded(folder: Path) -> dict[str, str]:
    """Return the algorithms that a run has measured."""
    from ..train.run import read_config

    found = read_config(folder)["settings"].get("algorithms")
    if not found:
        raise CommandError(f"{folder}: this run has measured no algorithms: name one made with --tune")
    return found


@contextmanager
def _fresh_folder(title: str) -> Iterator[Path]:
    """Make a folder that no other run has, even one begun in the same second; an error takes it away again."""
    name = f"{title}-{time.strftime('%Y%m%d-%H%M%S')}"
    begun = [] if RUNS.exists() else [RUNS]
    RUNS.mkdir(exist_ok=True)
    for n in itertools.count(1):
        folder = RUNS / (name if n == 1 else f"{name}-{n}")
        with suppress(FileExistsError):
            folder.mkdir()  # fails if it is there: two runs cannot both make it
            break
    try:
        yield folder
    except BaseException:
        for made in (folder, *begun):
            with suppress(OSError):  # not empty
                made.rmdir()
        raise


def _resumed(
    folder: Path, given: dict[str, Any], out: Path | None, place: _Place, epochs: int | None, quiet: bool
) -> Any:
    from ..train import Run
    from ..train.run import read_config
    from .data import ready

    if given or out is not None:
        name = f"--{next(iter(given), 'out').replace('_', '-')}"
        raise CommandError(f"{name} cannot be given with --resume: the run goes on as it began; or start a new one")
    config = read_config(folder)
    ready(config["settings"].get("data", ""), place.data_dir or config.get("data_dir"), quiet)
    return Run.resume(folder, place.device, place.data_dir, epochs, place.workers)


# ---- doing it ----------------------------------------------------------------------------------------------


def _go(run: Any, quiet: bool, json_line: bool) -> None:
    """Train, finish and report."""
    trainer, epochs, batches = run.trainer, run.settings.epochs, len(run.training)
    stream = progress.stream_for(json_line)
    display = progress.make(epochs, batches, stream, quiet, trainer.epoch * batches + trainer.batch)
    trainer.after_batch.append(display.after_batch)
    trainer.after_epoch.append(display.after_epoch)
    if run.device != CPU:
        trainer.after_epoch.append(_gpu_teller(display))
    finished_before = (run.folder / "result.json").is_file()
    with stop_on_signal(trainer) as signals, failures(run):
        with display:
            display.say(_already_finished(run) if finished_before else _title(run))
            finished = run.fit()
            if run.trainer.ended is not None and not finished_before:
                display.say(_ended(run.trainer))
        if not finished_before:
            run.draw()
        if not finished:
            interrupted(run, signals)
        result = run.finish()
        if not finished_before:
            _report(run, display)
    if not json_line:
        print(_result_words(result), file=stream)
    else:
        display.say(_result_words(result))
        print(json.dumps(result), flush=True)


def _report(run: Any, display: Any) -> None:
    """Write the page about a run; whatever goes wrong with it, the training has not."""
    from ..report import write

    try:
        write(run.folder, device=run.device, data_dir=run.data_dir)
    except Exception as error:
        display.say(f"no report: {error or type(error).__name__}; try again with tinycnn report {run.folder}")


def _check_tensorboard() -> None:
    from ..report.tensorboard import check

    try:
        check()
    except ImportError as error:
        raise CommandError(str(error)) from None


def _add_tensorboard(run: Any) -> None:
    from ..report import TensorBoard

    run.trainer.callbacks.append(TensorBoard(run.folder / "tensorboard", run.settings.to_dict()))


def _gpu_teller(display: Any) -> Callable[[Any, Any], None]:
    """Return what says, after the first epoch, how the GPU is used."""
    from ..train.memory import usage

    logging.getLogger("tinycnn").addHandler(logging.NullHandler())  # what it would print is said here

    def tell(trainer: Any, row: Any) -> None:
        trainer.after_epoch.remove(tell)
        captured = trainer.captured
        how = "one CUDA graph each" if captured.reason is None else f"kernel by kernel ({captured.reason})"
        display.say(f"steps are launched as {how}; {usage(trainer.optimizer.flat.data, captured.nbytes)}")

    return tell


# ---- words -------------------------------------------------------------------------------------------------


def _title(run: Any) -> str:
    s, trainer = run.settings, run.trainer
    held_out = f"{len(run.validation.labels):,} validation, " if run.validation else ""
    threads = f", {counted(parallel.get_num_threads(), 'thread')}" if run.device == CPU else f" ({gpu_name()[0]})"
    images = f"{len(run.training.labels):,} training, {held_out}{len(run.test.labels):,} test images"
    lines = [
        *_recipe_words(s),
        f"{s.model} ({trainer.model.num_parameters():,} parameters) on {s.data}: {images}; "
        f"{run.device}{threads}, {s.precision}, seed {s.seed}",
        f"{s.optimizer}, lr {s.lr:g}, schedule {s.schedule}, batches of {s.batch_size}; run folder {run.folder}",
        *_regimen_words(s),
    ]
    if s.algorithms:
        counts = collections.Counter(s.algorithms.values()).most_common()
        lines.append("convolutions as measured: " + ", ".join(f"{name} ×{count}" for name, count in counts))
    if trainer.epoch or trainer.batch:
        lines.append(f"going on after epoch {trainer.epoch}, batch {trainer.batch}")
    return "\n".join(lines)


def _recipe_words(settings: Any) -> list[str]:
    """Say which recipe this is, how it deviates, and what it may be compared with."""
    from ..train import recipes

    recipe = recipes.of(settings)
    if recipe is None:
        return []
    words, reported = f"recipe {recipes.title(settings)}", recipes.published(settings)
    if reported:
        return [f"{words}; published: {reported}"]
    return [words + ("; not comparable with the published result" if recipe.published else "")]


def _regimen_words(settings: Any) -> list[str]:
    """Name what is not as it would be without being asked for."""
    from ..train.recipes import word

    left_out = ("algorithms", "recipe", "save_every", "record")
    usual = {
        f.name: f.default for f in fields(settings) if f.default is not MISSING or f.default_factory is not MISSING
    }
    values = {name: getattr(settings, name) for name in usual if name not in left_out}
    special = [(name, value) for name, value in values.items() if value and value != usual[name]]
    said = [name.replace("_", " ") + ("" if value is True else f" {word(value)}") for name, value in special]
    return ["; ".join(said)] if said else []


def _already_finished(run: Any) -> str:
    if run.trainer.ended is not None:
        return f"the run in {run.folder} is finished: {_ended(run.trainer)}"
    done = "all {} epochs are" if run.settings.epochs > 1 else "its epoch is"
    return f"the run in {run.folder} is finished: {done.format(run.settings.epochs)} done"


def _ended(trainer: Any) -> str:
    return f"it ended after epoch {trainer.epoch}: {trainer.ended}"


def _result_words(result: dict[str, Any]) -> str:
    from ..train.recipes import Published

    reported = result.get("published")
    beside = f" (published: {Published(**reported).accuracy})" if reported else ""
    return (
        f"test accuracy {100 * result['test_accuracy']:.2f} %{beside} with the weights of epoch "
        f"{result['best_epoch']} ({result['seconds']:.1f} s of training); "
        f"weights in {Path(result['run']) / 'best.safetensors'}"
    )
