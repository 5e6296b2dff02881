"""What a `Trainer` calls on its way, and what is most often wanted of that: stopping early, saving now and then.

A `Callback` has a method for each moment.  What it has to remember is part of the trainer's state, so that a training
that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..messages import counted

if TYPE_CHECKING:
    from .trainer import Row, Trainer

Mode: TypeAlias = Literal["min", "max"]

METRICS = ("val_loss", "val_accuracy", "train_loss", "train_accuracy")
"""What a `Trainer` measures in every epoch: the entries of a row that can be watched."""


class Callback:
    """What does something at some moments of a training; by default nothing.

        class Print(Callback):
            def on_epoch_end(self, trainer, row):
                print(row["epoch"], row["val_accuracy"])

    Any of them may call `Trainer.stop` or `Trainer.end`.  On a GPU a look at a loss or a weight waits for the GPU.
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Called when `Trainer.fit` begins, also when it goes on."""

    def on_epoch_begin(self, trainer: Trainer) -> None:
        """Called before the first batch of an epoch; not if it is gone on with in the middle."""

    def on_batch_end(self, trainer: Trainer) -> None:
        """Called after every batch: ``trainer.batch`` are done."""

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Called when an epoch has been measured and counted: ``trainer.epoch`` are finished."""

    def on_train_end(self, trainer: Trainer) -> None:
        """Called when `Trainer.fit` ends, however it does: ``trainer.done`` says whether all is done."""

    def state_dict(self) -> dict[str, Any]:
        """Return what is to be remembered: NumPy arrays, and what JSON can hold, in dicts and lists."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved one stood.

        Raises:
            ValueError: the state does not fit.
        """


def mode_of(monitor: str, mode: str = "auto") -> Mode:
    """Return whether more of a metric is better or less.

    Args:
        monitor: a name that contains ``loss`` or ``error`` (less is better), or ``accuracy`` or ``top`` (more is).
        mode: ``"auto"`` to go by the name; ``"min"`` or ``"max"`` for any other, or to be checked.

    Raises:
        ValueError: another mode; one that contradicts the name; ``"auto"`` for a name that does not say.

    >>> mode_of("val_loss"), mode_of("val_accuracy")
    ('min', 'max')
    """
    if mode not in ("auto", "min", "max"):
        raise ValueError(f"mode must be 'min', 'max' or 'auto', got {mode!r}")
    less, more = (any(word in monitor for word in words) for words in (("loss", "error"), ("accuracy", "top")))
    known: Mode | None = "min" if less and not more else "max" if more and not less else None
    if mode == "auto":
        if known is None:
            raise ValueError(f"the name {monitor!r} does not say whether more is better: pass mode='min' or mode='max'")
        return known
    if known not in (None, mode):
        best = "less" if known == "min" else "more"
        raise ValueError(f"mode {mode!r} does not suit {monitor!r}, of which {best} is better: pass mode={known!r}")
    return "min" if mode == "min" else "max"


def metric_in(row: Row, monitor: str) -> float:
    """Return the metric called ``monitor`` of an epoch; in place of val_loss, without validation, train_loss.

    Raises:
        ValueError: the row has no such number.
    """
    name = "train_loss" if monitor == "val_loss" and monitor not in row else monitor
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        known = ", ".join(key for key, value in row.items() if key.startswith(("train_", "val_")))
        raise ValueError(
            f"nothing has measured {monitor!r} here: watch one of {known}, or give fit a validation loader"
        )
    return float(value)


class EarlyStopping(Callback):
    """End the training when a metric has stopped improving, with the weights of the best epoch.

    An epoch is better if its metric beats the best so far by more than ``min_delta``.  After ``patience`` epochs in a
    row that are not, the training ends, and so does one that has had all its epochs; the network (its buffers and, if
    the trainer has them, its averages) is then what it was after the best.  The optimizer is not taken back.  One that
    was stopped from without, to be gone on with, is left where it is.

    Args:
        patience: epochs without improvement to put up with.
        monitor: which metric, an entry of `Row`; without validation train_loss takes the place of val_loss.
        mode: ``"min"``, ``"max"``, or ``"auto"``: by the name, see `mode_of`.
        min_delta: what does not count as an improvement.
        restore_best: False keeps the last weights.

    Attributes:
        best, best_epoch: the metric and the number of the best epoch; None before the first.
        bad_epochs: how many there have been since.

    Raises:
        ValueError: an argument out of range, or a mode that does not suit the metric.

    Sources: Prechelt 1998, "Early stopping, but when?" (here the criterion UP_s, of epochs that are not better).
    """

    def __init__(
        self,
        patience: int = 10,
        monitor: str = "val_loss",
        mode: str = "auto",
        min_delta: float = 0.0,
        restore_best: bool = True,
    ) -> None:
        if patience < 1:
            raise ValueError(f"EarlyStopping: patience must be at least 1, got {patience!r}")
        if not 0 <= min_delta < math.inf:
            raise ValueError(f"EarlyStopping: min_delta must be at least 0, got {min_delta!r}")
        self.patience, self.monitor, self.min_delta, self.restore_best = patience, monitor, min_delta, restore_best
        self.mode = mode_of(monitor, mode)
        self.best: float | None = None
        self.best_epoch: int | None = None
        self.bad_epochs = 0
        self._kept: dict[str, Any] | None = None

    def is_better(self, metric: float) -> bool:
        """Whether ``metric`` beats the best so far."""
        if self.best is None:
            return math.isfinite(metric)
        sign = 1 if self.mode == "max" else -1
        return sign * (metric - self.best) > self.min_delta

    def on_epoch_end(self, trainer: Trainer, row: Row) -> None:
        """Keep what is the best so far, and count what is not."""
        metric = metric_in(row, self.monitor)
        if self.is_better(metric):
            self.best, self.best_epoch, self.bad_epochs = metric, row["epoch"], 0
            if self.restore_best:
                self._kept = trainer.weights()
            return
        self.bad_epochs += 1
        if self.bad_epochs >= self.patience:
            trainer.end(f"{self.monitor} has not improved for {counted(self.bad_epochs, 'epoch')}")

    def on_train_end(self, trainer: Trainer) -> None:
        """Bring the best weights back, if the training is over."""
        if trainer.done and self._kept is not None:
            trainer.set_weights(self._kept)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch, its weights included."""
        return {
            "monitor": self.monitor,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "bad_epochs": self.bad_epochs,
            "kept": self._kept,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved one stood."""
        if state["monitor"] != self.monitor:
            raise ValueError(f"EarlyStopping: the state is of {state['monitor']!r}, this one watches {self.monitor!r}")
        self.best, self.best_epoch, self.bad_epochs = state["best"], state["best_epoch"], state["bad_epochs"]
        self._kept = state["kept"] if self.restore_best else None


class SaveEvery(Callback):
    """Call something now and then within epochs: what saves the state, so that a kill costs no more than that.

        Trainer(…, callbacks=[SaveEvery(lambda trainer: save(trainer.state_dict()), minutes=5)])

    Args:
        save: called with the trainer, between two batches.
        minutes, batches: after so many; one of the two.

    Raises:
        ValueError: neither or both are given, or not greater than 0.
    """

    def __init__(
        self, save: Callable[[Trainer], None], *, minutes: float | None = None, batches: int | None = None
    ) -> None:
        if (minutes is None) == (batches is None) or not (minutes or batches or 0) > 0:
            raise ValueError(f"SaveEvery: give minutes or batches, greater than 0; got {minutes} and {batches}")
        self.save, self.minutes, self.batches = save, minutes, batches
        self._count, self._last = 0, 0.0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Begin to count."""
        self._count, self._last = 0, time.monotonic()

    def on_batch_end(self, trainer: Trainer) -> None:
        """Save if it is time."""
        self._count += 1
        if self.batches is not None:
            due = self._count >= self.batches
        else:
            due = self.minutes is not None and time.monotonic() - self._last >= 60 * self.minutes
        if due:
            self.save(trainer)
            self.on_train_begin(trainer)


# ---- state -------------------------------------------------------------------------------------------------


def states_of(callbacks: Sequence[Callback]) -> list[dict[str, Any]]:
    """Return the states of those that have one, with the names of their classes."""
    named = [{"callback": type(callback).__name__, "state": callback.state_dict()} for callback in callbacks]
    return [one for one in named if one["state"]]


def load_states(callbacks: Sequence[Callback], states: Sequence[Mapping[str, Any]]) -> None:
    """Give each saved state to the callback of its class, of several to the first that has none yet.

    Raises:
        ValueError: a state that nobody takes, or that does not fit.
    """
    left = list(callbacks)
    for saved in states:
        taker = next((callback for callback in left if type(callback).__name__ == saved["callback"]), None)
        if taker is None:
            raise ValueError(f"the state has something of a {saved['callback']}: give the trainer that callback again")
        left.remove(taker)
        taker.load_state_dict(saved["state"])
