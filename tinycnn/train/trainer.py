"""The training loop.

One step of it, `CapturedStep`, is all of deep learning in five lines: how the network answers, how wrong that
is, which way every weight should move, and the move.  Everything else here is counting, and being able to
stop and go on: `Trainer.state_dict` holds the weights, the optimizer, the schedule, the random streams and the
place in the epoch, so a run that goes on from it takes the very steps that it would have taken.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..backend import CPU, Array, device_of, synchronize
from ..layers.base import Layer
from ..layers.freeze import frozen_parts, restore_frozen
from ..messages import nearest
from ..optim import EMA, Optimizer, ReduceLROnPlateau
from .batches import AnyBatches, Batches, as_batches, opened
from .callbacks import METRICS, Callback, load_states, metric_in, mode_of, states_of
from .captured import CapturedStep
from .checkpoint import describe
from .diagnose import NonFiniteError, check_labels, diagnose, is_finite
from .measure import evaluate
from .memory import out_of_memory_explained
from .step import Loss
from .sums import Sums

__all__ = ["CHECK_EVERY", "Batches", "Row", "Sums", "Trainer", "evaluate"]

Row: TypeAlias = dict[str, Any]
"""What is known of one epoch: a line of ``metrics.jsonl``."""

CHECK_EVERY = 20
"""On a GPU, looking at a loss means waiting for it: only one batch in so many is checked for being finite."""


class Trainer:
    """Trains a network.

    What it does is this loop, and counting::

        for epoch in range(epochs):
            model.train()
            for x, y in loader.epoch(epoch):
                loss, dlogits = loss_fn(model(x), y)
                model.zero_grad()
                model.backward(dlogits)
                clip_grad_norm_(model, clip_norm)
                optimizer.step()
                schedule.step()
            print(epoch + 1, evaluate(model, validation))

    Whoever wants another loop writes it; all parts work without a trainer.

    Args:
        model: the network; its gradient with respect to the images is switched off (nobody wants it).
        optimizer: over the model's parameters.
        loss_fn: see `Loss`.
        schedule: of the learning rate, made for ``optimizer``; stepped after every update, a `ReduceLROnPlateau`
            after every epoch, with the metric ``monitor``.
        val_loss_fn: what validation measures, if not ``loss_fn``: the one without label smoothing, say.
        monitor: one of `METRICS`; without validation train_loss takes the place of val_loss.
        clip_norm: shrink the gradients of each update to this norm at most.
        accumulate: update after so many batches, as if they were one; the last of an epoch may be fewer (`Step`).
        ema: averages of the weights, made of ``model``: moved after every update, and what validation measures.
        callbacks: see `Callback`.
        graph, precision: on a GPU, capture the step as a CUDA graph and replay it; compute in tf32, bf16 or fp16: see
            `CapturedStep`.
        after_batch: called with the trainer after every batch.
        after_epoch: called with the trainer and the `Row` after every epoch, when the callbacks have been.

    Attributes:
        epoch: epochs finished.
        batch: batches done of the one under way.
        sums: of the one under way.
        loss: of the last batch, where the network is; None before the first.  The next step may overwrite it.
        batches_per_epoch: None before `fit`.
        history: a `Row` for each epoch finished.
        captured: does the steps.
        stopping: whether `stop` was called, and `fit` has not returned since.
        ended: why the training was ended before all epochs were done, if it was (`end`).

    Raises:
        ValueError: an argument out of range; a ``monitor`` that is not measured, or that the schedule's mode does not
            suit.

    >>> from tinycnn import CrossEntropyLoss, Flatten, Linear, Sequential, data, optim
    >>> digits, model = data.load("digits"), Sequential(Flatten(), Linear(64, 10, rng=np.random.default_rng(0)))
    >>> trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.1), CrossEntropyLoss())
    >>> trainer.fit(data.Loader(digits.images, digits.labels, batch_size=64), epochs=2)
    True
    >>> [row["train_loss"] < 3 for row in trainer.history]
    [True, True]
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        schedule: Any = None,
        val_loss_fn: Loss | None = None,
        monitor: str = "val_loss",
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: EMA | None = None,
        callbacks: Iterable[Callback] = (),
        graph: bool = True,
        precision: str | None = None,
        after_batch: Iterable[Callable[[Trainer], None]] = (),
        after_epoch: Iterable[Callable[[Trainer, Row], None]] = (),
    ) -> None:
        self.model, self.optimizer, self.loss_fn, self.schedule = model, optimizer, loss_fn, schedule
        self.val_loss_fn, self.monitor, self.clip_norm, self.ema = val_loss_fn, monitor, clip_norm, ema
        self._check_monitor()
        self.callbacks = list(callbacks)
        self.after_batch, self.after_epoch = list(after_batch), list(after_epoch)
        self.epoch = self.batch = 0
        self.sums, self.seconds, self.history = Sums(optimizer.flat.data), 0.0, list[Row]()
        self.stopping = False
        self.ended: str | None = None
        self.captured = CapturedStep(
            model,
            optimizer,
            loss_fn,
            clip_norm=clip_norm,
            accumulate=accumulate,
            ema=ema,
            then=self.sums.add_numbers,
            graph=graph,
            precision=precision,
        )
        self._epochs: int | None = None
        self.batches_per_epoch: int | None = None
        self.loss: Array | None = None
        self._device = device_of(optimizer.flat.data)
        self._check_every = 1 if self._device == CPU else CHECK_EVERY
        model.require_dx(False)

    def _check_monitor(self) -> None:
        if self.monitor not in METRICS:
            raise ValueError(
                f"monitor: nothing measures {self.monitor!r}{nearest(self.monitor, METRICS)} "
                f"(known: {', '.join(METRICS)})"
            )
        if isinstance(self.schedule, ReduceLROnPlateau):
            mode_of(self.monitor, self.schedule.mode)

    # ---- training ------------------------------------------------------------------------------------------

    def step(self, x: Array, y: Array, last: bool = False) -> tuple[Array, Array]:
        """Learn from one batch: images and their labels.  Returns (loss, logits) as they were before the update.

        On a GPU the next step may overwrite them.

        Args:
            x, y: the batch.
            last: update now, even if ``accumulate`` batches have not come together.

        Raises:
            NonFiniteError: the loss is infinite or not a number (on a GPU only one in `CHECK_EVERY` is looked at).
            OutOfMemoryError: the GPU's memory does not suffice.
        """
        captured = self.captured
        captured.loss_fn, captured.clip_norm = self.loss_fn, self.clip_norm  # they may have been replaced
        check = self._loss_check(x) if self.batch % self._check_every == 0 else None
        with out_of_memory_explained(self.model, self.optimizer, x, captured.release):
            loss, logits = captured.run(x, y, check, last)
        if self.schedule is not None and not self._waits_for_epoch() and captured.waiting == 0:
            self.schedule.step()
        return loss, logits

    def fit(self, loader: AnyBatches, epochs: int, validation: AnyBatches | None = None) -> bool:
        """Train until ``epochs`` epochs are finished, those before included, or `stop` or `end` is called.

        Args:
            loader: of the training batches: a `tinycnn.data.Loader`, or anything with a length that can be iterated.
            epochs: in all.
            validation: batches to measure the network on after each epoch; with averages, the averaged network.

        Returns:
            Whether the training is done: `done`.

        Raises:
            NonFiniteError: the loss became infinite or not a number; the message says where that began.
            ValueError: a metric to watch that is not measured, or another loader than a training that goes on in the
                middle of an epoch was stopped with.
        """
        batches = as_batches(loader)
        held_out = None if validation is None else as_batches(validation)
        self._epochs = epochs
        self._check_place(batches, held_out)
        self._tell("on_train_begin")
        try:
            while not self.done and not self.stopping:
                self._train_epoch(batches)
                if not self.stopping:
                    self._finish_epoch(held_out)
        finally:
            self._tell("on_train_end")
            self.stopping = False
        return self.done

    @property
    def done(self) -> bool:
        """Whether the training is over: all epochs that `fit` was asked for are finished, or `end` was called."""
        return self.ended is not None or (self._epochs is not None and self.epoch >= self._epochs)

    def stop(self) -> None:
        """Ask `fit` to return after the batch under way, to be gone on with; may be called from a signal handler."""
        self.stopping = True

    def end(self, reason: str) -> None:
        """Ask `fit` to return after the epoch under way, for good: the training is done."""
        self.ended = reason

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """Give the network its averaged weights for the duration of a block, if there are any: see `EMA.averaged`."""
        return contextlib.nullcontext() if self.ema is None else self.ema.averaged()

    def _tell(self, moment: str, *what: Any) -> None:
        for callback in list(self.callbacks):
            getattr(callback, moment)(self, *what)

    def _check_place(self, loader: Batches, validation: Batches | None) -> None:
        """Raise ValueError if what was to be measured cannot be, or the place is one in another data set's epoch."""
        if validation is None and self.monitor not in ("val_loss", "train_loss", "train_accuracy"):
            raise ValueError(f"monitor is {self.monitor!r}: give fit a validation loader to measure it on")
        if self.batch and self.batches_per_epoch not in (None, len(loader)):
            raise ValueError(
                f"this training was stopped after batch {self.batch} of {self.batches_per_epoch} of an epoch, and "
                f"the loader has {len(loader)} batches: go on with the data set and the batch size that it began with"
            )
        self.batches_per_epoch = len(loader)

    def _train_epoch(self, loader: Batches) -> None:
        self.model.train()
        self.model.require_dx(False)  # anew: parameters may have been frozen or thawed
        if self.batch == 0:
            self.sums.set()
            self._tell("on_epoch_begin")
        start = time.perf_counter()
        quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")  # the loss is looked at instead
        with quiet, opened(loader, self.epoch, self.batch, lambda: self.captured.inputs) as batches:
            for x, y in batches:
                self.loss, _ = self.step(x, y, last=self.batch + 1 == len(loader))
                self.sums.add_batch(y)
                self.batch += 1
                if self.batch == len(loader):
                    synchronize(self._device)  # what the GPU still has to do is time of this epoch
                now = time.perf_counter()
                self.seconds, start = self.seconds + now - start, now
                self._tell("on_batch_end")
                for tell in self.after_batch:
                    tell(self)
                if self.stopping:
                    return
        if self.batch != len(loader):
            raise ValueError(f"the loader gave {self.batch} batches in an epoch, and says that it has {len(loader)}")

    def _finish_epoch(self, validation: Batches | None) -> None:
        """Measure, write down, and get ready for the next epoch."""
        means = self.sums.means()
        self._check_epoch(means)
        row: Row = {"epoch": self.epoch + 1, **{f"train_{name}": value for name, value in means.items()}}
        if validation is not None:
            row |= {f"val_{name}": value for name, value in self._measure(validation).items()}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "seconds": round(self.seconds, 3)}
        row["images_per_second"] = round(self.sums.examples / max(self.seconds, 1e-9), 1)
        if self._waits_for_epoch():
            self.schedule.step(metric_in(row, self.monitor))
        self.history.append(row)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.set()
        self._tell("on_epoch_end", row)
        for tell in list(self.after_epoch):
            tell(self, row)

    def _measure(self, validation: Batches) -> dict[str, float]:
        try:
            with out_of_memory_explained(self.model, self.optimizer, None, self.captured.release), self.averaged():
                return evaluate(self.model, validation, self.val_loss_fn or self.loss_fn)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error.what} after epoch {self.epoch + 1}", error.where) from None

    def _waits_for_epoch(self) -> bool:
        return isinstance(self.schedule, ReduceLROnPlateau)

    # ---- when numbers run away -----------------------------------------------------------------------------

    def _loss_check(self, x: Array) -> Callable[[Array], None]:
        """Return what raises NonFiniteError if the loss of the batch ``x`` is not finite."""
        before = self.model.random_state()  # draws the same dropout again

        def check(loss: Array) -> None:
            if not np.isfinite(float(loss)):
                check_labels(self.loss_fn)
                self.model.set_random_state(before)
                raise NonFiniteError(self._place(f"loss became {float(loss)}"), diagnose(self.model, x))

        return check

    def _check_epoch(self, means: Mapping[str, float]) -> None:
        """Raise NonFiniteError at the end of an epoch with a parameter or a mean not finite; ValueError for labels."""
        check_labels(self.loss_fn)
        data = self.optimizer.flat.data
        if is_finite(data) and np.isfinite(means["loss"]):
            return
        self.batch -= 1
        found = diagnose(self.model)
        what = "weights became infinite or nan" if found else f"the mean loss became {means['loss']}"
        raise NonFiniteError(self._place(what), found)

    def _place(self, what: str) -> str:
        return f"{what} at epoch {self.epoch + 1}, batch {self.batch + 1}"

    # ---- state ---------------------------------------------------------------------------------------------

    def weights(self) -> dict[str, Any]:
        """Return copies of the network's parameters and buffers, and of the averages if there are any."""
        return {"model": self.model.state_dict(), "ema": None if self.ema is None else self.ema.state_dict()}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        """Bring back what `weights` returned.

        Raises:
            ValueError: another network's, or with averages where there are none, or the other way round.
        """
        if (self.ema is None) != (weights["ema"] is None):
            made = "with averages" if self.ema is None else "without averages"
            raise ValueError(f"these weights were saved {made}: make the trainer {made} (ema) too")
        self.model.load_state_dict(weights["model"])
        if self.ema is not None:
            self.ema.load_state_dict(weights["ema"])

    def state_dict(self) -> dict[str, Any]:
        """Return all it takes to go on from here: NumPy arrays and what JSON can hold, in dicts and lists.

        `tinycnn.train.state` takes arrays and JSON apart, for a file.
        """
        return {
            "architecture": getattr(self.model, "architecture", None),
            **self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": None if self.captured.scaler is None else self.captured.scaler.state_dict(),
            "frozen": frozen_parts(self.model),
            "random": {path: [int(v) for v in state] for path, state in self.model.random_state().items()},
            "epoch": self.epoch,
            "batch": self.batch,
            "batches_per_epoch": self.batches_per_epoch,
            "waiting": self.captured.state_dict(),
            "sums": self.sums.state(),
            "seconds": self.seconds,
            "history": [dict(row) for row in self.history],
            "ended": self.ended,
            "callbacks": states_of(self.callbacks),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved trainer stood; model, optimizer, schedule, averages and callbacks must be made alike.

        Raises:
            ValueError: they are not.
        """
        self._check_architecture(state.get("architecture"))
        self.set_weights({"model": state["model"], "ema": state.get("ema")})
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.captured.scaler is not None:
            self.captured.scaler.load_state_dict(state["scaler"])
        if "frozen" in state:  # older files lack it
            restore_frozen(self.model, state["frozen"])
        self.model.set_random_state(state["random"])
        self.epoch, self.batch, self.seconds = state["epoch"], state["batch"], state["seconds"]
        self.batches_per_epoch, self.ended = state.get("batches_per_epoch"), state.get("ended")
        self.captured.load_state_dict(state.get("waiting"))
        self.sums.set(state["sums"])
        self.history = list(state["history"])
        load_states(self.callbacks, state.get("callbacks", ()))

    def _check_architecture(self, saved: Any) -> None:
        own = getattr(self.model, "architecture", None)
        if saved is not None and own is not None and saved != own:
            raise ValueError(
                f"the state is of {describe(saved)}, and this network is {describe(own)}: build the network that it "
                "was saved with"
            )
