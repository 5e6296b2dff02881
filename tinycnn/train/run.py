"""A training run from settings to result, in a folder that survives whatever moment it is stopped at.

=============================  =====================================================================================
config.json                    all it takes to repeat the run: settings (measured algorithms too), versions, machine
metrics.jsonl                  a line per epoch
last.safetensors               the weights after the last epoch that is finished
best.safetensors               the weights of the best one (`best_epoch`); usable without the rest
training_state.safetensors     all it takes to go on: weights, optimizer, schedule, random streams, place
result.json                    the end of the story: accuracy on the test images
curves.png                     loss and accuracy by epoch, if matplotlib is there
records.safetensors            what it looked like on the way, for ``tinycnn explain`` (`recorder`)
report.html                    the whole story as a page, written by the command line (`tinycnn.report`)
tensorboard/                   the same numbers as event files, if they were asked for
=============================  =====================================================================================

**Whenever it is killed.**  ``training_state`` holds everything, so its rename commits an epoch; the other files
are written before it.  A run killed between them goes back to the state and writes the same bytes again.

**An honest number.**  The best epoch is chosen on a part of the training images set aside.  The test images are
looked at once, at the end, with the weights of that epoch.  What differs from a recipe is named in config.json and
result.json (`recipes.describe`).

**Averages.**  Where the settings want an average of the weights (``ema``), it is what is measured and kept.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, parallel
from ..backend import CPU, gpu_name, resolve_device
from ..files import locked, write_json, write_json_lines
from ..layers import Layer
from ..layers.tune import set_algorithms
from ..losses import AuxiliaryLoss, CrossEntropyLoss
from ..optim import EMA
from . import checkpoint, curves, recipes
from .batchnorm_statistics import recompute_statistics
from .callbacks import Callback, EarlyStopping, SaveEvery
from .checkpoint import WEIGHTS, CheckpointError
from .folder import CONFIG, METRICS, RESULT, STATE, must_be_empty, read_config, read_result, read_state, write_state
from .images import EVALUATION_BATCH, difference, open_images
from .recorder import recorder_of
from .settings import Settings
from .trainer import Row, Trainer, evaluate

__all__ = ["EVALUATION_BATCH", "Run", "best_epoch", "read_config"]


class Run:
    """One run: its settings, its folder, and everything made from the settings.

    Made by `Run.new` or `Run.resume`.

    Args:
        settings, folder: see below.
        device, data_dir: where to compute, and where the data are.
        workers: threads that prepare batches; the result does not depend on it.

    Attributes:
        folder: where its files are.
        settings: what decides the result.
        trainer: does the work; `Trainer.stop` interrupts it.
        images: see `Images`.
        training, validation, test: loaders; validation is None if nothing is set aside.
    """

    def __init__(
        self, settings: Settings, folder: Path, device: str = "cpu", data_dir: str | None = None, workers: int = 0
    ) -> None:
        self.settings, self.folder = settings, folder
        self.device, self.data_dir = resolve_device(device), data_dir
        self.images = images = open_images(settings, self.device, data_dir, workers)
        self.training, self.validation, self.test = images.training, images.validation, images.test
        self.trainer = self._trainer()

    def _trainer(self) -> Trainer:
        s, images = self.settings, self.images
        model = s.make_model(images.num_classes, images.channels).to(self.device)
        set_algorithms(model, s.algorithms or {})
        optimizer = s.make_optimizer(model)
        updates = -(-len(self.training) // s.accumulate)  # the last of an epoch may be of fewer batches
        # labels: Dataset has looked at them; without auxiliary heads it is cross-entropy itself
        loss_fn = AuxiliaryLoss(CrossEntropyLoss(label_smoothing=s.label_smoothing, check_labels=False))
        return Trainer(
            model,
            optimizer,
            loss_fn,
            schedule=s.make_schedule(optimizer, updates),
            val_loss_fn=CrossEntropyLoss(check_labels=False),  # of labels as they are, as at the end
            clip_norm=s.clip_norm,
            accumulate=s.accumulate,
            ema=None if s.ema is None else EMA(model, s.ema, use_buffers=True, warmup=True),
            callbacks=self._callbacks(),
            precision=None if s.dtype == "float64" else s.precision,
            after_epoch=[self._keep],
        )

    def _callbacks(self) -> list[Callback]:
        s, found = self.settings, list[Callback]()
        if s.patience is not None:  # the best weights are in a file
            found.append(EarlyStopping(s.patience, restore_best=False))
        if s.record:
            found.append(recorder_of(self))
        if s.save_every:
            found.append(SaveEvery(self._save_within, batches=s.save_every))
        return found

    def tune(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Give every convolution the algorithm that is the fastest here and now, and the settings the answer."""
        x, _ = next(iter(self.training.epoch(0)))
        chosen = self.trainer.captured.tune(x.shape, progress)
        self.settings = dataclasses.replace(self.settings, algorithms=chosen)

    # ---- beginning -----------------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        settings: Settings,
        folder: Path,
        device: str = "cpu",
        data_dir: str | None = None,
        prepare: Callable[[Run], None] | None = None,
        workers: int = 0,
    ) -> Run:
        """Make everything from the settings, and then the folder.

        Args:
            settings: what decides the result.
            folder: a new or an empty one.
            device, data_dir: where to compute, and where the data are.
            prepare: called with the run before its settings are written down: `tune`, for example.
            workers: threads that prepare batches.

        Raises:
            ValueError: settings, data or device cannot be used.
            FileExistsError: the folder has something in it.
            OSError: the folder cannot be made or written to.
        """
        must_be_empty(folder)
        run = cls(settings, folder, device, data_dir, workers)
        if prepare is not None:
            prepare(run)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            must_be_empty(folder)  # now for sure: another run cannot begin here until this one has its files
            try:
                write_json(folder / CONFIG, run.config())
                run.save_state()
            except OSError:
                (folder / CONFIG).unlink(missing_ok=True)
                if made:
                    folder.rmdir()
                raise
        return run

    @classmethod
    def resume(
        cls, folder: Path, device: str | None, data_dir: str | None, epochs: int | None = None, workers: int = 0
    ) -> Run:
        """Go on with a run where its state was last saved.

        Args:
            folder: of the run.
            device, data_dir: where they are now, if not where they were.
            epochs: more of them, if the learning rate does not depend on their number.
            workers: threads that prepare batches.

        Raises:
            CheckpointError: no run, its files are damaged, or it began with other settings or another dataset.
            ValueError: epochs that do not fit; data or device cannot be used.
            OSError: the folder cannot be written to.
        """
        config = read_config(folder)
        settings = _with_epochs(_settings_in(folder, config), epochs)
        run = cls(settings, folder, device or config.get("device", "cpu"), data_dir or config.get("data_dir"), workers)
        with locked(folder):
            run._go_back(epochs, config)
        return run

    def _go_back(self, epochs: int | None, config: dict[str, Any]) -> None:
        """Bring the run, and its files, to the state saved last."""
        folder, settings = self.folder, self.settings
        if any((folder / name).exists() for name in (STATE, METRICS)):
            self.load_state()
        else:
            self.save_state()  # killed while the folder was made: nothing is lost by beginning
        if epochs is not None and settings.epochs != config["settings"]["epochs"]:
            if (why := self.trainer.ended) is not None:
                raise ValueError(f"epochs cannot be added: this run ended for good, {why}: start a new one")
            (folder / RESULT).unlink(missing_ok=True)
            write_json(folder / CONFIG, config | {"settings": settings.to_dict(), **recipes.describe(settings)})
        write_json_lines(folder / METRICS, self.trainer.history)

    def config(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return {
            "settings": self.settings.to_dict(),
            **recipes.describe(self.settings),
            "device": self.device,
            "data_dir": self.data_dir and os.path.abspath(self.data_dir),
            "threads": parallel.get_num_threads(),
            "command": sys.argv,
            "versions": {"tinycnn": __version__, "numpy": np.__version__, "python": platform.python_version()},
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "gpu": None if self.device == CPU else " ".join(gpu_name()),
        }

    # ---- middle --------------------------------------------------------------------------------------------

    def fit(self) -> bool:
        """Train to the end, or until the trainer is stopped, and save.  Returns whether the training is done.

        Raises:
            NonFiniteError: the loss became infinite or not a number.
            OSError: a file cannot be written, or another process trains in this folder.
        """
        with locked(self.folder):
            finished = self.trainer.fit(self.training, self.settings.epochs, self.validation)
            if not finished:
                self.save_state()
        return finished

    def _keep(self, trainer: Trainer, row: Row) -> None:
        """After an epoch: the weights, the line, and last of all the state, which commits them."""
        for name in ("best", "last"):
            if name == "last" or self.best_epoch() == trainer.epoch:
                self.save_weights(self.folder / f"{name}.safetensors", row)
        write_json_lines(self.folder / METRICS, trainer.history)
        self.save_state()

    def _save_within(self, trainer: Trainer) -> None:
        """Within an epoch: the state; at the end of one it is saved with everything else."""
        if trainer.batch < len(self.training):
            self.save_state()

    def save_weights(self, path: Path, row: Row) -> None:
        """Write the present weights, or their averages, as a checkpoint that can be used by itself."""
        metrics = {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        with self.trainer.averaged():
            self._write_weights(self.trainer.model, path, metrics)

    def _write_weights(self, model: Layer, path: Path, metrics: dict[str, Any], **more: Any) -> None:
        how = self.images.preprocessing
        checkpoint.save(model, path, self.images.learnt, preprocessing=how, metrics=metrics, **more)

    def save_state(self) -> None:
        """Write all it takes to go on from here, in one step."""
        write_state(self.folder, self.trainer.state_dict(), settings=self.settings.to_dict(), data=self.images.identity)

    def load_state(self) -> None:
        """Go back, or on, to the state saved last.

        Raises:
            CheckpointError: there is none, it is damaged, or of other settings or data than this run's.
        """
        saved, state = read_state(self.folder)
        self._check_settings(saved.path, saved.metadata["settings"])
        if "data" in saved.metadata and (words := difference(saved.metadata["data"], self.images.identity)):
            raise CheckpointError(
                f"{self.folder}: {self.settings.data} is not what this run began with: {words}: restore the data, or "
                "start a new run"
            )
        try:
            self.trainer.load_state_dict(state)
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{saved.path}: does not fit this run: {error}") from None

    def _check_settings(self, path: Path, saved: dict[str, Any]) -> None:
        ours, theirs = self.settings.to_dict(), _as_now(saved)
        for name in ours:
            if name not in ("epochs", "save_every", "record") and ours[name] != theirs.get(name):
                raise CheckpointError(
                    f"{path}: its {name} was {theirs.get(name)!r}, config.json says {ours[name]!r}: "
                    "these files are not of one run"
                )

    def best_epoch(self) -> int:
        """Return the number of the epoch whose weights are the best so far; see `best_epoch`."""
        return best_epoch(self.trainer.history, 0 if self.validation is None else self.validation.num_examples)

    # ---- end -----------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Measure the best weights on the test images, once, and write down the result; or return the one there is.

        Raises:
            CheckpointError: best.safetensors is missing, damaged, or not of this run.
        """
        if (result := read_result(self.folder)) is not None:
            return {**result, "run": str(self.folder)}
        history, best = self.trainer.history, self.best_epoch()
        model, chosen = self._best_model(best), history[best - 1].get("val_accuracy")
        if self.settings.recompute_statistics:
            chosen = self._recompute(model, history[best - 1])
        means = evaluate(model, self.test)
        result = {
            "test_accuracy": means["accuracy"],
            "test_loss": means["loss"],
            "val_accuracy": chosen,
            "best_epoch": best,
            "epochs": len(history),
            "ended": self.trainer.ended,
            "seconds": round(sum(row["seconds"] for row in history), 3),
            "parameters": model.num_parameters(),
            "run": str(self.folder),
            **{name: value for name, value in self.settings.to_dict().items() if name != "epochs"},
            **recipes.describe(self.settings),
            "device": self.device,
            "threads": parallel.get_num_threads(),
            "tinycnn": __version__,
        }
        write_json(self.folder / RESULT, result)
        return result

    def _recompute(self, model: Layer, row: Row) -> float | None:
        """Give the best weights exact statistics, write them down, and return what they reach on the part set aside."""
        recompute_statistics(model, self.training)
        model.eval()
        means = {} if self.validation is None else evaluate(model, self.validation)
        metrics = {"epoch": row["epoch"], **{f"val_{name}": value for name, value in means.items()}}
        self._write_weights(model, self.folder / "best.safetensors", metrics, recomputed_statistics=True)
        return means.get("accuracy")

    def _best_model(self, epoch: int) -> Layer:
        saved = checkpoint.read(self.folder / "best.safetensors", WEIGHTS)
        known = saved.metadata.get("architecture"), saved.metadata.get("metrics", {}).get("epoch")
        if known != (self.trainer.model.architecture, epoch):
            raise CheckpointError(
                f"{saved.path}: not the weights of this run's epoch {epoch}: restore it, or train anew"
            )
        return checkpoint.build(saved).to(self.device)

    def draw(self) -> bool:
        """Draw the curves; returns whether that was possible."""
        return curves.draw(self.trainer.history, self.folder / "curves.png", self.best_epoch())


def best_epoch(history: list[Row], images: int = 0) -> int:
    """Return the number of the epoch whose weights to keep: the last one that is as good as any.

    On n held-out images one epoch makes a mistakes and another b.  Were both equally good, a − b would still
    scatter by about √(a + b) (the two are Poisson counts), so a lead within that is luck; a later epoch has
    learnt longer, at a lower learning rate.  The last epoch therefore counts, unless it makes more mistakes than
    the best one by more than that.

    Args:
        history: of the run.
        images: n; without validation the last epoch counts.

    Returns:
        1 for the first; 0 if there was no epoch.
    """
    if not images:
        return len(history)
    mistakes = [round((1 - row["val_accuracy"]) * images) for row in history]
    least = min(mistakes, default=0)
    return max((i for i, m in enumerate(mistakes, start=1) if m - least <= math.sqrt(m + least)), default=0)


def _settings_in(folder: Path, config: dict[str, Any]) -> Settings:
    try:
        return Settings.from_dict(config["settings"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{folder / CONFIG}: not what tinycnn {__version__} wrote ({error}): restore it, or start a new run"
        ) from None


def _as_now(saved: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the defaults of what an older version did not know."""
    try:
        return Settings.from_dict(saved).to_dict()
    except (TypeError, ValueError):
        return saved


def _with_epochs(settings: Settings, epochs: int | None) -> Settings:
    if epochs is None or epochs == settings.epochs:
        return settings
    if epochs < settings.epochs:
        raise ValueError(f"epochs must be at least the run's {settings.epochs}, got {epochs}")
    if settings.schedule != "none" or settings.schedule_options:
        raise ValueError(
            f"the learning rate of this run ({settings.schedule}) is made for {settings.epochs} epochs: only a run "
            "with --schedule none can have more; start a new one"
        )
    return dataclasses.replace(settings, epochs=epochs)
