"""Trainings by name: those of the papers, complete, and short ones for a CPU.

    recipe = recipes.find("he-cifar-resnet20")
    settings = recipe.settings()                             # as published
    settings = recipe.settings(fraction=0.2, epochs=10)      # the same in short: the schedule shrinks in proportion
    recipes.title(settings)                                  # and says so

A recipe is a set of `Settings` and what is known of it: where it comes from, what it reached there, what it costs.
Any setting can be given another value; what differs then from the recipe, `deviations`, is named wherever the run is,
and the published result is no longer shown beside its own.

Sources are in `recipe_table`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import models
from ..messages import nearest
from . import augment as changes
from .settings import OPTIONS, Settings

TRAINING_IMAGES = {
    **dict.fromkeys(("cifar10", "cifar100"), 50_000),
    **dict.fromkeys(("mnist", "fashion-mnist"), 60_000),
    "digits": 1_438,
}
"""How many a dataset has."""
NOT_DEVIATING = ("recipe", "seed", "algorithms", "save_every", "record")
"""Settings that a recipe leaves open."""
DEPENDENT = {
    "optimizer": ("lr", "momentum", "weight_decay", "optimizer_options"),
    "schedule": ("schedule_options",),
    "model": ("model_options",),
    "data": ("data_options",),
}
"""Settings that make sense only together with another: where that is replaced, they are not the recipe's any more."""


@dataclass(frozen=True)
class Published:
    """What a paper reports.

    Attributes:
        error: test error, in per cent.
        what: one run, the median of several, …
        where: table or section.
        about: whether the number was read off a curve.
    """

    error: float
    what: str
    where: str
    about: bool = False

    def __str__(self) -> str:
        return f"{self.percent} test error ({self.what}; {self.where})"

    @property
    def percent(self) -> str:
        """The error in words."""
        return f"about {self.error:g} %" if self.about else f"{self.error:.2f} %"

    @property
    def accuracy(self) -> str:
        """The test accuracy in words."""
        return f"about {100 - self.error:g} %" if self.about else f"{100 - self.error:.2f} %"


@dataclass(frozen=True)
class Measured:
    """What a recipe reached with this program.

    Attributes:
        error: test error, in per cent.
        minutes: of training.
        machine: on which.
    """

    error: float
    minutes: float
    machine: str

    def __str__(self) -> str:
        return f"{self.error:.2f} % test error after {self.minutes:g} minutes on {self.machine}"


@dataclass(frozen=True)
class Recipe:
    """A training by name.

    Attributes:
        name: what it is called.
        values: the settings that it fixes; the others have their defaults.
        source: the paper.
        published: what that reports, by dataset.
        notes: what else one should know.
        measured: what it reached here.
    """

    name: str
    values: Mapping[str, Any]
    source: str
    published: Mapping[str, Published] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    measured: Measured | None = None

    def settings(self, **given: Any) -> Settings:
        """Return the settings, with some given anew.

        Raises:
            ValueError: as `Settings`.
        """
        dropped = {
            name
            for key, names in DEPENDENT.items()
            if given.get(key, self.values.get(key)) != self.values.get(key)
            for name in names
        }
        if "shift" not in given and changes.moves(changes.words(given.get("augment", ""))):
            dropped.add("shift")  # or images would be moved twice
        dropped -= {"data_options"} if not self.values.get("data_options") else set()
        kept = {name: value for name, value in self.values.items() if name not in dropped}
        for name in OPTIONS:  # one option given anew leaves the others
            if name in given:
                given = {**given, name: {**kept.get(name, {}), **given[name]}}
        return Settings.choose(**{**kept, **given, "recipe": self.name})

    @property
    def flop(self) -> float:
        """What the whole training costs: see `cost`."""
        return cost(self.settings())


def cost(settings: Settings) -> float:
    """Return the FLOP of a training: 6 for every multiply-add of a forward (2 for it, 4 for backward).

    The multiply-adds are the architecture's, for images of the size and with the classes it was designed for.  What is
    cheap beside them is not counted: normalisation, activations, validation.
    """
    images = TRAINING_IMAGES.get(settings.data, 0) * settings.fraction * (1 - settings.val_fraction)
    return 6 * models.architecture(settings.model).macs * images * settings.epochs


# ---- by name -------------------------------------------------------------------------------------------------


def table() -> dict[str, Recipe]:
    """Return all recipes, by name."""
    from .recipe_table import RECIPES

    return RECIPES


def find(name: str) -> Recipe:
    """Return a recipe.

    Raises:
        ValueError: the name is unknown; the message suggests the nearest.
    """
    if name not in table():
        raise ValueError(f"unknown recipe {name!r}{nearest(name, table())} (tinycnn recipes lists all)")
    return table()[name]


def of(settings: Settings) -> Recipe | None:
    """Return the recipe of some settings; None if there is none, or none of this name any more."""
    return table().get(settings.recipe or "")


# ---- how far a run is from it ----------------------------------------------------------------------------------


def deviations(settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Return every setting that is not its recipe's: name -> (recipe's, this).

    Another dataset is none if the paper has a result for it.
    """
    recipe = of(settings)
    if recipe is None:
        return {}
    same = {"data": settings.data} if settings.data in recipe.published else {}
    ours, theirs = settings.to_dict(), recipe.settings(**same).to_dict()
    return {
        name: (theirs[name], ours[name]) for name in ours if name not in NOT_DEVIATING and ours[name] != theirs[name]
    }


def published(settings: Settings) -> Published | None:
    """Return what the paper reports for exactly these settings; None for any others."""
    recipe = of(settings)
    return None if recipe is None or deviations(settings) else recipe.published.get(settings.data)


def is_shortened(settings: Settings) -> bool:
    """Whether fewer images or epochs are taken than the recipe has."""
    changed = deviations(settings)
    return any(ours < theirs for name, (theirs, ours) in changed.items() if name in ("fraction", "epochs"))


def title(settings: Settings) -> str:
    """Return the recipe's name and how the settings differ; nothing without a recipe.

    >>> title(find("he-cifar-resnet20").settings(fraction=0.2, epochs=10))
    'he-cifar-resnet20, shortened: 20 % of the images, 10 of 164 epochs'
    """
    if settings.recipe is None or of(settings) is None:
        return settings.recipe or ""
    changed = deviations(settings)
    words = [f"{100 * ours:g} % of the images" for _, ours in _take(changed, "fraction")]
    words += [f"{ours} of {theirs} epochs" if ours < theirs else f"{ours} epochs instead of {theirs}"
              for theirs, ours in _take(changed, "epochs")]  # fmt: skip
    others = [f"{name} {word(ours)} instead of {word(theirs)}" for name, (theirs, ours) in changed.items()]
    how = "shortened" if is_shortened(settings) else "changed"
    return settings.recipe + (f", {how}: {', '.join(words + others)}" if words or others else "")


def folder_name(settings: Settings) -> str:
    """Return what a run's folder is called, but for the time."""
    if settings.recipe is None:
        return f"{settings.model}-{settings.data}"
    how = "-shortened" if is_shortened(settings) else "-changed" if deviations(settings) else ""
    recipe = of(settings)
    other = f"-{settings.data}" if recipe is not None and settings.data != recipe.settings().data else ""
    return f"{settings.recipe}{how}{other}"


def _take(changed: dict[str, tuple[Any, Any]], name: str) -> list[tuple[Any, Any]]:
    return [changed.pop(name)] if name in changed else []


def word(value: Any) -> str:
    """Return a setting in words."""
    if isinstance(value, dict):
        return f"({', '.join(f'{name}={word(v)}' for name, v in value.items())})" if value else "none"
    if isinstance(value, list | tuple):
        if all(isinstance(v, str) for v in value):
            return " + ".join(value) or "none"
        return f"[{', '.join(map(word, value))}]"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def describe(settings: Settings) -> dict[str, Any]:
    """Return what a run's files say of its recipe, beside its settings; nothing without one."""
    if settings.recipe is None:
        return {}
    differ = {name: {"recipe": theirs, "run": ours} for name, (theirs, ours) in deviations(settings).items()}
    reported = published(settings)
    return {"title": title(settings), "deviations": differ} | (
        {"published": dataclasses.asdict(reported)} if reported else {}
    )
