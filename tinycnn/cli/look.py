"""How ``tinycnn eval`` looks at images: which of them, and in how many views; and what it says of that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..messages import nearest
from .errors import FAILED, OUT_OF_MEMORY, CommandError, bad_input
from .trained import SPLITS, Trained, loader_for

VIEWS = ("single", "mirrored", "ten-crop", "multi-scale")
SCALES = {"ten-crop": (8 / 7,), "multi-scale": (7 / 8, 1, 9 / 8)}
"""By default, in multiples of the network's input: 256 pixels for 224, and the three that VGG was tested with."""
OF_ALL = ("interval", "top5", "brier", "calibration_error")
"""What a line of JSON holds of `Predictions.to_dict`, besides loss and accuracy."""


@dataclass(frozen=True)
class Measured:
    """What a network made of a dataset.

    Attributes:
        trained: the network.
        data, split: of the images.
        scales: sizes they were brought to; empty if only to the network's.
        found: its `Predictions`.
        loss: mean cross-entropy.
    """

    trained: Trained
    data: str
    split: str
    scales: tuple[int, ...]
    found: Any
    loss: float

    def to_dict(self) -> dict[str, Any]:
        """Return what is known of one network, as JSON can say it."""
        return {
            **summary(self.found, self.loss),
            "checkpoint": str(self.trained.path),
            "model": self.trained.architecture["name"],
            "scales": list(self.scales),
        }


@dataclass(frozen=True)
class Look:
    """Which images, in which views.

    Attributes:
        views: one of `VIEWS`.
        scales: sizes that images are brought to before; those of `SCALES` if empty.
        split: one of `SPLITS`.

    Raises:
        ValueError: they are not.
    """

    views: str = "single"
    scales: tuple[int, ...] = ()
    split: str = "test"

    def __post_init__(self) -> None:
        for what, name, known in (("--views", self.views, VIEWS), ("--split", self.split, SPLITS)):
            if name not in known:
                raise ValueError(f"{what}: unknown {name!r}{nearest(name, known)} (known: {', '.join(known)})")

    @property
    def plain(self) -> bool:
        """Whether images are shown once and as they are."""
        return self.views == "single" and not self.scales

    def at_validation(self) -> Look:
        """Return the same look at what was set aside."""
        return dataclasses.replace(self, split="validation")

    def scales_for(self, trained: Trained) -> tuple[int, ...]:
        """Return the sizes that images are brought to for a network."""
        return self.scales or tuple(round(trained.input_size[0] * scale) for scale in SCALES.get(self.views, ()))

    def views_for(self, trained: Trained) -> Any:
        """Return what shows a network its images (`tinycnn.evaluation.Views`).

        Raises:
            ValueError: its images are not square.
        """
        from ..evaluation import Mirrored, MultiScale, SingleView, TenCrop, Views

        H, W = trained.input_size
        if H != W:
            raise ValueError(f"{trained.path}: takes images of {H}×{W}: views other than single are for square ones")
        crops: dict[str, Views] = {"single": SingleView(H), "mirrored": Mirrored(H), "ten-crop": TenCrop(H)}
        views, scales = crops.get(self.views, Mirrored()), self.scales_for(trained)
        return MultiScale(scales, views) if scales else views

    def measure(self, trained: Trained, data: str | None, data_dir: Path | None) -> Measured:
        """Return what a network makes of a dataset, by default the one that it was trained on.

        Raises:
            CommandError: no such data, or they do not fit the network or the views; numbers that are not finite; memory
                that does not suffice.
        """
        from ..train import NonFiniteError

        scales = self.scales_for(trained)
        with bad_input():
            loader, dataset = loader_for(trained, data, data_dir, self.split, scales)
        try:
            with bad_input():
                found, loss = self._ask(trained, loader, dataset.classes)
        except NonFiniteError as error:
            raise CommandError(str(error), FAILED) from error
        return Measured(trained, dataset.name, self.split, scales, found, loss)

    def _ask(self, trained: Trained, loader: Any, classes: tuple[str, ...]) -> tuple[Any, float]:
        """Return predictions and loss; in a single view the loss that training reports, to the last digit."""
        from .. import evaluation, train
        from ..losses import CrossEntropyLoss

        try:
            if self.plain:
                noted = evaluation.Noted()
                means = train.evaluate(trained.model, loader, noted.beside(CrossEntropyLoss()))
                return noted.predictions(classes), means["loss"]
            if trouble := train.diagnose(trained.model):
                raise train.NonFiniteError("scores are not numbers", trouble)
            found = evaluation.predict(trained.model, loader, self.views_for(trained), classes)
            return found, found.loss
        except MemoryError as error:
            raise CommandError(OUT_OF_MEMORY, FAILED) from error

    def words(self, measured: Measured) -> str:
        """Return which images were looked at, and how."""
        sizes = f" of {', '.join(map(str, measured.scales))} pixels" if measured.scales else ""
        return f"{measured.data} {self.split}" + ("" if self.plain else f", {self.views}{sizes}")


# ---- results ---------------------------------------------------------------------------------------------------


def summary(found: Any, loss: float) -> dict[str, Any]:
    """Return the figures of some predictions."""
    everything = found.to_dict()
    figures = {"images": len(found), "loss": loss if math.isfinite(loss) else None, "accuracy": found.accuracy}
    return figures | {name: everything[name] for name in OF_ALL}


def words_for(found: Any, loss: float) -> str:
    """Return accuracy and loss in words."""
    right = int(found.correct.sum())
    return f"accuracy {100 * found.accuracy:.2f} % ({right:,} of {len(found):,}), loss {loss:.4f}"


def more_words_for(found: Any) -> str:
    """Return what else there is to say in a line."""
    figures = found.to_dict()
    low, high = (100 * end for end in figures["interval"])
    top = "" if figures["top5"] is None else f"; top-5 {100 * figures['top5']:.2f} %"
    return f"95 % interval {low:.2f} … {high:.2f} %{top}; calibration error {100 * figures['calibration_error']:.2f} %"


def class_table(found: Any) -> str:
    """Return a line for each class: images, precision, recall and F1."""
    rows = found.per_class()
    width = max(5, *(len(row["class"]) for row in rows))
    lines = [f"{'class':{width}}  {'images':>7}  {'precision':>9}  {'recall':>7}  {'F1':>7}"]
    for row in rows:
        scores = ("-" if row[name] is None else f"{100 * row[name]:.2f}" for name in ("precision", "recall", "f1"))
        precision, recall, f1 = scores
        lines.append(f"{row['class']:{width}}  {row['images']:>7,}  {precision:>9}  {recall:>7}  {f1:>7}")
    return "\n".join(lines)


def sizes(text: str | None) -> tuple[int, ...]:
    """Return the numbers of ``--scales``.

    >>> sizes("256, 288")
    (256, 288)

    Raises:
        ValueError: they are not whole numbers from 1 on.
    """
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--scales must be whole numbers of pixels from 1 on, such as 256,288: got {text!r}")
    return tuple(map(int, parts))


def one_dataset(members: Sequence[Trained], data: str | None) -> str:
    """Return the dataset that all of these networks are measured on.

    Raises:
        ValueError: they were trained on several.
    """
    names = [data or one.how["data"] for one in members]
    for one, name in zip(members, names, strict=True):
        if name != names[0]:
            raise ValueError(
                f"{members[0].path} was trained on {names[0]}, {one.path} on {name}: name one dataset with --data"
            )
    return names[0]
