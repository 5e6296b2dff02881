"""Words for error messages."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'X'?" for the known name closest to ``name``, or nothing where none is close.

    >>> nearest("resnet2", ["lenet5", "resnet20"])
    "; did you mean 'resnet20'?"
    """
    name = name.lower()

    def closeness(other: str) -> tuple[bool, float, int]:
        swapped = sorted(other) == sorted(name)  # the same letters in another order
        same_start = sum(itertools.takewhile(bool, map(str.__eq__, name, other)))
        return swapped, difflib.SequenceMatcher(None, name, other).ratio(), same_start

    match = max(difflib.get_close_matches(name, list(known), n=8, cutoff=0.5), key=closeness, default=None)
    return f"; did you mean {match!r}?" if match else ""


def counted(number: int, what: str) -> str:
    """Return how many there are of something whose plural ends in s.

    >>> counted(1, "thread"), counted(1797, "image")
    ('1 thread', '1,797 images')
    """
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def some(names: Iterable[str], most: int = 4) -> str:
    """Return the first names and how many more there are.

    >>> some("abcdef")
    'a, b, c, d and 2 more'
    """
    names = list(names)
    shown = ", ".join(names[:most]) or "nothing"
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")
