"""One HTML file out of a study and the files in ``assets``."""

from __future__ import annotations

import html
import json
import os
from pathlib import Path

from ..files import write_bytes
from .study import Study

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "maps.js", "words.js", "conv.js", "small.js", "norms.js", "joins.js", "app.js", "training.js")
"""In the order in which they need each other."""


def page(study: Study) -> str:
    """Return the page as text."""
    data = {**study.data, "notes": study.notes, "arrays": study.store.places, "groups": study.store.groups}
    data["training"] = study.training
    # a "<" could end the script; "\\u003c" is the same to JSON
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(study.data["title"]),
        "STYLE": _asset("explain.css"),
        "DATA": text,
        "SCRIPT": "\n".join(_asset(name) for name in SCRIPTS),
    }
    before, *pieces = _asset("explain.html").split("{{")
    found = [before]
    for piece in pieces:
        name, _, rest = piece.partition("}}")
        found += [parts[name], rest]
    return "".join(found)


def write(study: Study, path: str | os.PathLike[str]) -> Path:
    """Write the page to a file, which is there whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page(study).encode())
    return path


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
