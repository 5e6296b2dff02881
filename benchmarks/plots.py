"""Pictures of a report; needs matplotlib, the ``plot`` extra."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .report import Report, Row, Table

OURS, THEIRS = "#1f5fa8", "#8a8a8a"
NAMES = {
    "steps": ("title", "batch"),
    "inference": ("title", "batch"),
    "layers": ("net", "layer"),
    "optimizers": ("name",),
    "memory": ("title", "batch"),
    "peers": ("library", "task"),
}
"""The keys that name a row in the pictures of ratios, by table."""
RATIOS = {"layers": ("forward_ratio", "backward_ratio")}


def draw(report: Report, folder: Path) -> list[Path]:
    """Draw every table that has a picture, as PNG files.

    Raises:
        ImportError: matplotlib is absent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for table in report.tables:
        if not table.rows or not (table.name in NAMES or table.name.startswith("scaling_")):
            continue
        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        (_bars if table.name in NAMES else _curves)(figure, table)
        paths.append(folder / f"{table.name}.png")
        figure.savefig(paths[-1], dpi=130)
    return paths


def _bars(figure: Any, table: Table) -> None:
    """One bar per row and ratio, 1 marked: to the right of it tinycnn is the better."""
    keys = RATIOS.get(table.name, ("ratio",))
    height = 0.8 / len(keys)
    figure.set_size_inches(8, 1 + 0.25 * len(table.rows) * len(keys))
    axes = figure.subplots()
    for i, key in enumerate(keys):
        places = [y + i * height for y in range(len(table.rows))]
        widths = [_middle(row[key]) for row in table.rows]
        axes.barh(places, widths, height * 0.9, color=(OURS, THEIRS)[i], label=key.replace("_ratio", ""))
    names = [", ".join(str(row[key]) for key in NAMES[table.name]) for row in table.rows]
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("other ÷ tinycnn: right of 1, tinycnn is the better")
    axes.set_title(table.title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    if len(keys) > 1:
        axes.legend(frameon=False)


def _middle(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def _curves(figure: Any, table: Table) -> None:
    """Time against size on logarithmic axes, ours and PyTorch's, one panel for each network."""
    groups = dict(_groups(table.rows))
    figure.set_size_inches(3.2 * len(groups), 3.2)
    for axes, (title, rows) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups.items(), strict=True):
        sizes = [row["size"] for row in rows]
        for who, name, color in (("ours", "tinycnn", OURS), ("theirs", "PyTorch", THEIRS)):
            fitted = rows[-1].get("exponent" if who == "ours" else "torch_exponent")
            label = name if fitted is None else f"{name}, exponent {fitted:.2f}"
            axes.loglog(sizes, [1e3 * row[who]["median"] for row in rows], color=color, marker=".", label=label)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
        axes.set_title(title, loc="left", fontsize="medium")
        axes.set_xlabel(table.columns[1].head)
        axes.set_ylabel("ms")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize="small")


def _groups(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    for title in dict.fromkeys(row["title"] for row in rows):
        yield title, [row for row in rows if row["title"] == title]
