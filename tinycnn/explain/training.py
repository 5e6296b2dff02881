"""The records of a training as a page takes them: numbers as they are, pictures as bytes.

Filters and maps come quantized (`tinycnn.train.recorder`), and stay so: all of them, record after record, are one
string of deflated bytes in base 64.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..train.folder import METRICS
from ..train.recorder import Records, quantize, read_records

ROOM = 2_000_000
"""Bytes that all of it may take; of more, every second step is left out."""
DIGITS = 6


def training_of(run: Path, room: int = ROOM) -> dict[str, Any] | None:
    """Return what a page shows of a run's training; None if it was not recorded.

    Args:
        run: its folder; a checkpoint's file has none.
        room: bytes that it may take; two steps are there even if they take more.

    Raises:
        CheckpointError: the records are damaged.
    """
    records = read_records(run) if run.is_dir() else None
    if records is None or not len(records):
        return None
    chosen = np.arange(len(records))
    validation = _validation(run, records.about["steps_per_epoch"])
    while (found := _at(records, chosen, validation))["room"] > room and len(chosen) > 2:
        chosen = np.unique([*chosen[::2], len(records) - 1])
    return found


def _at(records: Records, chosen: np.ndarray, validation: list[list[float]]) -> dict[str, Any]:
    """Return what there is at some of the records; ``room`` is what the rest takes."""
    arrays = records.arrays
    found = {
        **records.about,
        **{name: _json(arrays[name][chosen]) for name in ("steps", "batch_loss", "loss", "p", "gradients")},
        "labels": arrays["labels"].tolist(),
        "left_out": len(records) - len(chosen),
        "pictures": [{"name": name, **_shape(records, name, chosen)} for name in _pictures(records)],
        "bytes": _packed(records, chosen),
        "x": {"shape": arrays["x"].shape[1:], "bytes": _text(quantize(arrays["x"])[0].tobytes())},
        "validation": validation,
    }
    return found | {"room": len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode())}


def _pictures(records: Records) -> list[str]:
    """Return the names of what is drawn: the filters of a layer, then its maps, from the first layer to the last."""
    names = [name for name in records.arrays if f"{name}/scale" in records.arrays]
    layers = records.about["layers"]
    return sorted(names, key=lambda name: (layers.index(name.partition("/")[2]), name))


def _shape(records: Records, name: str, chosen: np.ndarray) -> dict[str, Any]:
    return {
        "shape": records.arrays[name].shape[1:],
        "scale": _json(records.arrays[f"{name}/scale"][chosen]),
    }


def _packed(records: Records, chosen: np.ndarray) -> str:
    """Return all pictures of the chosen records, one name after the other."""
    return _text(b"".join(records.arrays[name][chosen].astype(np.int8).tobytes() for name in _pictures(records)))


def _text(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 6)).decode("ascii")


def _json(a: np.ndarray) -> Any:
    """Return nested lists of numbers with six digits; None for what is none."""
    if a.ndim:
        return [_json(one) for one in a]
    value = a.item()
    return value if isinstance(value, int) else float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _validation(run: Path, steps_per_epoch: int) -> list[list[float]]:
    """Return (step, loss on the part set aside) after each epoch."""
    try:
        rows = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    except (OSError, ValueError):
        return []
    return [[row["epoch"] * steps_per_epoch, row["val_loss"]] for row in rows if "val_loss" in row]
