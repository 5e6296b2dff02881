"""Make README's pictures of the explorer, from pages made afresh: python scripts/screenshots.py

Needs Chromium and ``pip install playwright``.  A run of LeNet-5 on the bundled digits is trained for them, which takes
ten seconds; the pictures go to docs/pictures.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURES = ROOT / "docs" / "pictures"
MOST = 200_000
"""Bytes of a picture."""

sys.path.insert(0, str(ROOT / "tests"))
from headless import chromium, visit  # noqa: E402

# name: page, size of the window, what is done there, what is then scrolled to
SHOTS = {
    "explorer_convolution": ("run", (1280, 960), ["open(0)", "point('y', 12, 9, true)"], "nav"),
    "explorer_col2im": (
        "run",
        (1280, 640),
        ["choose(0, '3')", "open(3)", "stepChannel('x', 2)", "point('dx', 6, 7, true)"],
        "main",
    ),
    "explorer_residual": ("resnet20", (1280, 700), ["open({layer1.1})", "point('x', 14, 12, true)"], "nav"),
    "explorer_batchnorm": ("resnet20", (1280, 640), ["open({bn1})", "point('x', 18, 12, true)"], "main"),
    "explorer_training": ("run", (1280, 900), ["showMoment(15)"], "#training"),
}


def tinycnn(*arguments: object) -> None:
    """Run the command line as a user would."""
    subprocess.run([sys.executable, "-m", "tinycnn", *map(str, arguments)], check=True)


def main() -> None:
    """Make the pages, then a picture of each."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        here = Path(folder)
        tinycnn("train", "--out", here / "lenet5-digits", "--quiet")
        tinycnn("explain", here / "lenet5-digits", "--index", 8, "--out", here / "run.html")
        tinycnn("explain", "resnet20", "--index", 8, "--out", here / "resnet20.html")
        for name, (page, (width, height), steps, place) in SHOTS.items():
            with visit(browser, here / f"{page}.html", width, height) as window:
                window.wait_for_selector("body[data-ready=yes]")
                paths = window.evaluate("study.layers.map((layer) => layer.path)")
                for step in steps:
                    before, brace, rest = step.partition("{")
                    path, _, after = rest.partition("}")
                    window.evaluate(f"{before}{paths.index(path)}{after}" if brace else step)
                window.evaluate(f"document.querySelector({place!r}).scrollIntoView()")
                window.screenshot(path=PICTURES / f"{name}.png")
            size = (PICTURES / f"{name}.png").stat().st_size
            print(f"{name}.png: {size:,} bytes")
            if size > MOST:
                raise SystemExit(f"{name}.png is larger than {MOST:,} bytes: show less of the page")


if __name__ == "__main__":
    main()
