"""What decides the result of a training run, with the defaults of ``tinycnn train``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import data, models, optim
from ..layers.base import Layer
from ..layers.batchnorm import BatchNorm2d
from ..messages import counted, nearest
from ..parameter import Parameter
from . import augment as changes
from . import normalization
from .augment import Place

EPOCHS = {"digits": 30, "mnist": 12, "fashion-mnist": 20, "cifar10": 30, "cifar100": 30}
"""Epochs, where they are not given."""
SHIFT = {"digits": 2, "mnist": 2, "fashion-mnist": 0, "cifar10": 4, "cifar100": 4}
"""Random shifts, where they are not given."""
LEARNING_RATES = {"sgd": 0.05, "momentum": 0.05, "nesterov": 0.05, "adam": 0.005, "adamw": 0.005}
"""Learning rates, where they are not given; other optimizers have their own default."""
WEIGHT_DECAYS = {"adamw": 0.1}
"""Weight decay, where it is not given; it is what keeps a small network from learning few images by heart."""
OPTIMIZER = "adamw"
PRECISIONS = ("float32", "float64", "tf32", "bf16", "fp16")
NUMBER = int | float
OPTIONS = ("optimizer_options", "schedule_options", "model_options", "data_options")


@dataclass(frozen=True)
class Settings:
    """The settings of a run: two runs with equal ones are equal to the last bit, on one machine and version.

    `Settings.choose` fills in defaults that depend on each other.

    Attributes:
        model, data: names of the architecture and the dataset.
        epochs: passes through the training images.
        batch_size: images per step.
        optimizer, lr, momentum, weight_decay: of the update; momentum is None where the optimizer has none.  Weight
            decay is for all parameters, biases and BatchNorm's included, as in the papers.
        schedule: name of the learning-rate schedule, over all steps.
        shift: move every training image by up to so many pixels (of the network's input) at random.
        val_fraction: part of the training images set aside to choose the best epoch by; 0 takes the last epoch.
        seed: of the initial weights, the order of the images, their shifts, dropout and the validation part.
        precision: ``"float32"`` or ``"float64"``; on a GPU also ``"tf32"``, ``"bf16"`` or ``"fp16"`` (`CapturedStep`).
        algorithms: of the convolutions, by path, as `tinycnn.tune` found them; None leaves each to its rule.
        recipe: whose settings these are, or were before some were changed (`tinycnn.train.recipes`).
        fraction: part of the training images that are used, every class in proportion.
        augment: random changes of images, one after the other, after the shift: `tinycnn.train.augment`.
        mix: ``mixup``, ``cutmix``, or several of which one is drawn for every batch.
        normalize: how pixels become inputs: `tinycnn.train.normalization`.
        label_smoothing: ε: targets are 1 − ε + ε/K for the label and ε/K for the others.
        clip_norm: largest norm of a step's gradients; None for any.
        accumulate: batches whose gradients make one step.
        ema: decay of an average of the weights, with which the network is measured and kept; None for none.
        patience: epochs without a better validation loss after which training ends early; None for never.
        recompute_statistics: take BatchNorm's means and variances from a pass over the training images at the end.
        save_every: save the state every so many batches too, not only after epochs; 0 for no.
        record: steps at which what there is to see is written down for ``tinycnn explain`` (`recorder`); 0 for none.
        optimizer_options: further hyper-parameters (``nesterov``, ``alpha``, ``eps`` …).
        schedule_options: arguments of the schedule, times as parts of the training (0.5) or epochs (60), and of its
            warm-up: see `make_schedule`.
        model_options: arguments of the architecture (``dropout`` …).
        data_options: arguments of the dataset (``labels="coarse"`` of cifar100).

    Raises:
        ValueError: an unknown name (with the nearest known), or a value out of range.
    """

    model: str
    data: str
    epochs: int
    batch_size: int
    optimizer: str
    lr: float
    momentum: float | None
    weight_decay: float
    schedule: str
    shift: int
    val_fraction: float
    seed: int
    precision: str
    algorithms: dict[str, str] | None = None
    recipe: str | None = None
    fraction: float = 1.0
    augment: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()
    normalize: str = "standard"
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    accumulate: int = 1
    ema: float | None = None
    patience: int | None = None
    recompute_statistics: bool = False
    save_every: int = 0
    record: int = 0
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    schedule_options: dict[str, Any] = field(default_factory=dict)
    model_options: dict[str, Any] = field(default_factory=dict)
    data_options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_types()
        models.architecture(self.model)
        _known("dataset", self.data, data.names())
        _known("schedule", self.schedule, optim.schedule_names())
        _known("normalize", self.normalize, list(normalization.NAMES))
        if self.momentum is not None and "momentum" not in optim.hyperparameters(self.optimizer):
            raise ValueError(f"optimizer {self.optimizer!r} takes no momentum: leave it out, or choose sgd")
        if self.algorithms is not None and not _is_plan(self.algorithms):
            raise ValueError(f"algorithms must map paths of convolutions to names, got {self.algorithms!r}")
        self._settle()
        self._check_ranges()
        self._check_combinations()

    def _check_types(self) -> None:
        kinds: dict[str, tuple[Any, str]] = {
            **dict.fromkeys(("model", "data", "optimizer", "schedule", "normalize", "precision"), (str, "a name")),
            **dict.fromkeys(
                ("epochs", "batch_size", "shift", "seed", "accumulate", "save_every", "record"), (int, "an integer")
            ),
            **dict.fromkeys(
                ("lr", "weight_decay", "val_fraction", "fraction", "label_smoothing"), (NUMBER, "a number")
            ),
            **dict.fromkeys(("momentum", "clip_norm", "ema"), (NUMBER | None, "a number")),
            "recipe": (str | None, "a name"),
            "patience": (int | None, "an integer"),
        }
        for name, (kind, what) in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ValueError(f"{name} must be {what}, got {value!r}")

    def _settle(self) -> None:
        """Bring words and options into the form that JSON gives back."""
        for name, known in (("augment", changes.CHANGES), ("mix", changes.MIXTURES)):
            object.__setattr__(self, name, changes.words(getattr(self, name), name, known))
        for name in OPTIONS:
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ValueError(f"{name} must map names to values, got {value!r}")
            try:
                object.__setattr__(self, name, json.loads(json.dumps(value)))
            except (TypeError, ValueError):
                raise ValueError(f"{name} must hold numbers, words and lists of them, got {value!r}") from None

    def _check_ranges(self) -> None:
        size = min(models.architecture(self.model).input_shape[1:])
        for ok, name, must in (
            (self.epochs >= 1, "epochs", "be at least 1"),
            (self.batch_size >= 1, "batch_size", "be at least 1"),
            (math.isfinite(self.lr) and self.lr > 0, "lr", "be a number greater than 0"),
            (0 <= self.shift < size // 2, "shift", f"be at least 0 and less than {size // 2}, half of the input"),
            (0 <= self.val_fraction < 1, "val_fraction", "be at least 0 and less than 1"),
            (0 <= self.seed < 1 << 64, "seed", "lie in 0..2⁶⁴ − 1"),
            (self.precision in PRECISIONS, "precision", f"be one of {', '.join(PRECISIONS)}"),
            (0 < self.fraction <= 1, "fraction", "be greater than 0 and at most 1"),
            (0 <= self.label_smoothing < 1, "label_smoothing", "be at least 0 and less than 1"),
            (self.clip_norm is None or self.clip_norm > 0, "clip_norm", "be greater than 0"),
            (self.accumulate >= 1, "accumulate", "be at least 1"),
            (self.ema is None or 0 < self.ema < 1, "ema", "lie between 0 and 1"),
            (self.patience is None or self.patience >= 1, "patience", "be at least 1"),
            (self.save_every >= 0, "save_every", "be at least 0"),
            (self.record >= 0, "record", "be at least 0"),
            (type(self.recompute_statistics) is bool, "recompute_statistics", "be true or false"),
        ):
            if not ok:
                raise ValueError(f"{name} must {must}, got {getattr(self, name)!r}")

    def _check_combinations(self) -> None:
        changes.build(self.augment, self.shift, self._place(None))
        changes.build_mix(self.mix, 2)
        if self.normalize != "standard" and (wrong := [w for w in self.augment if w.startswith(changes.COLOURS)]):
            raise ValueError(
                f"augment: {wrong[0]} changes pixels between black and white, and those of --normalize "
                f"{self.normalize} are not: leave one of the two out"
            )
        if self.patience is not None and self.val_fraction == 0:
            raise ValueError("patience needs a part set aside to measure on: give a val_fraction greater than 0")
        accepted = [*optim.hyperparameters(self.optimizer)]
        for name in self.optimizer_options:
            if name in ("lr", "momentum", "weight_decay"):
                raise ValueError(f"optimizer_options: {name} is a setting of its own: give --{name.replace('_', '-')}")
            _known(f"option of optimizer {self.optimizer}", name, accepted)
        try:
            self.make_schedule(self._optimizer([Parameter(np.zeros(1))]), 100)
        except TypeError:  # of another type than they are for
            raise ValueError(
                f"schedule_options: {self.schedule} cannot do with {self.schedule_options}: give numbers for numbers"
            ) from None

    @classmethod
    def choose(cls, **given: Any) -> Settings:
        """Return the settings given, and for the others the defaults of ``tinycnn train``.

        >>> settings = Settings.choose(data="mnist", optimizer="sgd")
        >>> settings.model, settings.epochs, settings.lr
        ('lenet5', 12, 0.05)
        """
        dataset, optimizer = given.get("data", "digits"), given.get("optimizer", OPTIMIZER)
        accepted = optim.hyperparameters(optimizer)
        defaults = {
            "model": "lenet5",
            "data": dataset,
            "epochs": EPOCHS.get(dataset, 20),
            "batch_size": 64,
            "optimizer": optimizer,
            "lr": LEARNING_RATES.get(optimizer, accepted["lr"]),
            "momentum": accepted.get("momentum"),
            "weight_decay": WEIGHT_DECAYS.get(optimizer, accepted.get("weight_decay", 0)),
            "schedule": "onecycle",
            "shift": 0 if changes.moves(changes.words(given.get("augment", ()))) else SHIFT.get(dataset, 0),
            "val_fraction": 0.1,
            "seed": 0,
            "precision": "float32",
        }
        return cls(**{**defaults, **given})

    @property
    def dtype(self) -> str:
        """Of the parameters: float64 in that precision, and float32 in every other."""
        return "float64" if self.precision == "float64" else "float32"

    # ---- what is made of them ------------------------------------------------------------------------------

    def make_model(self, num_classes: int, in_channels: int) -> Layer:
        """Return the network, with initial weights, in its `dtype`.

        Raises:
            ValueError: an option that the architecture does not take; statistics of what it does not have.
        """
        options = {**models.architecture(self.model).training, **self.model_options}
        try:
            model = models.create(self.model, num_classes, in_channels, self.seed, **options)
        except TypeError as error:
            raise ValueError(f"model_options: {error}") from None
        if self.recompute_statistics and not any(isinstance(layer, BatchNorm2d) for layer in model.layers()):
            raise ValueError(f"recompute_statistics: {self.model} has no batch normalisation: leave it out")
        model.astype(self.dtype)
        return model

    def make_optimizer(self, model: Layer) -> optim.Optimizer:
        """Return the optimizer, over everything that the model trains."""
        return self._optimizer(model.parameters())

    def _optimizer(self, parameters: Any) -> optim.Optimizer:
        options = {"lr": self.lr, "weight_decay": self.weight_decay, "momentum": self.momentum}
        given = {name: value for name, value in options.items() if value is not None}
        return optim.create(self.optimizer, parameters, **given, **self.optimizer_options)

    def make_schedule(self, optimizer: optim.Optimizer, batches: int) -> optim.Schedule | None:
        """Return the schedule over all epochs of so many ``batches``; None where the learning rate is constant.

        Of ``schedule_options``, ``milestones``, ``step_size`` and ``warmup`` are times: from 1 on they are epochs,
        below 1 a part of the whole training, which stays right when that is shortened.  The others are arguments of
        `tinycnn.optim.create_schedule`.
        """
        options = dict(self.schedule_options)
        self._check_times(options.get("milestones", []), options.get("warmup", 0))
        total = self.epochs if self.schedule == "plateau" else self.epochs * batches
        if "milestones" in options:
            options["milestones"] = [self._steps(time, batches) for time in options["milestones"]]
        if "step_size" in options:
            options["step_size"] = max(1, self._steps(options["step_size"], batches))
        if "warmup" in options:
            options["warmup"] = self._steps(options["warmup"], batches)
        if self.schedule == "none" and not options:
            return None
        return optim.create_schedule(self.schedule, optimizer, total, **options)

    def _check_times(self, milestones: Any, warmup: Any) -> None:
        """Raise ValueError for times that are none, or that the training never comes to."""
        if not isinstance(milestones, list):
            raise ValueError(f"schedule_options: milestones must be a list of times, got {milestones!r}")
        for time in (*milestones, warmup):
            self._steps(time, 1)  # looks at its type
            if time >= self.epochs:
                raise ValueError(
                    f"schedule_options: epoch {time:g} is not before the end of {counted(self.epochs, 'epoch')}: give "
                    "parts of the training (0.5), or more epochs"
                )
        unused = [name for name in ("warmup_factor", "warmup_mode") if name in self.schedule_options]
        if unused and not warmup:
            raise ValueError(f"schedule_options: {unused[0]} is of a warmup, and there is none: give its time, warmup")

    def _steps(self, time: float, batches: int) -> int:
        """Return a time in steps: epochs from 1 on, below that a part of the training."""
        if not isinstance(time, int | float) or isinstance(time, bool) or not 0 <= time < math.inf:
            raise ValueError(f"schedule_options: a time is a number of epochs, or a part of the training, got {time!r}")
        return round(time * batches * (1 if time >= 1 else self.epochs))

    def make_transform(self, images: Any) -> Any:
        """Return what happens to training images at random, or None; some changes are learnt from ``images``."""
        wanted = changes.needs_covariance(self.augment)
        return changes.build(self.augment, self.shift, self._place(changes.covariance(images) if wanted else None))

    def make_mix(self, num_classes: int) -> Any:
        """Return what mixes training images and their labels, or None."""
        return changes.build_mix(self.mix, num_classes)

    def _place(self, covariance: Any) -> Place:
        _, H, W = models.architecture(self.model).input_shape
        return Place((H, W), covariance)

    # ---- as data -------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data, as JSON gives it back."""
        return {**dataclasses.asdict(self), "augment": list(self.augment), "mix": list(self.mix)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Settings:
        """Undo `to_dict`; what older versions did not know has its default.

        Raises:
            TypeError: settings missing, or that this version does not know, or of another type.
            ValueError: values that are not allowed.
        """
        return Settings(**values)


def _is_plan(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(word, str) for item in value.items() for word in item)


def _known(kind: str, name: str, known: list[str]) -> None:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
