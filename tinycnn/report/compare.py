"""Several runs side by side: their curves in one picture, their results in one table."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_bytes
from .story import Story

COLOURS = ("#1f5fa8", "#c43a26", "#2e8b57", "#8e5ba6", "#c98a1b", "#4aa3b5", "#7a5c43", "#d16ba5")
"""Of the runs; the ninth begins anew."""
FORMATS = (".png", ".svg", ".pdf")
LEGEND = 60
"""Letters of a name in a line of the legend."""


def names_of(runs: Sequence[Story]) -> list[str]:
    """Return a name for each run: of its recipe, or else of its network; where two are alike, with their folder's.

    Where these are alike, too, it is their whole path.  Of a recipe that is not followed throughout it says "shortened"
    or "changed", not how.
    """
    short = [run.recipe.split(":", 1)[0] if run.recipe else run.title for run in runs]
    long = [f"{name} ({run.folder.resolve().name})" for name, run in zip(short, runs, strict=True)]
    whole = [f"{name} ({run.folder})" for name, run in zip(short, runs, strict=True)]
    return [
        a if short.count(a) == 1 else b if long.count(b) == 1 else c for a, b, c in zip(short, long, whole, strict=True)
    ]


def draw(runs: Sequence[Story], path: Path) -> None:
    """Draw training (dashed) and validation error by epoch, one colour a run.

    Args:
        runs: of which some have finished an epoch.
        path: of the picture: PNG, SVG or PDF.

    Raises:
        ValueError: another kind of picture; or there is nothing to draw.
        ImportError: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"{path}: a picture's name must end in one of {', '.join(FORMATS)}")
    if not any(run.points("train_accuracy") or run.points("val_accuracy") for run in runs):
        raise ValueError("there is nothing to draw: none of these runs has finished an epoch")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("drawing needs matplotlib: pip install 'tinycnn[plot]'") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots()
    for i, (run, name) in enumerate(zip(runs, names_of(runs), strict=True)):
        name = textwrap.fill(name, LEGEND).replace("$", r"\$")  # two would be mathematics
        _lines(axes, run, name, COLOURS[i % len(COLOURS)])
    axes.set(xlabel="epoch", ylabel="error, %", ylim=(0, None))
    validated = any(run.points("val_accuracy") for run in runs)
    axes.set_title("validation error (dashed: training error)" if validated else "training error", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", color="#e6e6e6")
    axes.legend(frameon=False)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix.lower()[1:], dpi=150)
    write_bytes(path, picture.getvalue())


def _lines(axes: Any, run: Story, name: str, colour: str) -> None:
    for part, style, width in (("val", "-", 1.6), ("train", (0, (3, 1.5)), 1.0)):
        accuracy = run.points(f"{part}_accuracy")
        if accuracy:
            error = [100 * (1 - value) for value in accuracy.values()]
            marker = "." if len(error) < 10 else None
            axes.plot([*accuracy], error, color=colour, linestyle=style, linewidth=width, marker=marker, label=name)
            name = "_"  # once in the legend is enough


def table(runs: Sequence[Story]) -> str:
    """Return the results of runs as text, a line each."""
    head = ["run", "epochs", "training", "validation", "test", "best epoch", "time"]
    rows = [head, *([name, *_cells(run)] for name, run in zip(names_of(runs), runs, strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def summary(run: Story) -> dict[str, object]:
    """Return a run's accuracies after its last epoch and, if it is finished, on the test images, as plain data."""
    last = run.history[-1] if run.history else {}
    return {
        "run": str(run.folder),
        "recipe": run.recipe,
        "model": run.settings.get("model"),
        "data": run.settings.get("data"),
        "epochs": len(run.history),
        "train_accuracy": last.get("train_accuracy"),
        "val_accuracy": last.get("val_accuracy"),
        "test_accuracy": run.result.get("test_accuracy"),
        "best_epoch": run.best,
        "seconds": round(sum(run.points("seconds").values()), 3),
    }


def _cells(run: Story) -> list[str]:
    found = summary(run)
    shares = [found[f"{part}_accuracy"] for part in ("train", "val", "test")]
    return [
        f"{found['epochs']} of {run.settings.get('epochs')}",
        *("–" if not isinstance(share, float) else f"{100 * share:.2f} %" for share in shares),
        str(found["best_epoch"] or "–"),
        f"{found['seconds']:.0f} s",
    ]
