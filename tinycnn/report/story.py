"""What the files in a run folder tell, whichever version of tinycnn wrote them, and however far the run came."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from ..train.run import read_config


@dataclass(frozen=True, repr=False)
class Story:
    """A run, as its files tell it.

    Attributes:
        folder: of the run.
        config: what config.json holds.
        history: a row for each epoch finished, in their order.
        result: what result.json holds; empty while the run is not finished.
    """

    folder: Path
    config: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result."""
        settings: dict[str, Any] = self.config["settings"]
        return settings

    @property
    def title(self) -> str:
        """The network and the images: ``lenet5 on digits``."""
        return f"{self.settings.get('model', 'a network')} on {self.settings.get('data', 'images')}"

    @property
    def recipe(self) -> str | None:
        """The recipe it follows, with what was changed or shortened."""
        for found in (self.config.get("title"), self.settings.get("recipe")):
            if isinstance(found, str) and found:
                return found
        return None

    @property
    def published_error(self) -> float | None:
        """What the recipe's paper reports, in per cent, if the run follows the recipe throughout."""
        published = self.config.get("published")
        found = published.get("error") if isinstance(published, dict) else None
        return float(found) if _is_number(found) else None

    @property
    def published_accuracy(self) -> str | None:
        """The accuracy that goes with it, in words; "about" what was read off a curve."""
        if (error := self.published_error) is None:
            return None
        return f"about {100 - error:g} %" if self.config["published"].get("about") else f"{100 - error:.2f} %"

    @property
    def best(self) -> int | None:
        """The epoch whose weights count, once that is known."""
        found = self.result.get("best_epoch")
        return found if isinstance(found, int) and found > 0 else None

    @property
    def command(self) -> str | None:
        """What was typed, if it was."""
        words = self.config.get("command")
        if not isinstance(words, list) or not words or not all(isinstance(word, str) for word in words):
            return None
        name = Path(words[0]).name
        if name == "__main__.py":
            return f"python -m tinycnn {shlex.join(words[1:])}"
        return shlex.join([name, *words[1:]]) if name.startswith("tinycnn") else None

    def points(self, name: str) -> dict[int, float]:
        """Return a number of the rows by epoch, where it is there and finite."""
        return {row["epoch"]: float(row[name]) for row in self.history if _is_number(row.get(name))}


def read(folder: Path) -> Story:
    """Return what the files in a run folder tell.

    Raises:
        CheckpointError: it is no run folder.
    """
    config = read_config(folder)
    result = _json(_text(folder / "result.json"))
    rows = [_json(line) for line in _text(folder / "metrics.jsonl").splitlines()]
    history = {row["epoch"]: row for row in rows if isinstance(row.get("epoch"), int)}
    return Story(folder, config, [history[epoch] for epoch in sorted(history)], result)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _json(text: str) -> dict[str, Any]:
    """Return the object that a text holds; an empty one if it holds another thing, or is damaged."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
