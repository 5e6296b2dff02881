"""Pictures of predictions, as PNG files: who is taken for whom, and how sure the network may be.

They need matplotlib, the ``plot`` extra.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from ..files import write_bytes
from .predictions import Predictions

MOST_NUMBERS = 20
"""With more classes the cells of a confusion matrix are too small for numbers."""
MOST_NAMES = 120
"""With more classes the axes are numbered, not named."""
LONGEST = 24
"""Letters of a name that are shown."""
GAMMA = 0.4
MARKED = 0, 0.01, 0.05, 0.2, 0.5, 1
"""Shares that the scale of colours names."""
BLUE, RED, GREY = "#1f5fa8", "#c44e52", "#8a8a8a"


def draw_confusion(predictions: Predictions, path: str | Path) -> None:
    """Draw the confusion matrix: a row for each true class, a column for each that the network may say.

    Colours are shares of the row, on a scale on which one mistake in a hundred is seen (their power `GAMMA`); the
    numbers in the cells, up to `MOST_NUMBERS` classes, are images.

    Raises:
        ImportError: there is no matplotlib.
        OSError: the file cannot be written.
    """
    C, K = predictions.confusion(), len(predictions.classes)
    side = float(np.clip(2.4 + 0.42 * K, 3.2, 16))
    figure = _figure(side + 1.2, side)
    axes = figure.subplots()
    shares = C / np.maximum(C.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares**GAMMA, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    _name_axes(axes, predictions.classes, side)
    if K <= MOST_NUMBERS:
        _write_numbers(axes, C, shares)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(_words(predictions), loc="left", fontsize=10)
    bar = figure.colorbar(image, ax=axes, aspect=10 * side, fraction=0.02, pad=0.02, ticks=[v**GAMMA for v in MARKED])
    bar.ax.set_yticklabels([f"{v:.0%}" for v in MARKED], fontsize=8)
    bar.set_label("share of the images of the class", fontsize=8)
    _save(figure, path)


def draw_calibration(predictions: Predictions, path: str | Path, bins: int = 15) -> None:
    """Draw accuracy by confidence, with the diagonal where both are equal, and how many images are how sure.

    Raises:
        ImportError: there is no matplotlib.
        OSError: the file cannot be written.
        ValueError: fewer than one bin.
    """
    found = predictions.calibration(bins)
    figure = _figure(4.6, 5.4)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    left, width, some = found.edges[:-1], np.diff(found.edges), found.counts > 0
    bars = {"align": "edge", "edgecolor": "white", "linewidth": 0.5}
    upper.bar(left[some], found.accuracy[some], width[some], color=BLUE, label="accuracy", **bars)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=0.9, linestyle="--", label="as sure as right")
    upper.plot(
        found.confidence[some],
        found.accuracy[some],
        "o",
        color=RED,
        markersize=4,
        clip_on=False,
        label="mean confidence",
    )
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    upper.set_title(f"{_words(predictions)}\ncalibration error {100 * found.error:.2f} %", loc="left", fontsize=10)
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.bar(left, found.counts / len(predictions), width, color=GREY, **bars)
    lower.set(xlabel="confidence", ylabel="share of images", ylim=(0, None))
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _figure(width: float, height: float) -> Any:
    """Return an empty figure, in inches, that no window and no other figure knows of."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'tinycnn[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _name_axes(axes: Any, classes: tuple[str, ...], side: float) -> None:
    """Put the names of the classes on both axes, as large as there is room."""
    K = len(classes)
    if K > MOST_NAMES:
        return
    names = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in classes]
    names = [name.replace("$", r"\$") for name in names]  # two would be mathematics
    size = float(np.clip(0.75 * 72 * side / (K + 4), 4, 9))
    fit = max(map(len, names)) * 0.7 * size < 60 * side / (K + 4)  # a letter is at most 0.7 of its size wide
    axes.set_xticks(range(K), names, fontsize=size, rotation=0 if fit else 90)
    axes.set_yticks(range(K), names, fontsize=size)


def _write_numbers(axes: Any, C: np.ndarray, shares: np.ndarray) -> None:
    for (row, col), n in np.ndenumerate(C):
        if n:
            color = "white" if shares[row, col] > 0.3 else "black"
            axes.text(col, row, f"{n:,}", ha="center", va="center", fontsize=8, color=color)


def _words(predictions: Predictions) -> str:
    return f"accuracy {100 * predictions.accuracy:.2f} % of {len(predictions):,} images"


def _save(figure: Any, path: str | Path) -> None:
    """Write a PNG file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=150)
    write_bytes(Path(path), picture.getvalue())
