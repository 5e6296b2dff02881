"""What the numbered experiments share: how they are started, how their figure looks, how they end.

options = lab.options(__doc__)      # --quick, --seed, --out
figure, axes = lab.figure(1, 2)     # matplotlib's, in one style
lab.conclude(options, figure, "Momentum is what gets through the ravine: …", holds=fast < slow)
"""

import argparse
import io
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tinycnn import data
from tinycnn.files import write_bytes

COLORS = ("#1f5fa8", "#d1495b", "#2e8b57", "#edae49", "#6a4c93", "#00798c", "#8a8a8a", "#b5651d", "#c2185b", "#333333")


def options(description: str) -> argparse.Namespace:
    """Read the command line: ``quick`` (smaller, for a try or for CI), ``seed``, ``out`` (the figure's file)."""
    script = Path(sys.argv[0]).stem
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller experiment, in a few seconds")
    parser.add_argument("--seed", type=int, default=0, help="of weights and of the order of images [0]")
    parser.add_argument("--out", type=Path, default=Path(f"{script}.png"), help=f"the figure [{script}.png]")
    return parser.parse_args()


def figure(
    rows: int = 1, columns: int = 1, size: tuple[float, float] | None = None, **subplots: Any
) -> tuple[Any, Any]:
    """Return a figure of matplotlib and its axes, as ``plt.subplots`` does, without a window."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        sys.exit("the figure needs matplotlib: pip install 'tinycnn[plot]'")
    drawn = Figure(figsize=size or (4.6 * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(rows, columns, **subplots)
    for one in np.ravel(axes):
        one.set_prop_cycle(color=COLORS)
        one.spines[["top", "right"]].set_visible(False)
    return drawn, axes


def digits(split: str, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the bundled 8×8 digits, (N, 1, 8, 8) from −1 to 1 in float32, and their labels; the first ``count``."""
    part = data.load("digits", split=split)
    return part.images[:count].astype(np.float32) / 127.5 - 1, part.labels[:count]


def conclude(options: argparse.Namespace, figure: Any, conclusion: str, holds: bool) -> NoReturn:
    """Save the figure and say what was found; end with an error if the effect was not there."""
    from PIL import Image  # matplotlib needs it too

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    Image.open(drawn).convert("RGB").quantize(256).save(small, "png", optimize=True)  # a third of the bytes
    write_bytes(options.out, small.getvalue())
    print(f"\n{conclusion}\n\nfigure: {options.out}")
    sys.exit(None if holds else "NOT SEEN: this run does not show what the experiment is about")
