"""Arguments of the functions that build architectures: checked by their annotations, and made plain Python.

A builder that is given 20.0 layers, or 3 blocks where it wants a number for each stage, would fail somewhere within;
``checkpointed="no"`` would count as true.  And arguments are written to files as JSON, which has no numbers of NumPy's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar, get_origin, get_type_hints

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
KINDS: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "True or False"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
}
"""What may be given for an annotation, and what that is called."""


def checked(build: Callable[P, R]) -> Callable[P, R]:
    """Have the arguments of ``build`` that are numbers, True or False, or several numbers, checked and made plain.

    The function returned raises a ValueError that names an argument of another kind, and a TypeError for one that
    ``build`` does not have, or lacks.
    """
    signature, kinds = inspect.signature(build), get_type_hints(build)

    @wraps(build)
    def checked_build(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{build.__name__}: {error}") from None
        for name, value in given.arguments.items():
            given.arguments[name] = _checked(plain(value), kinds[name], name)
        return build(*given.args, **given.kwargs)

    return checked_build


def plain(value: Any) -> Any:
    """Return a value with Python's numbers and lists in the place of NumPy's, also within tuples, lists and dicts.

    >>> plain((np.int64(3), np.array([1, 2])))
    (3, [1, 2])
    """
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return type(value)(map(plain, value)) if type(value) in (tuple, list) else value


def _checked(value: Any, kind: Any, name: str) -> Any:
    if kind in KINDS:
        accepted, called = KINDS[kind]
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} must be {called}, got {value!r}")
    elif get_origin(kind) in (tuple, Sequence):
        if not isinstance(value, tuple | list) or any(type(number) is not int for number in value):
            raise ValueError(f"{name} must be whole numbers, one for each stage, got {value!r}")
        return tuple(value)
    return value
