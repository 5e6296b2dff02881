"""The gradient checker on each layer of a network by itself, at the input that was recorded there."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np

from ..gradcheck import gradcheck
from ..layers.base import Layer, LayerError
from .record import Visit

MOST = 40_000_000
"""Multiply-adds of a forward beyond which a check, some hundred of them in float64, is not done unasked."""


def check_layer(layer: Layer, visit: Visit) -> dict[str, Any]:
    """Check a copy of ``layer`` in float64: one random direction for each tensor.

    Returns:
        ``ok``, ``error`` (relative) and ``tensors``, the error of each; or, where nothing was checked, ``why``.
    """
    if layer.macs(visit.x.shape) > MOST:
        return {"why": "not checked here, it would take long: tinycnn gradcheck checks the layer on a small input"}
    try:
        report = gradcheck(alone(layer), visit.x.astype(np.float64), directions=1, jacobian_entries=0)
    except (ValueError, TypeError, LayerError) as error:
        return {"why": f"not checked: {error}"}
    tensors = [{"name": e.name, "error": _finite(e.error), "ok": e.ok, "note": e.note} for e in report.entries]
    found: dict[str, Any] = {"ok": report.ok, "error": _finite(report.worst), "tensors": tensors}
    if visit.shortcut is not None:
        found["note"] = "without the shortcut, whose gradient is that of ReLU's gate"
    return found


def _finite(error: float) -> float | None:
    return error if math.isfinite(error) else None


def alone(layer: Layer) -> Layer:
    """Return a copy of ``layer`` in float64, which saves what its backward needs and returns dx."""
    twin = copy.deepcopy(layer).astype(np.float64).set_saving(True)
    twin.require_dx()
    return twin
