"""``report.html``: what a run came to, in one file that needs no other."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from .. import __version__
from ..files import write_bytes
from . import evidence as look
from . import sections, story
from .html import Html, join, tag

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What the page may load: pictures that it holds itself.  The browser sees to it that nothing else is asked for."""


def write(
    run_folder: Path | str, out: Path | str | None = None, device: str | None = None, data_dir: Path | str | None = None
) -> Path:
    """Write the report of a run: its result, curves, mistakes, filters, network and configuration.

    Of a run that is not finished, or whose data or weights are not there, it is shorter, and says so.

    Args:
        run_folder: that `tinycnn train` made.
        out: the file; by default ``report.html`` in the run folder.
        device, data_dir: where to compute, and where the data are, if not where they were.

    Returns:
        The file.

    Raises:
        CheckpointError: it is no run folder.
        OSError: the file cannot be written.
    """
    folder = Path(run_folder)
    path = Path(out) if out is not None else folder / "report.html"
    told = story.read(folder)
    content = page(told, look.find(told, device, data_dir))
    write_bytes(path, content.encode(errors="replace"))  # a folder's name may be no text
    return path


def page(told: story.Story, evidence: look.Evidence) -> Html:
    """Return the report as HTML."""
    parts = [sections.curves(told)]
    if (found := evidence.predictions) is not None:
        parts += [sections.confusion(found), sections.most_wrong(found, evidence), sections.calibration(found)]
    parts += [sections.first_layer(evidence), sections.network(evidence), sections.configuration(told)]
    notes = [tag("p", note, class_="warning", role="note") for note in evidence.notes]
    top = sections.result(told, evidence)
    foot = tag("footer", f"Written by tinycnn {__version__}.")
    return join(
        [
            Html("<!doctype html>\n"),
            tag("html", _head(told.title), tag("body", top, tag("main", *notes, *parts), foot), lang="en"),
        ]
    )


def _head(title: str) -> Html:
    style = (files(__package__) / "style.css").read_text(encoding="utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(style)),
    )
