"""The progress of a training for TensorBoard: ``tensorboard --logdir runs``.

The ``tensorboard`` extra is TensorBoard itself, which both shows and writes event files, without TensorFlow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..train.callbacks import Callback

if TYPE_CHECKING:
    from ..train.trainer import Row, Trainer

PARTS = {"train": "training", "val": "validation"}
"""Of what a number of a `Row` is: how its name begins, and what TensorBoard is to call it."""


class TensorBoard(Callback):
    """Write the numbers of every epoch into an event file.

    A training that goes on begins another file, which tells TensorBoard to forget what an earlier one says of epochs
    that are done again.

    Args:
        folder: for the event files.
        config: shown as text: what decides the result.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path | str, config: Mapping[str, Any] | None = None) -> None:
        check()
        self.folder, self.config = Path(folder), dict(config or {})
        self._writer: Any = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin a file."""
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.on_train_end(trainer)
        self._writer = EventFileWriter(str(self.folder))
        if trainer.epoch:
            self._write(trainer.epoch + 1, session_log=SessionLog(status=SessionLog.START))
        elif self.config:
            self._write(0, summary=text_pb("configuration", markdown(self.config)))
        self._writer.flush()

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Write the numbers of an epoch."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in row.items() if name != "epoch" and isinstance(value, int | float)}
        values = [Summary.Value(tag=tag_of(name), simple_value=value) for name, value in numbers.items()]
        self._write(row["epoch"], summary=Summary(value=values))
        self._writer.flush()

    def on_train_end(self, trainer: Trainer) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(step=step, wall_time=time.time(), **content))


def check() -> None:
    """Make sure that TensorBoard is installed.

    Raises:
        ImportError: it is not.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise ImportError("TensorBoard is not installed: pip install 'tinycnn[tensorboard]'") from None


def tag_of(name: str) -> str:
    """Return TensorBoard's name for a number of a row: curves with the same word before the stroke are neighbours.

    >>> tag_of("val_loss"), tag_of("lr")
    ('loss/validation', 'lr')
    """
    part, _, what = name.partition("_")
    return f"{what}/{PARTS[part]}" if part in PARTS and what else name


def markdown(values: Mapping[str, Any]) -> str:
    """Return a table of two columns in Markdown."""
    rows = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in values.items()]
    return "\n".join(["| setting | value |", "|---|---|", *rows])
