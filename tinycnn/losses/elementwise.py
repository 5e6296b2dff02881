"""Losses of single numbers, added up: squared error, and yes or no."""

from __future__ import annotations

from ..backend import Array
from ..kernels.loss import Reduction, binary_cross_entropy, squared_error
from .base import Loss


class MSELoss(Loss):
    """Squared error (x − t)² of every element; the mean is over all elements, not over the items.

        ∂(x − t)²/∂x = 2·(x − t)

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Shape:
        logits and targets alike, any shape.

    Raises:
        ValueError: shapes differ.

    >>> import numpy as np
    >>> MSELoss()(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    (np.float64(2.0), array([0., 2.]))
    """

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        return squared_error(logits, self.same_shape(logits, targets), self.reduction, self.grad_scale)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of independent yes/no questions, each logit x with its target t in [0, 1].

    With σ(x) = 1/(1 + exp(−x)), the probability of yes, and softplus(x) = log(1 + exp x) = −log σ(−x)::

        loss = −[r·t·log σ(x) + (1 − t)·log(1 − σ(x))] = (1 − t)·softplus(x) + r·t·softplus(−x)
        ∂loss/∂x = (1 − t)·σ(x) − r·t·σ(−x)                 (as softplus' = σ)

    where r is ``pos_weight``.  For r = 1 the gradient is σ(x) − t: again **p − y**.  Stable, because
    softplus(x) = max(x, 0) + log1p(exp(−|x|)) never meets a large exponential, and because no two large terms
    are subtracted from each other.

    Args:
        weight: multiplies the loss of every element; broadcast to the logits.
        reduction: ``'mean'`` (over all elements, whatever their weights), ``'sum'`` or ``'none'``.
        pos_weight: r, how much a yes counts; broadcast to the logits, so (C,) for logits (N, C).

    Shape:
        logits and targets alike, any shape.

    Raises:
        ValueError: shapes that do not fit.

    >>> import numpy as np
    >>> loss, dx = BCEWithLogitsLoss()(np.array([0.0, 0.0]), np.array([1.0, 0.0]))
    >>> print(round(float(loss), 4), dx)  # log 2; (σ − t)/2
    0.6931 [-0.25  0.25]
    """

    def __init__(
        self, weight: Array | None = None, reduction: Reduction = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        t, x = self.same_shape(logits, targets), logits
        weights = self._broadcast("weight", x), self._broadcast("pos_weight", x)
        return binary_cross_entropy(x, t, *weights, self.reduction, self.grad_scale)

    def _broadcast(self, name: str, x: Array) -> Array | None:
        """The option ``name`` in the dtype and on the device of x."""
        if getattr(self, name) is None:
            return None
        value = self.option(name, x)
        shape, axes = tuple(value.shape), min(value.ndim, x.ndim)
        fits = value.ndim <= x.ndim and all(a in (1, b) for a, b in zip(shape, x.shape[x.ndim - axes :], strict=True))
        if not fits:
            raise ValueError(f"BCEWithLogitsLoss: {name} {shape} does not broadcast to logits {tuple(x.shape)}")
        return value
