"""What does not fit when a state is loaded, all of it at once, and which renaming would make it fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import TypeAlias

from ..messages import some

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
LOOKED_AT = 40
"""Names without a place that a renaming is guessed from."""


def words_for(own: Shapes, given: Shapes, missing: Collection[str], unexpected: Collection[str]) -> str:
    """Return what is wrong with a state: names that it lacks, has too many, or has with other shapes; or nothing."""
    shapes = [
        f"{name} has shape {own[name]}, the state's has {given[name]}"
        for name in own
        if name in given and own[name] != given[name]
    ]
    counted = [
        f"{what} {some(names)}" + (f" ({len(names)} of {len(known)})" if len(names) > 1 else "")
        for what, names, known in (("missing", missing, own), ("unexpected", unexpected, given))
        if names
    ]
    rename = guess_rename({n: own[n] for n in missing}, {n: given[n] for n in unexpected})
    hint = [f"renaming {old or 'nothing'} to {new or 'nothing'} would help" for old, new in rename.items()]
    return "; ".join(counted + ([some(shapes)] if shapes else []) + hint)


def guess_rename(missing: Shapes, unexpected: Shapes) -> dict[str, str]:
    """Return the one path to rename, old → new, that gives the most unexpected names a missing one of their shape.

    Empty if there is none.

    >>> guess_rename({"fc.weight": (10, 64), "fc.bias": (10,)}, {"linear.weight": (10, 64), "linear.bias": (10,)})
    {'linear': 'fc'}
    """
    candidates: Counter[tuple[str, str]] = Counter()
    for old in list(unexpected)[:LOOKED_AT]:
        for new in list(missing)[:LOOKED_AT]:
            if missing[new] == unexpected[old] and (pair := _difference(old, new)):
                candidates[pair] = 0
    for pair in candidates:
        moved = {name: renamed(name, {pair[0]: pair[1]}) for name in unexpected}
        candidates[pair] = sum(n != m and missing.get(m) == unexpected[n] for n, m in moved.items())
    best = candidates.most_common(1)
    return {best[0][0][0]: best[0][0][1]} if best and best[0][1] else {}


def _difference(old: str, new: str) -> tuple[str, str] | None:
    """Return the paths that differ when the ends that are alike are taken off, or None where the ends differ.

    >>> _difference("net.linear.weight", "fc.weight")
    ('net.linear', 'fc')
    """
    a, b = old.split("."), new.split(".")
    if a[-1] != b[-1]:
        return None
    while a and b and a[-1] == b[-1]:
        a.pop()
        b.pop()
    return ".".join(a), ".".join(b)


def renamed(name: str, rename: Mapping[str, str]) -> str:
    """Return ``name`` with the first path in ``rename`` that it is, or lies under, replaced.

    The empty path stands for the root.

    >>> renamed("linear.weight", {"linear": "fc"}), renamed("linear2.weight", {"linear": "fc"})
    ('fc.weight', 'linear2.weight')
    """
    for old, new in rename.items():
        path = old.rstrip(".")
        if name == path or not path or name.startswith(path + "."):
            rest = name[len(path) :].lstrip(".")
            return ".".join(part for part in (new.rstrip("."), rest) if part)
    return name
