"""Gradient clipping: keep one bad batch from throwing the parameters far away.

To be called between backward and the optimizer's step.  Frozen parameters are ignored.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..parallel import each_slice, scratch, single_threaded_blas, sum_slices
from ..parameter import FlatParameters
from .groups import members_of
from .vectors import memory_order


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


def _norm(gradients: list[Array], norm_type: float) -> float:
    q = float(norm_type)
    if not q > 0:
        raise ValueError(f"grad_norm: norm_type must be greater than 0, got {norm_type!r}")
    if not gradients:
        return 0.0
    xp = array_module(gradients[0])
    # The parts are added up where they are: on a GPU there is one number to wait for, not one per gradient.
    with single_threaded_blas():
        if q == math.inf:
            return float(xp.stack([xp.abs(g).max() for g in gradients]).max())
        return float(xp.stack([_power_sum(memory_order(g), q) for g in gradients]).sum()) ** (1 / q)


def _power_sum(g: Array, q: float) -> Array:
    """Σ|g_i|^q of a vector, in float64."""

    def task(s: slice) -> tuple[Array]:
        xp = array_module(g)
        a = scratch("optim.norm", g[s].shape, np.float64, like=g)
        xp.absolute(g[s], out=a)
        if q == 2:
            a *= a
        else:
            a **= q
        return (a.sum(),)

    return sum_slices(task, g, item_bytes=8 + g.itemsize)[0]


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
    gradients = _gradients(parameters)
    norm = _norm(gradients, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm_: the norm of the gradients is {norm}: the loss or a layer has overflowed")
    factor = float(max_norm) / (norm + 1e-6)
    if not factor >= 1:
        with single_threaded_blas(), np.errstate(invalid="ignore"):
            for g in gradients:
                _scale(g, factor)
    return norm


def _scale(g: Array, factor: float) -> None:
    rows = g if g.ndim else g.reshape(1)

    def task(s: slice) -> None:
        rows[s] *= factor

    each_slice(task, rows)


def clip_grad_value_(parameters: Any, clip_value: float) -> None:
    """Limit every entry of every gradient to [−clip_value, clip_value]; unlike `clip_grad_norm_` it turns directions.

    Raises:
        ValueError: ``clip_value`` is negative.
    """
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be at least 0, got {clip_value!r}")
    for g in _gradients(parameters):
        array_module(g).clip(g, -clip_value, clip_value, out=g)


def _gradients(source: Any) -> list[Array]:
    """Return the gradients of what is not frozen, each on its own or as runs of a flat buffer."""
    if isinstance(source, FlatParameters):
        return [source.grad[run] for run in source.runs([p for p in source.parameters if p.requires_grad])]
    return [p.grad for p in members_of(source, "clipping") if p.requires_grad and p.size]
