"""A picture of a run: loss and accuracy by epoch.  Needs matplotlib, the ``plot`` extra."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..files import write_bytes

TRAINING, VALIDATION = "#8a8a8a", "#1f5fa8"


def draw(history: list[dict[str, Any]], path: Path, best: int) -> bool:
    """Draw a run's history to a PNG file, marking the epoch ``best``.

    Returns:
        False, and nothing is drawn, if matplotlib is absent or there is no epoch.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not history:
        return False
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, what in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        _panel(axes, history, what, best)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(path, picture.getvalue())
    return True


def _panel(axes: Any, history: list[dict[str, Any]], what: str, best: int) -> None:
    from matplotlib.ticker import LogLocator

    for part, name, color in (("train", "training", TRAINING), ("val", "validation", VALIDATION)):
        points = [(row["epoch"], row[f"{part}_{what}"]) for row in history if f"{part}_{what}" in row]
        if points:
            epochs, values = zip(*points, strict=True)
            axes.plot(epochs, values, color=color, label=name, marker="." if len(points) < 40 else None)
    axes.axvline(best, color="#c0c0c0", linewidth=0.8, linestyle=":", label=f"best: epoch {best}")
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(what, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    if what == "loss":
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")  # 0.1 rather than a power of ten
        axes.yaxis.set_minor_formatter("{x:g}")
