"""The options of ``tinycnn train``, and what they become: settings by name."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ..messages import nearest


def folder(text: str) -> Path:
    """Return the path, unless it is empty, which `Path` would take for the present folder."""
    if not text:
        raise typer.BadParameter("an empty name: name a folder")
    return Path(text)


class Grouped(TyperCommand):
    """A command whose help has its options under headings: each one's ``rich_help_panel``."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading, in the order in which they come up."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                heading = getattr(parameter, "rich_help_panel", None) or SHOWN  # --help itself
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _option(heading: str, *names: str, **rest: Any) -> Any:
    return typer.Option(*names, rich_help_panel=heading, **rest)


WHAT, HOW, IMAGES, REGULAR, RUN, SHOWN = (
    *("What is trained", "How it is trained", "Images", "Against learning by heart"),
    *("The run", "What is shown"),
)

Recipe = Annotated[
    str | None,
    _option(WHAT, help="A training by name (tinycnn recipes lists all); other options then change parts of it."),
]
Model = Annotated[str | None, _option(WHAT, help="Architecture (tinycnn models lists all). [default: lenet5]")]
Data = Annotated[
    str | None,
    _option(WHAT, help="digits, mnist, cifar10, … (tinycnn data list); downloaded if need be. [default: digits]"),
]
DataDir = Annotated[Path | None, _option(WHAT, help="Folder of the data files. [default: $TINYCNN_DATA]")]
Fraction = Annotated[
    float | None, _option(WHAT, help="Part of the training images to use, of every class alike. [default: 1]")
]

Epochs = Annotated[int | None, _option(HOW, help="Passes through the images. [default: by dataset]")]
BatchSize = Annotated[int | None, _option(HOW, help="Images per step. [default: 64]")]
Accumulate = Annotated[int | None, _option(HOW, help="Batches whose gradients make one step. [default: 1]")]
Optimizer = Annotated[str | None, _option(HOW, help="sgd, momentum, adam, adamw, … [default: adamw]")]
Lr = Annotated[float | None, _option(HOW, help="Highest learning rate. [default: by optimizer]")]
Momentum = Annotated[float | None, _option(HOW, help="Of optimizers that have one.")]
Schedule = Annotated[str | None, _option(HOW, help="none, step, cosine, onecycle, plateau, … [default: onecycle]")]
ClipNorm = Annotated[float | None, _option(HOW, help="Largest norm of a step's gradients. [default: any]")]
Precision = Annotated[str | None, _option(HOW, help="float32, float64; on a GPU tf32, bf16, fp16. [default: float32]")]

Shift = Annotated[
    int | None, _option(IMAGES, help="Shift training images by up to so many pixels. [default: by dataset]")
]
Augment = Annotated[
    str | None,
    _option(IMAGES, metavar="CHANGES", help="Random changes, joined by +: flip, crop4, cutout16, 'elastic(34, 4)', …"),
]
Mix = Annotated[str | None, _option(IMAGES, help="Mix images and labels: mixup, 'cutmix(1)', mixup+cutmix.")]
Normalize = Annotated[
    str | None, _option(IMAGES, help="standard (by channel), per-pixel-mean or gcn-zca. [default: standard]")
]
ValFraction = Annotated[float | None, _option(IMAGES, help="Part set aside to choose the best epoch. [default: 0.1]")]

WeightDecay = Annotated[
    float | None, _option(REGULAR, help="L2 penalty, or AdamW's decay; of all parameters. [default: by optimizer]")
]
LabelSmoothing = Annotated[float | None, _option(REGULAR, help="Share of a label given to all classes. [default: 0]")]
Ema = Annotated[float | None, _option(REGULAR, metavar="DECAY", help="Measure and keep an average of the weights.")]
Patience = Annotated[int | None, _option(REGULAR, help="End after so many epochs without a better validation loss.")]
RecomputeStatistics = Annotated[
    bool | None,
    _option(REGULAR, "--recompute-statistics/--no-recompute-statistics", help="Exact BatchNorm statistics at the end."),
]

Seed = Annotated[int | None, _option(RUN, help="Of all random numbers. [default: 0]")]
Set = Annotated[
    list[str] | None,
    _option(
        *(RUN, "--set"),
        metavar="NAME=VALUE",
        help="Any setting; also optimizer.nesterov=true, schedule.milestones=[0.5,0.75], model.dropout=0.3, "
        "data.labels=coarse.",
    ),
]
Tune = Annotated[bool, _option(RUN, "--tune", help="Time the algorithms of each convolution, and take the fastest.")]
Algorithms = Annotated[
    Path | None,
    _option(RUN, parser=folder, metavar="PATH", help="Take what --tune found for the run in this folder."),
]
Device = Annotated[str | None, _option(RUN, help="cpu, cuda or auto. [default: cpu]")]
Threads = Annotated[int | None, _option(RUN, help="CPU threads; results do not depend on it. [default: all cores]")]
Workers = Annotated[int, _option(RUN, min=0, help="Threads that prepare batches ahead; results do not depend on it.")]
Record = Annotated[
    int | None,
    _option(RUN, metavar="STEPS", help="At so many steps, record what tinycnn explain shows; 0: none. [default: 24]"),
]
SaveEvery = Annotated[int | None, _option(RUN, metavar="BATCHES", help="Save the state within epochs too.")]
Out = Annotated[
    Path | None, _option(RUN, parser=folder, metavar="PATH", help="Run folder. [default: runs/MODEL-DATA-TIME]")
]
Resume = Annotated[Path | None, _option(RUN, parser=folder, metavar="PATH", help="Go on with the run in this folder.")]
DryRun = Annotated[bool, _option(RUN, "--dry-run", help="Print all settings as JSON, and do nothing.")]

TensorBoard = Annotated[bool, _option(SHOWN, "--tensorboard", help="Write event files for TensorBoard too.")]
Quiet = Annotated[bool, _option(SHOWN, "--quiet", "-q", help="Say nothing but the result.")]
JsonLine = Annotated[bool, _option(SHOWN, "--json", help="Print the result as one line of JSON.")]


# ---- --set -----------------------------------------------------------------------------------------------------


def parsed(assignments: Iterable[str]) -> dict[str, Any]:
    """Return what ``NAME=VALUE`` says; values are JSON, or else words.

    >>> parsed(["lr=0.1", "schedule.milestones=[0.5,0.75]", "data.labels=coarse"])
    {'lr': 0.1, 'schedule_options': {'milestones': [0.5, 0.75]}, 'data_options': {'labels': 'coarse'}}

    Raises:
        ValueError: no such setting (with the nearest known), or no ``=``.
    """
    from ..train import Settings
    from ..train.settings import OPTIONS

    known = [f.name for f in fields(Settings) if f.name not in OPTIONS and f.name != "recipe"]
    owners = {name.removesuffix("_options"): name for name in OPTIONS}
    found: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().replace("-", "_")
        owner, dot, option = name.partition(".")
        if not equals or not name or (dot and not option):
            raise ValueError(f"--set {assignment}: write NAME=VALUE, such as lr=0.1 or model.dropout=0.3")
        if dot and owner in owners:
            found.setdefault(owners[owner], {})[option] = _value(text)
        elif not dot and name in known:
            found[name] = _value(text)
        else:
            choices = [*known, *(f"{owner}.NAME" for owner in owners)]
            raise ValueError(f"--set: unknown setting {name!r}{nearest(name, choices)} (known: {', '.join(choices)})")
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {"none": None, "True": True, "False": False}.get(text, text)


def merged(options: dict[str, Any], assignments: Iterable[str] | None) -> dict[str, Any]:
    """Return the settings that options give, those that were not given left out, and those of ``--set``.

    Raises:
        ValueError: one is given twice, or makes no sense.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("augment", "mix"):
        if given.get(name, "").strip() == "none":
            given[name] = ""
    more = parsed(assignments or ())
    if twice := [name for name in more if name in given]:
        flag = f"--{twice[0].replace('_', '-')}"
        raise ValueError(f"{flag} and --set {twice[0]} are both given: leave one out")
    return given | more
