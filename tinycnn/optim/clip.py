"""Gradient clipping: keep one bad batch from throwing the parameters far away.

To be called between backward and the optimizer's step.  Frozen parameters are ignored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..parallel import single_threaded_blas
from ..parameter import FlatParameters
from .groups import members_of
from .vectors import Batch, cut, memory_order, numbers, run_all, with_work


def grad_norm(parameters: Any, norm_type: float = 2.0) -> float:
    """Return ‖g‖_q = (Σ|g_i|^q)^(1/q) over every gradient entry of the parameters, as if they were one vector.

    Sums are taken in float64 and in a fixed order: a float32 sum of a million squares has lost its last digits,
    and one whose order depends on threads gives other bits in every run.

    Args:
        parameters: a layer, parameters in an order, one parameter, or an optimizer's ``flat``, which is quickest: few
            long vectors in place of many short ones.
        norm_type: q, greater than 0; ``math.inf`` gives max|g_i|.

    Raises:
        ValueError: ``norm_type`` is not greater than 0.
    """
    return _norm(_gradients(parameters), norm_type)


def _norm(batches: list[Batch], norm_type: float) -> float:
    q = float(norm_type)
    if not q > 0:
        raise ValueError(f"grad_norm: norm_type must be greater than 0, got {norm_type!r}")
    if not batches:
        return 0.0
    found: list[list[Array]] = [[] for _ in batches]

    def look(i: int) -> None:
        found[i] = [_part(g, a, q) for g, a in with_work(batches[i], ("norm",), np.float64)]

    with single_threaded_blas():
        _each(batches, look)
    # They are added up where they are: on a GPU there is one number to wait for, not one per stretch.
    xp = array_module(batches[0].stretches[0][0])
    parts = xp.stack([xp.asarray(part) for some in found for part in some])
    return float(parts.max()) if q == math.inf else float(parts.sum()) ** (1 / q)


def _part(g: Array, a: Array, q: float) -> Array:
    """Return Σ|g_i|^q (max|g_i| for q = ∞) of a stretch in float64, with the work array ``a``."""
    xp = array_module(g)
    if q == 2:
        a[...] = g
        return xp.dot(a, a)
    xp.absolute(g, out=a)
    if q == math.inf:
        return a.max()
    a **= q
    return a.sum()


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Shrink all gradients by one factor so that their norm is at most ``max_norm``: the direction stays.

        g ← g · min(1, max_norm/(‖g‖ + 1e-6))

    Args:
        parameters: as for `grad_norm`.
        max_norm: the largest norm to let through.
        norm_type: which norm, see `grad_norm`.
        error_if_nonfinite: raise if the norm is infinite or not a number.  Without it a norm that is not a number
            makes every gradient so, and an infinite one makes finite gradients 0, as in PyTorch.

    Returns:
        The norm before clipping.

    Raises:
        ValueError: ``max_norm`` is negative.
        RuntimeError: a non-finite norm, if asked for.

    Sources: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0, got {max_norm!r}")
    batches = _gradients(parameters)
    norm = _norm(batches, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {norm}: the loss or a layer has overflowed")
    factor = float(max_norm) / (norm + 1e-6)
    if not factor >= 1:
        with np.errstate(invalid="ignore"):
            _each(batches, lambda i: _scale(batches[i], factor))
    return norm


def _scale(batch: Batch, factor: float) -> None:
    (factor,) = numbers(batch.stretches[0][0], factor)
    for (g,) in batch.stretches:
        g *= factor


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limit every entry of every gradient to [−clip_value, clip_value]; unlike `clip_grad_norm_` it turns directions.

    Raises:
        ValueError: ``clip_value`` is negative.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be at least 0, got {clip_value!r}")
    batches = _gradients(parameters)

    def limit(i: int) -> None:
        for (g,) in batches[i].stretches:
            array_module(g).clip(g, -clip_value, clip_value, out=g)

    _each(batches, limit)


def _gradients(source: Any) -> list[Batch]:
    """Return stretches of the gradients of what is not frozen, each cut by itself or as runs of a flat buffer."""
    if isinstance(source, FlatParameters):
        runs, grad = source.runs([p for p in source.parameters if p.requires_grad]), source.grad
        return cut([(grad[run],) for run in runs], work=2)
    members = [p.grad for p in members_of(source, "clipping") if p.requires_grad and p.size]
    return cut([(memory_order(g),) for g in members], work=2)


def _each(batches: list[Batch], task: Callable[[int], None]) -> None:
    """Call ``task(i)`` for every batch, on all threads."""
    run_all([functools.partial(task, i) for i in range(len(batches))], batches)
