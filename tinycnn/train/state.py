"""A state, arrays and all, taken apart for a file that holds arrays by name and JSON beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

ARRAY = "$array"
"""Key of what stands in the JSON in place of an array: its name."""


def split(state: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Return the arrays of nested dicts, lists and tuples by name, and the rest, which JSON can hold.

    An array's name is the path to it.

    >>> arrays, rest = split({"step": 3, "model": {"w": np.zeros(2)}})
    >>> arrays
    {'model/w': array([0., 0.])}
    >>> rest
    {'step': 3, 'model': {'w': {'$array': 'model/w'}}}
    """
    arrays: dict[str, np.ndarray] = {}

    def take(value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, np.ndarray):
            name = "/".join(path)
            arrays[name] = value
            return {ARRAY: name}
        if isinstance(value, Mapping):
            return {key: take(one, (*path, str(key))) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [take(one, (*path, str(i))) for i, one in enumerate(value)]
        return value

    return arrays, take(state, ())


def join(arrays: Mapping[str, np.ndarray], rest: Any) -> Any:
    """Undo `split`.

    Raises:
        KeyError: an array that the rest names is not there.
    """
    if isinstance(rest, Mapping):
        if set(rest) == {ARRAY}:
            return arrays[rest[ARRAY]]
        return {key: join(arrays, value) for key, value in rest.items()}
    return [join(arrays, value) for value in rest] if isinstance(rest, list) else rest
