"""The files of a run folder: what is in them, and reading them with words for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..optim import join_state, split_state
from . import checkpoint
from .checkpoint import TRAINING_STATE, Checkpoint, CheckpointError
from .state import join, split

CONFIG, METRICS, RESULT = "config.json", "metrics.jsonl", "result.json"
STATE = "training_state.safetensors"


def read_config(folder: Path) -> dict[str, Any]:
    """Return what the config.json of a run folder holds.

    Raises:
        CheckpointError: there is no such folder or file, or it is damaged.
    """
    path = folder / CONFIG
    if not path.is_file():
        what = "has no config.json, so it is not a run folder" if folder.exists() else "there is no such folder"
        raise CheckpointError(f"{folder}: {what}: name one that tinycnn train made")
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}): restore it, or start a new run") from None
    if not isinstance(config, dict) or not isinstance(config.get("settings"), dict):
        raise CheckpointError(f"{path}: has no settings: restore it, or start a new run")
    return config


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return what result.json holds, or None if there is none, or one that cannot be read and is made anew."""
    try:
        result = json.loads((folder / RESULT).read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def must_be_empty(folder: Path) -> None:
    """Raise FileExistsError if a folder has something in it; files that a killed run left half-written do not count."""
    if not folder.is_dir() or all(path.match(".*.tmp") for path in folder.iterdir()):
        return
    cure = f"continue with tinycnn train --resume {folder}" if (folder / CONFIG).is_file() else "empty it"
    raise FileExistsError(f"{folder}: there is something in this folder already: name another, or {cure}")


# ---- the training state ----------------------------------------------------------------------------------------


def write_state(folder: Path, state: Mapping[str, Any], **metadata: Any) -> None:
    """Write the state of a `Trainer`, and what else is to be known of it, in one step.

    Args:
        folder: of the run.
        state: what `Trainer.state_dict` returned.
        metadata: what JSON can say.
    """
    rest = dict(state)
    arrays = {f"model/{name}": value for name, value in rest.pop("model").items()}
    for part in ("optimizer", "ema"):
        if rest.get(part) is not None:
            inside, rest[part] = split_state(rest[part])
            arrays |= {f"{part}/{name}": value for name, value in inside.items()}
    optimizer = rest.pop("optimizer")
    others, trainer = split(rest)
    arrays |= {f"trainer/{name}": value for name, value in others.items()}
    checkpoint.write(
        folder / STATE, arrays, {"kind": TRAINING_STATE, "optimizer": optimizer, "trainer": trainer, **metadata}
    )


def read_state(folder: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """Return the file of a run's state, and the state for `Trainer.load_state_dict`.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    saved = checkpoint.read(folder, TRAINING_STATE)
    parts: dict[str, dict[str, np.ndarray]] = {"model": {}, "optimizer": {}, "ema": {}, "trainer": {}}
    for name, array in saved.arrays.items():
        part, _, rest = name.partition("/")
        parts.setdefault(part, {})[rest] = array
    state = {**join(parts["trainer"], saved.metadata["trainer"]), "model": parts["model"]}
    state["optimizer"] = join_state(parts["optimizer"], saved.metadata["optimizer"])
    if state.get("ema") is not None:
        state["ema"] = join_state(parts["ema"], state["ema"])
    return saved, state
