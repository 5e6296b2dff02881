"""What is being measured at the moment, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

T = TypeVar("T")


class Progress:
    """A bar on a terminal, nothing elsewhere.

    Args:
        shown: whether there is one.
    """

    def __init__(self, shown: bool) -> None:
        self.shown = shown

    @classmethod
    def silent(cls) -> Progress:
        """Return one that shows nothing."""
        return cls(False)

    def over(self, items: Sequence[T], what: str) -> Iterator[T]:
        """Yield the items, and show which it is."""
        if not self.shown:
            yield from items
            return
        columns = TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()
        with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
            task = bar.add_task(what, total=len(items))
            for item in items:
                bar.update(task, description=f"{what}: {_words(item)}")
                yield item
                bar.advance(task)


def _words(item: object) -> str:
    return " ".join(map(str, item)) if isinstance(item, tuple) else str(item)
