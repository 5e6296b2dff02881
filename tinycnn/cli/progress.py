"""What is seen of a training: a live bar on a terminal, one line per epoch anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from ..train import Row, Run, Trainer

REFRESH = 0.1
"""Seconds between two looks at the running sums; each look waits for the GPU, if there is one."""

WIDE = 80
"""Columns of a terminal that has room for a bar beside the numbers."""


class Display:
    """Shows nothing; the base of those that do.

    Args:
        epochs: of the whole training.
        batches: of an epoch.
    """

    def __init__(self, epochs: int, batches: int) -> None:
        self.epochs, self.batches = epochs, batches
        self.begin = time.perf_counter()
        self.done = 0

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def after_batch(self, trainer: Trainer) -> None:
        """Count a batch."""
        self.done += 1

    def after_epoch(self, trainer: Trainer, row: Row) -> None:
        """Show the line of an epoch."""
        left = (self.epochs - trainer.epoch) * self.batches
        speed = self.done / max(time.perf_counter() - self.begin, 1e-9)
        self.say(epoch_line(row, self.epochs) + (f"  {clock(left / speed)} left" if left and self.done else ""))


class Lines(Display):
    """One line per epoch.

    Args:
        stream: where to.
    """

    def __init__(self, epochs: int, batches: int, stream: TextIO) -> None:
        super().__init__(epochs, batches)
        self.stream = stream

    def say(self, text: str) -> None:
        """Write a line."""
        print(text, file=self.stream, flush=True)


class Live(Display):
    """A bar that moves, and the lines of finished epochs above it.

    Args:
        stream: the terminal.
        start: batches done when a run is resumed.
    """

    def __init__(self, epochs: int, batches: int, stream: TextIO, start: int = 0) -> None:
        super().__init__(epochs, batches)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(file=stream, highlight=False)
        self.progress = Progress(
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=24)] if console.width >= WIDE else []),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self.task = self.progress.add_task("", total=epochs * batches, completed=start, words="")
        self.last = 0.0

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """Write a line above the bar."""
        self.progress.console.print(text, markup=False, soft_wrap=True)

    def after_batch(self, trainer: Trainer) -> None:
        """Move the bar, a few times a second."""
        super().after_batch(trainer)
        now = time.perf_counter()
        if now - self.last < REFRESH:
            return
        self.last = now
        words = numbers(trainer.sums.means())
        words += f"  {trainer.sums.examples / max(trainer.seconds, 1e-9):,.0f} img/s"
        place = trainer.epoch * self.batches + trainer.batch
        title = f"epoch {trainer.epoch + 1}/{self.epochs}"
        self.progress.update(self.task, completed=place, description=title, words=words)


def make(epochs: int, batches: int, stream: TextIO, quiet: bool, start: int = 0) -> Display:
    """Return the display that suits ``stream``."""
    if quiet:
        return Display(epochs, batches)
    return Live(epochs, batches, stream, start) if stream.isatty() else Lines(epochs, batches, stream)


def tuning(stream: TextIO, quiet: bool) -> Callable[[Run], None]:
    """Return what has a run measure its algorithms, with a bar meanwhile if ``stream`` is a terminal."""
    if quiet or not stream.isatty():
        return Run.tune

    def tune(run: Run) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("timing convolutions"), BarColumn(bar_width=24), MofNCompleteColumn())
        with Progress(*columns, console=Console(file=stream), transient=True) as bar:
            task = bar.add_task("", total=None)
            run.tune(lambda done, total: bar.update(task, completed=done, total=total))

    return tune


def epoch_line(row: dict[str, Any], epochs: int) -> str:
    """Return the line of an epoch."""
    parts = {
        part: {what: row[f"{part}_{what}"] for what in ("loss", "accuracy") if f"{part}_{what}" in row}
        for part in ("train", "val")
    }
    text = f"epoch {row['epoch']:{len(str(epochs))}}/{epochs}  {numbers(parts['train'])}"
    if parts["val"]:
        text += f"  | val {numbers(parts['val'])}"
    return text + f"  | lr {row['lr']:.2g}  {row['images_per_second']:,.0f} img/s"


def numbers(means: dict[str, float]) -> str:
    """Return loss and accuracy in fixed width."""
    text = f"loss {means['loss']:.4f}"
    return text + (f"  acc {100 * means['accuracy']:6.2f} %" if "accuracy" in means else "")


def clock(seconds: float) -> str:
    """Return a duration as ``1:23`` or ``2:01:23``.

    >>> clock(83), clock(7283)
    ('1:23', '2:01:23')
    """
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours else f"{m}:{s:02}"


def stream_for(json_line: bool) -> TextIO:
    """Return where words go: standard output, unless that is kept for JSON."""
    return sys.stderr if json_line else sys.stdout
