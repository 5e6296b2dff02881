"""Losses and their gradients: the formulas of `tinycnn.losses`, which derives them.

All return (loss, dx), and take

- ``reduction``: ``'mean'``, ``'sum'`` or ``'none'``; the gradient is that of the number returned, or of the sum;
- ``scale``: (), what the gradient is multiplied by, and the loss is not; or None.
"""

from __future__ import annotations

import functools
from typing import Literal, TypeAlias

import numpy as np

from ..backend import Array
from .cuda import twin

Reduction: TypeAlias = Literal["mean", "sum", "none"]


@twin("loss")
def cross_entropy(
    x: Array,
    targets: Array,
    weight: Array | None,
    ignore_index: int,
    smoothing: float,
    reduction: Reduction,
    scale: Array | None,
    outside: Array | None,
) -> tuple[Array, Array]:
    """Return loss and gradient, equations (1) and (2), of logits ``x`` (M, C).

    Args:
        x, targets: one row for each item: labels (M,), or probabilities (M, C).
        weight: (C,), of the classes.
        ignore_index, smoothing, reduction: as for `CrossEntropyLoss`.
        scale: what the gradient is multiplied by.
        outside: where a GPU notes a label that is no class, see `CrossEntropyLoss.check`; here they have been checked.
    """
    w = np.ones(x.shape[1], x.dtype) if weight is None else weight
    weigh = _soft_targets if targets.dtype.kind == "f" else functools.partial(_labels, ignore_index=ignore_index)
    q, total = weigh(targets, x, w, smoothing)
    z = x - x.max(axis=1, keepdims=True)
    logp = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    losses = -(q * np.where(q != 0, logp, 0)).sum(axis=1)  # (1); 0·(−∞) is 0 here
    dx = np.exp(logp) * q.sum(axis=1, keepdims=True) - q  # (2)
    loss = losses if reduction == "none" else losses.sum()
    if reduction == "mean":
        dx /= total + (total == 0)  # where nothing counts, q and with it dx are 0 already
        with np.errstate(invalid="ignore"):
            loss = loss / total
    return loss, dx if scale is None else dx * scale


def _labels(y: Array, x: Array, w: Array, smoothing: float, ignore_index: int) -> tuple[Array, Array]:
    """q (M, C) of the labels (M,), and what a mean divides by."""
    y = y.astype(np.int64, copy=False)
    counted = y != ignore_index
    y = np.where(counted, y, 0)
    q = np.zeros_like(x)
    q[np.arange(len(y)), y] = 1 - smoothing
    q += smoothing / x.shape[1]
    q *= w * counted[:, None]
    return q, (w[y] * counted).sum()


def _soft_targets(t: Array, x: Array, w: Array, smoothing: float) -> tuple[Array, Array]:
    """q (M, C) of the probabilities t (M, C), and what a mean divides by."""
    q = t.astype(x.dtype, copy=False) * (1 - smoothing) + smoothing / x.shape[1]
    return q * w, np.asarray(len(x), x.dtype)


@twin("loss")
def squared_error(x: Array, t: Array, reduction: Reduction, scale: Array | None) -> tuple[Array, Array]:
    """Return (loss, dx) of (x − t)²."""
    difference = x - t
    return reduced(difference * difference, 2 * difference, reduction, scale)


@twin("loss")
def binary_cross_entropy(
    x: Array, t: Array, weight: Array | None, pos_weight: Array | None, reduction: Reduction, scale: Array | None
) -> tuple[Array, Array]:
    """Return (loss, dx), as `BCEWithLogitsLoss` derives them."""
    one = x.dtype.type(1)
    e = np.exp(-np.abs(x))
    tail = np.log1p(e)  # softplus(−|x|)
    high, low = 1 / (1 + e), e / (1 + e)  # σ(|x|), σ(−|x|)
    yes, no = t * (one if pos_weight is None else pos_weight), 1 - t
    losses = no * (np.maximum(x, 0) + tail) + yes * (np.maximum(-x, 0) + tail)
    grad = no * np.where(x > 0, high, low) - yes * np.where(x > 0, low, high)
    w = one if weight is None else weight
    return reduced(losses * w, grad * w, reduction, scale)


def reduced(losses: Array, grad: Array, reduction: Reduction, scale: Array | None) -> tuple[Array, Array]:
    """Return the sum or the plain mean of ``losses``, and its gradient given that of the sum, times ``scale``."""
    if reduction == "none":
        loss = losses
    elif reduction == "sum":
        loss = losses.sum()
    else:
        with np.errstate(invalid="ignore"):  # the mean of nothing is nan
            loss, grad = losses.sum() / losses.dtype.type(losses.size), grad / grad.dtype.type(losses.size)
    return loss, grad if scale is None else grad * scale
