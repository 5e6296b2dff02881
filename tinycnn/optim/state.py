"""What an optimizer's state becomes in a file, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Take a ``state_dict`` apart for a file format: arrays by ``slot/name``, and the rest, which is JSON."""
    arrays = {f"{slot}/{name}": x for slot, named in state["state"].items() for name, x in named.items()}
    return arrays, {key: value for key, value in state.items() if key != "state"}


def join_state(arrays: Mapping[str, np.ndarray], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `split_state`."""
    slots: dict[str, dict[str, np.ndarray]] = {}
    for key, x in arrays.items():
        slot, name = key.split("/", 1)
        slots.setdefault(slot, {})[name] = x
    return {**rest, "state": slots}


def first_difference(mine: list[str], saved: list[str]) -> str:
    """Say where two lists of parameters, this optimizer's and a saved one's, part."""
    for a, b in zip(mine, saved, strict=False):
        if a != b:
            return f"it has {b!r} where this optimizer has {a!r}"
    return f"it has {len(saved)} parameters, this optimizer {len(mine)}"
