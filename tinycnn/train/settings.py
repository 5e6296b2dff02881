"""What decides the result of a training run, with the defaults of ``tinycnn train``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import data, models, optim
from ..layers.base import Layer
from ..messages import nearest

EPOCHS = {"digits": 30, "mnist": 12, "fashion-mnist": 20, "cifar10": 30}
"""Epochs, where they are not given."""
SHIFT = {"digits": 2, "mnist": 2, "fashion-mnist": 0, "cifar10": 4}
"""Random shifts, where they are not given."""
LEARNING_RATES = {"sgd": 0.05, "momentum": 0.05, "nesterov": 0.05, "adam": 0.005, "adamw": 0.005}
"""Learning rates, where they are not given; other optimizers have their own default."""
WEIGHT_DECAYS = {"adamw": 0.1}
"""Weight decay, where it is not given; it is what keeps a small network from learning few images by heart."""
OPTIMIZER = "adamw"
PRECISIONS = ("float32", "float64", "tf32", "bf16", "fp16")


@dataclass(frozen=True)
class Settings:
    """The settings of a run: two runs with equal ones are equal to the last bit, on one machine and version.

    `Settings.choose` fills in defaults that depend on each other.

    Attributes:
        model, data: names of the architecture and the dataset.
        epochs: passes through the training images.
        batch_size: images per step.
        optimizer, lr, momentum, weight_decay: of the update; momentum is None where the optimizer has none.
        schedule: name of the learning-rate schedule, over all steps.
        shift: move every training image by up to so many pixels (of the network's input) at random.
        val_fraction: part of the training images set aside to choose the best epoch by; 0 takes the last epoch.
        seed: of the initial weights, the order of the images, their shifts, dropout and the validation part.
        precision: ``"float32"`` or ``"float64"``; on a GPU also ``"tf32"``, ``"bf16"`` or ``"fp16"`` (`CapturedStep`).
        algorithms: of the convolutions, by path, as `tinycnn.tune` found them; None leaves each to its rule.

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

    def __post_init__(self) -> None:
        models.architecture(self.model)
        _known("dataset", self.data, data.names())
        _known("schedule", self.schedule, optim.schedule_names())
        if self.momentum is not None and "momentum" not in optim.hyperparameters(self.optimizer):
            raise ValueError(f"optimizer {self.optimizer!r} takes no momentum: leave it out, or choose sgd")
        for name in ("epochs", "batch_size", "shift", "seed"):
            if type(getattr(self, name)) is not int:
                raise ValueError(f"{name} must be an integer, got {getattr(self, name)!r}")
        if self.algorithms is not None and not _is_plan(self.algorithms):
            raise ValueError(f"algorithms must map paths of convolutions to names, got {self.algorithms!r}")
        size = min(models.architecture(self.model).input_shape[1:])
        for ok, name, must in (
            (self.epochs >= 1, "epochs", "be at least 1"),
            (self.batch_size >= 1, "batch_size", "be at least 1"),
            (math.isfinite(self.lr) and self.lr > 0, "lr", "be a number greater than 0"),
            (0 <= self.shift < size // 2, "shift", f"be at least 0 and less than {size // 2}, half of the input"),
            (0 <= self.val_fraction < 1, "val_fraction", "be at least 0 and less than 1"),
            (0 <= self.seed < 1 << 64, "seed", "lie in 0..2⁶⁴ − 1"),
            (self.precision in PRECISIONS, "precision", f"be one of {', '.join(PRECISIONS)}"),
        ):
            if not ok:
                raise ValueError(f"{name} must {must}, got {getattr(self, name)!r}")

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
            "shift": SHIFT.get(dataset, 0),
            "val_fraction": 0.1,
            "seed": 0,
            "precision": "float32",
            "algorithms": None,
        }
        return cls(**{**defaults, **given})

    @property
    def dtype(self) -> str:
        """Of the parameters: float64 in that precision, and float32 in every other."""
        return "float64" if self.precision == "float64" else "float32"

    def make_optimizer(self, model: Layer) -> optim.Optimizer:
        """Return the optimizer, over everything that the model trains."""
        options = {"lr": self.lr, "weight_decay": self.weight_decay, "momentum": self.momentum}
        given = {name: value for name, value in options.items() if value is not None}
        return optim.create(self.optimizer, model.parameters(), **given)

    def make_schedule(self, optimizer: optim.Optimizer, batches: int) -> optim.Schedule | None:
        """Return the schedule over all epochs of so many ``batches``; None where the learning rate is constant."""
        if self.schedule == "none":
            return None
        steps = self.epochs if self.schedule == "plateau" else self.epochs * batches
        return optim.create_schedule(self.schedule, optimizer, steps)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Settings:
        """Undo `to_dict`.

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
