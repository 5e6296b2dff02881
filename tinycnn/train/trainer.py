"""The training loop.

One step of it, `CapturedStep`, is all of deep learning in five lines: how the network answers, how wrong that
is, which way every weight should move, and the move.  Everything else here is counting, and being able to
stop and go on: `Trainer.state_dict` holds the weights, the optimizer, the schedule, the random streams and the
place in the epoch, so a run that goes on from it takes the very steps that it would have taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..backend import CPU, Array, array_module, device_of, synchronize
from ..data.device import DeviceLoader
from ..kernels.metrics import count_batch
from ..layers.base import Layer
from ..layers.freeze import frozen_parts, restore_frozen
from ..layers.watch import restored
from ..optim import Optimizer, ReduceLROnPlateau
from .captured import CapturedStep, Loss
from .diagnose import NonFiniteError, check_labels, diagnose, is_finite
from .memory import out_of_memory_explained

Row: TypeAlias = dict[str, Any]
"""What is known of one epoch: a line of ``metrics.jsonl``."""

CHECK_EVERY = 20
"""On a GPU, looking at a loss means waiting for it: only one batch in so many is checked for being finite."""


class Batches(Protocol):
    """Where batches come from: `tinycnn.data.Loader` is one."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Return the batches of an epoch, from number ``start`` on; the same each time it is asked."""


class Sums:
    """Running sums of an epoch, kept where the network is: adding to them never waits for a GPU.

    Args:
        like: an array on the device to keep them on.
        state: what `state` returned.
    """

    def __init__(self, like: Array, state: Sequence[float] = (0.0, 0, 0, 0)) -> None:
        xp = array_module(like)
        self._loss, self._correct = xp.zeros(1, np.float64), xp.zeros(1, np.int64)
        self.labels, self.examples = 0, 0
        self.set(state)

    def set(self, state: Sequence[float] = (0.0, 0, 0, 0)) -> None:
        """Begin anew, with what `state` returned."""
        self._loss[...], self._correct[...] = float(state[0]), int(state[1])
        self.labels, self.examples = int(state[2]), int(state[3])

    def add(self, loss: Array, logits: Array, targets: Array) -> None:
        """Count a batch; accuracy only where the targets are labels."""
        self.add_numbers(loss, logits, targets)
        self.add_batch(targets)

    def add_numbers(self, loss: Array, logits: Array, targets: Array) -> None:
        """Do the device's part of `add`."""
        count_batch(logits, targets, loss, self._loss, self._correct)

    def add_batch(self, targets: Array) -> None:
        """Do Python's part of `add`."""
        self.examples += len(targets)
        if targets.dtype.kind in "iu":
            self.labels += targets.size

    def means(self) -> dict[str, float]:
        """Return ``loss``, and ``accuracy`` between 0 and 1, over what was counted."""
        means = {"loss": float(self._loss[0]) / max(self.examples, 1)}
        return means | ({"accuracy": int(self._correct[0]) / self.labels} if self.labels else {})

    def state(self) -> list[Any]:
        """Return the arguments that make an equal object."""
        return [float(self._loss[0]), int(self._correct[0]), self.labels, self.examples]


class Trainer:
    """Trains a network.

    Args:
        model: the network; its gradient with respect to the images is switched off (nobody wants it).
        optimizer: over the model's parameters.
        loss_fn: see `Loss`.
        schedule: of the learning rate, made for ``optimizer``; stepped after every batch, a `ReduceLROnPlateau`
            after every epoch, with the validation loss (the training loss if there is no validation).
        clip_norm: shrink the gradients of each step to this norm at most.
        graph, precision: on a GPU, capture the step as a CUDA graph and replay it; compute in tf32, bf16 or fp16: see
            `CapturedStep`.
        after_batch: called with the trainer after every batch.
        after_epoch: called with the trainer and the `Row` after every epoch.

    Attributes:
        epoch: epochs finished.
        batch: batches done of the one under way.
        sums: of the one under way.
        history: a `Row` for each epoch finished.
        captured: does the steps.
        stopping: whether `stop` was called.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        schedule: Any = None,
        clip_norm: float | None = None,
        graph: bool = True,
        precision: str | None = None,
        after_batch: Iterable[Callable[[Trainer], None]] = (),
        after_epoch: Iterable[Callable[[Trainer, Row], None]] = (),
    ) -> None:
        self.model, self.optimizer, self.loss_fn, self.schedule = model, optimizer, loss_fn, schedule
        self.clip_norm = clip_norm
        self.after_batch, self.after_epoch = list(after_batch), list(after_epoch)
        self.epoch = self.batch = 0
        self.sums, self.seconds, self.history = Sums(optimizer.flat.data), 0.0, list[Row]()
        self.stopping = False
        self.captured = CapturedStep(
            model,
            optimizer,
            loss_fn,
            clip_norm=clip_norm,
            then=self.sums.add_numbers,
            graph=graph,
            precision=precision,
        )
        self._device = device_of(optimizer.flat.data)
        self._check_every = 1 if self._device == CPU else CHECK_EVERY
        model.require_dx(False)

    # ---- training ------------------------------------------------------------------------------------------

    def step(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Learn from one batch: images and their labels.  Returns (loss, logits) as they were before the update.

        On a GPU the next step may overwrite them.

        Raises:
            NonFiniteError: the loss is infinite or not a number (on a GPU only one in `CHECK_EVERY` is looked at).
            OutOfMemoryError: the GPU's memory does not suffice.
        """
        captured = self.captured
        captured.loss_fn, captured.clip_norm = self.loss_fn, self.clip_norm  # they may have been replaced
        check = self._loss_check(x) if self.batch % self._check_every == 0 else None
        with out_of_memory_explained(self.model, self.optimizer, x, captured.release):
            loss, logits = captured.run(x, y, check)
        if self.schedule is not None and not self._waits_for_epoch():
            self.schedule.step()
        return loss, logits

    def fit(self, loader: Batches, epochs: int, validation: Batches | None = None) -> bool:
        """Train until ``epochs`` epochs are finished, those before included, or `stop` is called.

        Args:
            loader: of the training batches.
            epochs: in all.
            validation: batches to measure the network on after each epoch.

        Returns:
            Whether all epochs are finished.

        Raises:
            NonFiniteError: the loss became infinite or not a number; the message says where that began.
        """
        while self.epoch < epochs and not self.stopping:
            self._train_epoch(loader)
            if self.batch == len(loader) and not self.stopping:
                self._finish_epoch(validation)
        return self.epoch >= epochs

    def stop(self) -> None:
        """Ask `fit` to return after the batch under way; may be called from a signal handler."""
        self.stopping = True

    def _train_epoch(self, loader: Batches) -> None:
        self.model.train()
        self.model.require_dx(False)  # anew: parameters may have been frozen or thawed
        if self.batch == 0:
            self.sums.set()
        start = time.perf_counter()
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # the loss is looked at instead
            for x, y in self._batches(loader):
                self.step(x, y)
                self.sums.add_batch(y)
                self.batch += 1
                if self.batch == len(loader):
                    synchronize(self._device)  # what the GPU still has to do is time of this epoch
                now = time.perf_counter()
                self.seconds, start = self.seconds + now - start, now
                for tell in self.after_batch:
                    tell(self)
                if self.stopping:
                    return

    def _batches(self, loader: Batches) -> Iterator[tuple[Array, Array]]:
        """Return the batches that are left of the epoch, where a captured step reads them if the loader can do that."""
        if isinstance(loader, DeviceLoader):
            return loader.epoch(self.epoch, self.batch, into=lambda: self.captured.inputs)
        return loader.epoch(self.epoch, self.batch)

    def _finish_epoch(self, validation: Batches | None) -> None:
        """Measure, write down, and get ready for the next epoch."""
        means = self.sums.means()
        self._check_epoch(means)
        row: Row = {"epoch": self.epoch + 1, **{f"train_{name}": value for name, value in means.items()}}
        if validation is not None:
            try:
                with out_of_memory_explained(self.model, self.optimizer, None, self.captured.release):
                    means = evaluate(self.model, validation, self.loss_fn)
            except NonFiniteError as error:
                raise NonFiniteError(f"{error.what} after epoch {self.epoch + 1}", error.where) from None
            row |= {f"val_{name}": value for name, value in means.items()}
        row |= {"lr": self.optimizer.param_groups[0]["lr"], "seconds": round(self.seconds, 3)}
        row["images_per_second"] = round(self.sums.examples / max(self.seconds, 1e-9), 1)
        if self._waits_for_epoch():
            self.schedule.step(means["loss"])
        self.history.append(row)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.set()
        for tell in list(self.after_epoch):
            tell(self, row)

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

    def state_dict(self) -> dict[str, Any]:
        """Return all it takes to go on from here; arrays under ``model`` and ``optimizer``, the rest is JSON."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": None if self.captured.scaler is None else self.captured.scaler.state_dict(),
            "frozen": frozen_parts(self.model),
            "random": {path: [int(v) for v in state] for path, state in self.model.random_state().items()},
            "epoch": self.epoch,
            "batch": self.batch,
            "sums": self.sums.state(),
            "seconds": self.seconds,
            "history": self.history,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved trainer stood; the model, optimizer and schedule must be made alike.

        Raises:
            ValueError: they are not.
        """
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.captured.scaler is not None:
            self.captured.scaler.load_state_dict(state["scaler"])
        if "frozen" in state:  # older files lack it
            restore_frozen(self.model, state["frozen"])
        self.model.set_random_state(state["random"])
        self.epoch, self.batch, self.seconds = state["epoch"], state["batch"], state["seconds"]
        self.sums.set(state["sums"])
        self.history = list(state["history"])


def evaluate(model: Layer, loader: Batches, loss_fn: Loss | None = None) -> dict[str, float]:
    """Measure a network, in evaluation mode; the mode it was in is restored.

    Args:
        model: the network.
        loader: of the batches; its epoch 0 is taken, so it had better not shuffle (the sums would round otherwise).
        loss_fn: cross-entropy by default.

    Returns:
        The mean ``loss`` and, where targets are labels, the ``accuracy`` between 0 and 1.

    Raises:
        NonFiniteError: the loss is infinite or not a number.
    """
    if loss_fn is None:
        from ..losses import CrossEntropyLoss

        loss_fn = CrossEntropyLoss()
    sums: Sums | None = None
    with restored(model), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model.eval()
        for x, y in loader.epoch(0):
            logits = model.forward(x)
            sums = sums or Sums(logits)
            sums.add(loss_fn(logits, y)[0], logits, y)
        check_labels(loss_fn)
        means = sums.means() if sums else {"loss": 0.0}
        if not np.isfinite(means["loss"]):
            raise NonFiniteError(f"loss on held-out images is {means['loss']}", _first_trouble(model, loader))
    return means


def _first_trouble(model: Layer, loader: Batches) -> str | None:
    """Return where the first non-finite value comes from, going through the batches once more."""
    for x, _ in loader.epoch(0):
        if (found := diagnose(model, x)) is not None:
            return found
    return None
