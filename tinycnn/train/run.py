"""A training run from settings to result, in a folder that survives whatever moment it is stopped at.

=============================  =====================================================================================
config.json                    all it takes to repeat the run: settings (measured algorithms too), versions, machine
metrics.jsonl                  a line per epoch
last.safetensors               the weights after the last epoch that is finished
best.safetensors               the weights of the best one (`best_epoch`); usable without the rest
training_state.safetensors     all it takes to go on: weights, optimizer, schedule, random streams, place
result.json                    the end of the story: accuracy on the test images
curves.png                     loss and accuracy by epoch, if matplotlib is there
=============================  =====================================================================================

**Whenever it is killed.**  ``training_state`` holds everything, so its rename commits an epoch; the other files
are written before it.  A run killed between them goes back to the state and writes the same bytes again.

**An honest number.**  The best epoch is chosen on a part of the training images set aside.  The test images are
looked at once, at the end, with the weights of that epoch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, data, models, parallel
from ..backend import CPU, gpu_name, resolve_device
from ..data import Dataset, DeviceLoader, Loader, RandomShift
from ..layers import Layer
from ..layers.tune import set_algorithms
from ..losses import AuxiliaryLoss, CrossEntropyLoss
from ..optim import join_state, split_state
from . import checkpoint, curves
from .checkpoint import TRAINING_STATE, WEIGHTS, CheckpointError
from .files import locked, write_json, write_json_lines
from .settings import Settings
from .trainer import Row, Trainer, evaluate

EVALUATION_BATCH = 256
"""Fixed, so that an accuracy measured again is the same number."""


class Run:
    """One run: its settings, its folder, and everything made from the settings.

    Made by `Run.new` or `Run.resume`.

    Attributes:
        folder: where its files are.
        settings: what decides the result.
        trainer: does the work; `Trainer.stop` interrupts it.
        training, validation, test: loaders; validation is None if nothing is set aside.
    """

    def __init__(self, settings: Settings, folder: Path, device: str = "cpu", data_dir: str | None = None) -> None:
        self.settings, self.folder = settings, folder
        self.device, self.data_dir = resolve_device(device), data_dir
        published = data.load(settings.data, "train", data_dir)
        test = data.load(settings.data, "test", data_dir)
        train, held_out = published, None
        if settings.val_fraction > 0:
            train, held_out = data.split_validation(published, settings.val_fraction, settings.seed)
        known = models.architecture(settings.model)
        size = known.input_shape[1:]
        self.preprocessing = preprocessing(published, size)
        self.training = self._loader(data.prepare(train, size), training=True)
        self.validation = None if held_out is None else self._loader(data.prepare(held_out, size))
        self.test = self._loader(data.prepare(test, size))
        classes, channels = published.num_classes, published.shape[0]
        model = models.create(settings.model, classes, channels, settings.seed, **known.training)
        model.astype(settings.dtype).to(self.device)
        set_algorithms(model, settings.algorithms or {})
        optimizer = settings.make_optimizer(model)
        schedule = settings.make_schedule(optimizer, len(self.training))
        # labels: Dataset has looked at them; without auxiliary heads it is cross-entropy itself
        loss_fn = AuxiliaryLoss(CrossEntropyLoss(check_labels=False))
        self.trainer = Trainer(
            model,
            optimizer,
            loss_fn,
            schedule=schedule,
            precision=None if settings.dtype == "float64" else settings.precision,
            after_epoch=[self._keep],
        )

    def _loader(self, dataset: Dataset, training: bool = False) -> Loader:
        s, loader = self.settings, Loader if self.device == CPU else DeviceLoader
        return loader(
            dataset.images,
            dataset.labels,
            s.batch_size if training else EVALUATION_BATCH,
            shuffle=training,
            seed=s.seed,
            transform=RandomShift(s.shift) if training and s.shift else None,
            normalize=dataclasses.replace(dataset.normalize, dtype=s.dtype),
        )

    def tune(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Give every convolution the algorithm that is the fastest here and now, and the settings the answer."""
        x, _ = next(self.training.epoch(0))
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
    ) -> Run:
        """Make everything from the settings, and then the folder.

        Args:
            settings: what decides the result.
            folder: a new or an empty one.
            device, data_dir: where to compute, and where the data are.
            prepare: called with the run before its settings are written down: `tune`, for example.

        Raises:
            ValueError: settings, data or device cannot be used.
            FileExistsError: the folder has something in it.
            OSError: the folder cannot be made or written to.
        """
        _must_be_empty(folder)
        run = cls(settings, folder, device, data_dir)
        if prepare is not None:
            prepare(run)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            _must_be_empty(folder)  # now for sure: another run cannot begin here until this one has its files
            try:
                write_json(folder / "config.json", run.config())
                run.save_state()
            except OSError:
                (folder / "config.json").unlink(missing_ok=True)
                if made:
                    folder.rmdir()
                raise
        return run

    @classmethod
    def resume(cls, folder: Path, device: str | None, data_dir: str | None, epochs: int | None = None) -> Run:
        """Go on with a run where its state was last saved.

        Args:
            folder: of the run.
            device, data_dir: where they are now, if not where they were.
            epochs: more of them, if the learning rate does not depend on their number.

        Raises:
            CheckpointError: no run, or its files are damaged.
            ValueError: epochs that do not fit; data or device cannot be used.
            OSError: the folder cannot be written to.
        """
        config = read_config(folder)
        try:
            settings = Settings.from_dict(config["settings"])
        except (TypeError, KeyError) as error:
            raise CheckpointError(
                f"{folder / 'config.json'}: not what tinycnn {__version__} wrote ({error}): restore it, "
                "or start a new run"
            ) from None
        settings = _with_epochs(settings, epochs)
        run = cls(settings, folder, device or config.get("device", "cpu"), data_dir or config.get("data_dir"))
        with locked(folder):
            run._go_back(epochs, config)
        return run

    def _go_back(self, epochs: int | None, config: dict[str, Any]) -> None:
        """Bring the run, and its files, to the state saved last."""
        folder, settings = self.folder, self.settings
        if any((folder / name).exists() for name in ("training_state.safetensors", "metrics.jsonl")):
            self.load_state()
        else:
            self.save_state()  # killed while the folder was made: nothing is lost by beginning
        if epochs is not None and settings.epochs != config["settings"]["epochs"]:
            (folder / "result.json").unlink(missing_ok=True)
            write_json(folder / "config.json", config | {"settings": settings.to_dict()})
        write_json_lines(folder / "metrics.jsonl", self.trainer.history)

    def config(self) -> dict[str, Any]:
        """Return what config.json holds."""
        return {
            "settings": self.settings.to_dict(),
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
        """Train to the end, or until the trainer is stopped, and save.  Returns whether all epochs are done.

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
        write_json_lines(self.folder / "metrics.jsonl", trainer.history)
        self.save_state()

    def save_weights(self, path: Path, row: Row) -> None:
        """Write the present weights as a checkpoint that can be used by itself."""
        metrics = {key: value for key, value in row.items() if key not in ("seconds", "images_per_second")}
        checkpoint.save(self.trainer.model, path, preprocessing=self.preprocessing, metrics=metrics)

    def save_state(self) -> None:
        """Write all it takes to go on from here, in one step."""
        state = self.trainer.state_dict()
        optimizer, rest = split_state(state.pop("optimizer"))
        arrays = {f"model/{name}": value for name, value in state.pop("model").items()}
        arrays |= {f"optimizer/{name}": value for name, value in optimizer.items()}
        metadata = {"kind": TRAINING_STATE, "settings": self.settings.to_dict(), "optimizer": rest, "trainer": state}
        checkpoint.write(self.folder / "training_state.safetensors", arrays, metadata)

    def load_state(self) -> None:
        """Go back, or on, to the state saved last.

        Raises:
            CheckpointError: there is none, it is damaged, or of other settings than this run's.
        """
        saved = checkpoint.read(self.folder, TRAINING_STATE)
        ours, theirs = self.settings.to_dict(), saved.metadata["settings"]
        for name in ours:
            if name != "epochs" and ours[name] != theirs.get(name):
                raise CheckpointError(
                    f"{saved.path}: its {name} was {theirs.get(name)!r}, config.json says {ours[name]!r}: "
                    "these files are not of one run"
                )
        parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}}
        for name, array in saved.arrays.items():
            part, _, rest = name.partition("/")
            parts[part][rest] = array
        optimizer = join_state(parts["optimizer"], saved.metadata["optimizer"])
        try:
            self.trainer.load_state_dict({**saved.metadata["trainer"], "model": parts["model"], "optimizer": optimizer})
        except (ValueError, KeyError) as error:
            raise CheckpointError(f"{saved.path}: does not fit this run: {error}") from None

    def best_epoch(self) -> int:
        """Return the number of the epoch whose weights are the best so far; see `best_epoch`."""
        return best_epoch(self.trainer.history, 0 if self.validation is None else self.validation.num_examples)

    # ---- end -----------------------------------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Measure the best weights on the test images, once, and write down the result; or return the one there is.

        Raises:
            CheckpointError: best.safetensors is missing, damaged, or not of this run.
        """
        path = self.folder / "result.json"
        if (result := _read_result(path)) is not None:
            return {**result, "run": str(self.folder)}
        history, best = self.trainer.history, self.best_epoch()
        model = self._best_model(best)
        means = evaluate(model, self.test)
        seconds = sum(row["seconds"] for row in history)
        result = {
            "test_accuracy": means["accuracy"],
            "test_loss": means["loss"],
            "val_accuracy": history[best - 1].get("val_accuracy"),
            "best_epoch": best,
            "epochs": len(history),
            "seconds": round(seconds, 3),
            "parameters": model.num_parameters(),
            "run": str(self.folder),
            **self.settings.to_dict(),
            "device": self.device,
            "threads": parallel.get_num_threads(),
            "tinycnn": __version__,
        }
        write_json(path, result)
        return result

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


def preprocessing(dataset: Dataset, size: tuple[int, int]) -> dict[str, Any]:
    """Return how images become inputs, for a checkpoint's metadata: all that ``predict`` and ``eval`` need."""
    return {
        "data": dataset.name,
        "classes": dataset.classes,
        "image_size": dataset.shape[1:],
        "input_size": size,
        "mean": dataset.mean,
        "std": dataset.std,
    }


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a run folder holds.

    Raises:
        CheckpointError: there is no such folder or file, or it is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        what = "has no config.json, so it is not a run folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {what}: name one that tinycnn train made")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}): restore it, or start a new run") from None
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise CheckpointError(f"{path}: has no settings: restore it, or start a new run")
    return config


def _read_result(path: Path) -> dict[str, Any] | None:
    """Return what result.json holds, or None if there is none, or one that cannot be read and is made anew."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def _must_be_empty(folder: Path) -> None:
    """Raise FileExistsError if a folder has something in it; files that a killed run left half-written do not count."""
    if not folder.is_dir() or all(path.match(".*.tmp") for path in folder.iterdir()):
        return
    cure = f"continue with tinycnn train --resume {folder}" if (folder / "config.json").is_file() else "empty it"
    raise FileExistsError(f"{folder}: there is something in this folder already: name another, or {cure}")


def _with_epochs(settings: Settings, epochs: int | None) -> Settings:
    if epochs is None or epochs == settings.epochs:
        return settings
    if epochs < settings.epochs:
        raise ValueError(f"epochs must be at least the run's {settings.epochs}, got {epochs}")
    if settings.schedule != "none":
        raise ValueError(
            f"the learning rate of this run ({settings.schedule}) is made for {settings.epochs} epochs: only a run "
            "with --schedule none can have more; start a new one"
        )
    return dataclasses.replace(settings, epochs=epochs)
