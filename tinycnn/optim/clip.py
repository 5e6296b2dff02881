"""Gradient clipping: keep one bad batch from throwing the parameters far away.

To be called between backward and the optimizer's step.  Frozen parameters are ignored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..backend import Array, is_device_array
from ..kernels.cuda import twin
from ..parallel import single_threaded_blas
from ..parameter import FlatParameters
from .groups import members_of
from .vectors import Batch, cut, memory_order, numbers, run_all, with_work


def grad_norm(parameters: Any, norm_type: float = 2.0) -> float | Array:
    """Return ‖g‖_q = (Σ|g_i|^q)^(1/q) over every gradient entry of the parameters, as if they were one vector.

    Sums are taken in float64 and in a fixed order: a float32 sum of a million squares has lost its last digits,
    and one whose order depends on threads gives other bits in every run.

    Args:
        parameters: a layer, parameters in an order, one parameter, or an optimizer's ``flat``, which is quickest: few
            long vectors in place of many short ones.
        norm_type: q, greater than 0; ``math.inf`` gives max|g_i|.

    Returns:
        A float; on a GPU a 0-dimensional array there, which nobody has waited for yet.

    Raises:
        ValueError: ``norm_type`` is not greater than 0.

    >>> from tinycnn import Parameter
    >>> p = Parameter(np.zeros(2))
    >>> p.grad[:] = 3, 4
    >>> grad_norm([p])
    5.0
    """
    q, gradients = _checked(norm_type), _gradients(parameters)
    return gradient_norm(*gradients, norm_type=q) if gradients else 0.0


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float | Array:
    """Shrink all gradients by one factor so that their norm is at most ``max_norm``: the direction stays.

        g ← g · min(1, max_norm/(‖g‖ + 1e-6))

    Args:
        parameters: as for `grad_norm`.
        max_norm: the largest norm to let through.
        norm_type: which norm, see `grad_norm`.
        error_if_nonfinite: raise if the norm is infinite or not a number (on a GPU: wait for it).  Without it a norm
            that is not a number makes every gradient so, and an infinite one makes finite gradients 0, as in PyTorch.

    Returns:
        The norm before clipping, as `grad_norm` does.

    Raises:
        ValueError: ``max_norm`` is negative.
        RuntimeError: a non-finite norm, if asked for.

    Sources: Pascanu, Mikolov & Bengio 2013, "On the difficulty of training recurrent neural networks", algorithm 1.

    >>> from tinycnn import Parameter
    >>> p = Parameter(np.zeros(2))
    >>> p.grad[:] = 3, 4
    >>> clip_grad_norm_([p], max_norm=1.0), p.grad.round(5)
    (5.0, array([0.6, 0.8]))
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0, got {max_norm!r}")
    q, gradients = _checked(norm_type), _gradients(parameters)
    if not gradients:
        return 0.0
    norm = clip_norm(*gradients, max_norm=max_norm, norm_type=q, error_if_nonfinite=error_if_nonfinite)
    if isinstance(parameters, FlatParameters) and isinstance(norm, float) and math.isnan(norm):
        parameters.clear_gaps()
    return norm


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limit every entry of every gradient to [−clip_value, clip_value]; unlike `clip_grad_norm_` it turns directions.

    Raises:
        ValueError: ``clip_value`` is negative.

    >>> from tinycnn import Parameter
    >>> p = Parameter(np.zeros(2))
    >>> p.grad[:] = 0.5, -4
    >>> clip_grad_value_([p], 1.0)
    >>> p.grad
    array([ 0.5, -1. ])
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be at least 0, got {clip_value!r}")
    gradients = _gradients(parameters)
    if gradients:
        clip_values(*gradients, clip_value=clip_value)


def grad_factor(
    parameters: Any,
    factor: Array,
    found_inf: Array | None = None,
    *,
    max_norm: float = math.inf,
    inv_scale: Array | None = None,
) -> float | Array:
    """Measure the gradients for `Optimizer.guard`, which then undoes loss scaling and clips as it updates.

        norm = ‖g‖·inv_scale
        factor ← min(1, max_norm/(norm + 1e-6))·inv_scale
        found_inf ← whether the norm is infinite or not a number, which it is if one gradient is

    That reads the gradients once and writes none.

    Args:
        parameters: as for `grad_norm`.
        factor: array of one element of the gradients' type, written.
        found_inf: array of one int32, written if given.
        max_norm: the largest norm to let through.
        inv_scale: array of one element: 1 over what the loss was multiplied by.

    Returns:
        The norm, of gradients without loss scaling.
    """
    gradients = _gradients(parameters)
    if not gradients:
        raise ValueError("grad_factor: there are no gradients: every parameter is frozen")
    return measure(*gradients, max_norm=max_norm, inv_scale=inv_scale, factor=factor, found_inf=found_inf)


def _checked(norm_type: float) -> float:
    if not float(norm_type) > 0:
        raise ValueError(f"grad_norm: norm_type must be greater than 0, got {norm_type!r}")
    return float(norm_type)


def _gradients(source: Any) -> list[Array]:
    """Return the gradients of what is not frozen, each by itself or (on a CPU) as runs of a flat buffer."""
    if isinstance(source, FlatParameters):
        members = [p for p in source.parameters if p.requires_grad]
        if not is_device_array(source.data):
            grad = source.grad
            return [grad[run] for run in source.runs(members)]
    else:
        members = [p for p in members_of(source, "clipping") if p.requires_grad]
    return [p.grad for p in members if p.size]


# ---- on arrays, all of one device ----------------------------------------------------------------------------


@twin("clip")
def gradient_norm(*gradients: Array, norm_type: float) -> float | Array:
    """Return the norm."""
    return _norm(_batches(gradients), norm_type)


@twin("clip")
def clip_norm(*gradients: Array, max_norm: float, norm_type: float, error_if_nonfinite: bool) -> float | Array:
    """Clip the norm, and return what it was."""
    batches = _batches(gradients)
    norm = _norm(batches, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {norm}: the loss or a layer has overflowed")
    factor = float(max_norm) / (norm + 1e-6)
    if not factor >= 1:
        with np.errstate(invalid="ignore"):
            _each(batches, lambda i: _scale(batches[i], factor))
    return norm


@twin("clip")
def clip_values(*gradients: Array, clip_value: float) -> None:
    """Limit every entry."""
    batches = _batches(gradients)

    def limit(i: int) -> None:
        for (g,) in batches[i].stretches:
            g.clip(-clip_value, clip_value, out=g)

    _each(batches, limit)


@twin("clip")
def measure(
    *gradients: Array, max_norm: float, inv_scale: Array | None, factor: Array, found_inf: Array | None
) -> float | Array:
    """Return the norm; write ``factor`` and ``found_inf``."""
    share = 1.0 if inv_scale is None else float(inv_scale.item())
    norm = _norm(_batches(gradients), 2.0) * share
    shrink = float(max_norm) / (norm + 1e-6)
    factor[...] = (1 if shrink >= 1 else shrink) * share
    if found_inf is not None:
        found_inf[...] = not math.isfinite(norm)
    return norm


def _batches(gradients: Sequence[Array]) -> list[Batch]:
    return cut([(memory_order(g),) for g in gradients], work=2)


def _norm(batches: list[Batch], q: float) -> float:
    if not batches:
        return 0.0
    found: list[list[float]] = [[] for _ in batches]

    def look(i: int) -> None:
        found[i] = [_part(g, a, q) for g, a in with_work(batches[i], ("norm",), np.float64)]

    with single_threaded_blas():
        _each(batches, look)
    parts = np.array([part for some in found for part in some])
    return float(parts.max()) if q == math.inf else float(parts.sum()) ** (1 / q)


def _part(g: Array, a: Array, q: float) -> float:
    """Return Σ|g_i|^q (max|g_i| for q = ∞) of a stretch in float64, with the work array ``a``."""
    if q == 2:
        a[...] = g
        return np.dot(a, a)
    np.absolute(g, out=a)
    if q == math.inf:
        return a.max()
    a **= q
    return a.sum()


def _scale(batch: Batch, factor: float) -> None:
    (factor,) = numbers(batch.stretches[0][0], factor)
    for (g,) in batch.stretches:
        g *= factor


def _each(batches: list[Batch], task: Callable[[int], None]) -> None:
    """Call ``task(i)`` for every batch, on all threads."""
    run_all([functools.partial(task, i) for i in range(len(batches))], batches)
