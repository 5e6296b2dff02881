"""``tinycnn train``."""

from __future__ import annotations

import collections
import itertools
import json
import logging
import shlex
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import parallel
from ..backend import CPU, gpu_name
from . import progress
from .errors import FAILED, INTERRUPTED, OUT_OF_MEMORY, CommandError, bad_input, words_of

Option = typer.Option

ECHO = 0.5
"""Seconds in which a signal that comes again is still the first: timeout(1) sends one to child and to group."""


def _folder(text: str) -> Path:
    """Return the path, unless it is empty, which `Path` would take for the present folder."""
    if not text:
        raise typer.BadParameter("an empty name: name a folder")
    return Path(text)


def train(
    model: Annotated[str | None, Option(help="Architecture (tinycnn models lists all). [default: lenet5]")] = None,
    data: Annotated[
        str | None,
        Option(help="digits, mnist, cifar10, … (tinycnn data list); downloaded if need be. [default: digits]"),
    ] = None,
    data_dir: Annotated[Path | None, Option(help="Folder of the data files. [default: $TINYCNN_DATA]")] = None,
    epochs: Annotated[int | None, Option(help="Passes through the images. [default: by dataset]")] = None,
    batch_size: Annotated[int | None, Option(help="Images per step. [default: 64]")] = None,
    optimizer: Annotated[str | None, Option(help="sgd, momentum, adam, adamw, … [default: adamw]")] = None,
    lr: Annotated[float | None, Option(help="Highest learning rate. [default: by optimizer]")] = None,
    momentum: Annotated[float | None, Option(help="Of optimizers that have one.")] = None,
    weight_decay: Annotated[float | None, Option(help="L2 penalty, or AdamW's decay. [default: by optimizer]")] = None,
    schedule: Annotated[str | None, Option(help="none, step, cosine, onecycle, plateau, … [default: onecycle]")] = None,
    shift: Annotated[
        int | None, Option(help="Shift training images by up to so many pixels. [default: by dataset]")
    ] = None,
    val_fraction: Annotated[
        float | None, Option(help="Part set aside to choose the best epoch. [default: 0.1]")
    ] = None,
    seed: Annotated[int | None, Option(help="Of all random numbers. [default: 0]")] = None,
    precision: Annotated[
        str | None, Option(help="float32, float64; on a GPU tf32, bf16, fp16. [default: float32]")
    ] = None,
    tune: Annotated[
        bool, Option("--tune", help="Time the algorithms of each convolution, and take the fastest.")
    ] = False,
    algorithms: Annotated[
        Path | None, Option(parser=_folder, metavar="PATH", help="Take what --tune found for the run in this folder.")
    ] = None,
    device: Annotated[str | None, Option(help="cpu, cuda or auto. [default: cpu]")] = None,
    threads: Annotated[
        int | None, Option(help="CPU threads; results do not depend on it. [default: all cores]")
    ] = None,
    out: Annotated[
        Path | None, Option(parser=_folder, metavar="PATH", help="Run folder. [default: runs/MODEL-DATA-TIME]")
    ] = None,
    resume: Annotated[
        Path | None, Option(parser=_folder, metavar="PATH", help="Go on with the run in this folder.")
    ] = None,
    quiet: Annotated[bool, Option("--quiet", "-q", help="Say nothing but the result.")] = False,
    json_line: Annotated[bool, Option("--json", help="Print the result as one line of JSON.")] = False,
) -> None:
    """Train a network; by default LeNet-5 on handwritten digits."""
    chosen = {"model": model, "data": data, "batch_size": batch_size, "optimizer": optimizer, "lr": lr}
    chosen |= {"momentum": momentum, "weight_decay": weight_decay, "schedule": schedule, "shift": shift}
    chosen |= {"val_fraction": val_fraction, "seed": seed, "precision": precision}
    given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    given |= {"algorithms": algorithms} if algorithms is not None else {}
    where = None if data_dir is None else str(data_dir)
    with bad_input(options=(*chosen, "epochs", "threads")):
        if threads is not None:
            parallel.set_num_threads(threads)
        if resume is not None:
            run = _resumed(resume, given | ({"tune": True} if tune else {}), out, device, where, epochs)
        else:
            tuning = progress.tuning(progress.stream_for(json_line), quiet) if tune else None
            given |= {} if epochs is None else {"epochs": epochs}
            run = _new(given, out, device or "cpu", where, tuning, quiet)
    _go(run, quiet, json_line)


def _new(given: dict[str, Any], out: Path | None, device: str, data_dir: str | None, tuning: Any, quiet: bool) -> Any:
    from ..train import Run, Settings
    from .data import ready

    if "algorithms" in given:
        if tuning is not None:
            raise CommandError("--tune cannot be given with --algorithms: measure, or take what another run measured")
        given = given | {"algorithms": _recorded(given["algorithms"])}
    settings = Settings.choose(**given)
    ready(settings.data, data_dir, quiet)
    if out is not None:
        return Run.new(settings, out, device, data_dir, tuning)
    with _fresh_folder(f"{settings.model}-{settings.data}") as folder:
        return Run.new(settings, folder, device, data_dir, tuning)


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
    runs, name = Path("runs"), f"{title}-{time.strftime('%Y%m%d-%H%M%S')}"
    begun = [] if runs.exists() else [runs]
    runs.mkdir(exist_ok=True)
    for n in itertools.count(1):
        folder = runs / (name if n == 1 else f"{name}-{n}")
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
    folder: Path, given: dict[str, Any], out: Path | None, device: str | None, data_dir: str | None, epochs: int | None
) -> Any:
    from ..train import Run

    if given or out is not None:
        name = f"--{next(iter(given), 'out').replace('_', '-')}"
        raise CommandError(f"{name} cannot be given with --resume: the run goes on as it began; or start a new one")
    return Run.resume(folder, device, data_dir, epochs)


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
    with stop_on_signal(trainer) as signals, _failures(run):
        with display:
            display.say(_already_finished(run) if finished_before else _title(run))
            finished = run.fit()
        if not finished_before:
            run.draw()
        if not finished:
            _interrupted(run, signals)
        result = run.finish()
    if not json_line:
        print(_result_words(result), file=stream)
    else:
        display.say(_result_words(result))
        print(json.dumps(result), flush=True)


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


@contextmanager
def stop_on_signal(trainer: Any) -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP ask the trainer to stop after its batch; a second one stops at once.

    Yields:
        The signals received.
    """
    received: list[int] = []
    first = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if not received:
            first = now
            trainer.stop()
        elif now - first >= ECHO:
            raise KeyboardInterrupt
        received.append(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _failures(run: Any) -> Iterator[None]:
    """Give the words for what can go wrong in mid-training, with what is kept and what to do."""
    from ..data import DataError
    from ..train import CheckpointError, NonFiniteError, OutOfMemoryError

    command = f"tinycnn train --resume {shlex.quote(str(run.folder))}"
    try:
        yield
    except NonFiniteError as error:
        last, done = run.folder / "last.safetensors", run.trainer.epoch
        if done:
            with suppress(OSError):  # the curves are an extra
                run.draw()
        kept = f"the last good checkpoint is {last} (epoch {done})" if done else "no epoch was finished"
        raise CommandError(
            f"{error}; {kept}; try a lower learning rate (lr was {run.settings.lr:g})", FAILED
        ) from error
    except (CheckpointError, DataError) as error:
        raise CommandError(str(error), FAILED) from error
    except OutOfMemoryError as error:
        raise CommandError(f"{error}; what was saved before is whole: go on with {command}", FAILED) from error
    except MemoryError as error:
        raise CommandError(OUT_OF_MEMORY, FAILED) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        words = words_of(error)
        raise CommandError(f"{words}; what was saved before is whole: go on with {command}", FAILED) from error
    except KeyboardInterrupt:
        raise Interruption(f"stopped at once; go on from the state saved last with: {command}", INTERRUPTED) from None


def _interrupted(run: Any, signals: list[int]) -> None:
    """End the command after a signal, saying how to go on."""
    trainer = run.trainer
    where = (
        f"in epoch {trainer.epoch + 1}, after batch {trainer.batch}"
        if trainer.batch
        else f"after epoch {trainer.epoch}"
    )
    command = f"tinycnn train --resume {shlex.quote(str(run.folder))}"
    raise Interruption(f"stopped {where}; saved; go on with: {command}", 128 + (signals or [signal.SIGINT])[0])


class Interruption(CommandError):
    """Not an error: what was asked for."""


# ---- words -------------------------------------------------------------------------------------------------


def _title(run: Any) -> str:
    s, trainer = run.settings, run.trainer
    held_out = f"{len(run.validation.labels):,} validation, " if run.validation else ""
    threads = f", {parallel.get_num_threads()} threads" if run.device == CPU else f" ({gpu_name()[0]})"
    images = f"{len(run.training.labels):,} training, {held_out}{len(run.test.labels):,} test images"
    lines = [
        f"{s.model} ({trainer.model.num_parameters():,} parameters) on {s.data}: {images}; "
        f"{run.device}{threads}, {s.precision}, seed {s.seed}",
        f"{s.optimizer}, lr {s.lr:g}, schedule {s.schedule}, batches of {s.batch_size}; run folder {run.folder}",
    ]
    if s.algorithms:
        counts = collections.Counter(s.algorithms.values()).most_common()
        lines.append("convolutions as measured: " + ", ".join(f"{name} ×{count}" for name, count in counts))
    if trainer.epoch or trainer.batch:
        lines.append(f"going on after epoch {trainer.epoch}, batch {trainer.batch}")
    return "\n".join(lines)


def _already_finished(run: Any) -> str:
    return f"the run in {run.folder} is finished: all {run.settings.epochs} epochs are done"


def _result_words(result: dict[str, Any]) -> str:
    return (
        f"test accuracy {100 * result['test_accuracy']:.2f} % with the weights of epoch {result['best_epoch']} "
        f"({result['seconds']:.1f} s of training); weights in {Path(result['run']) / 'best.safetensors'}"
    )
