"""The losses of a network and of its auxiliary heads, added up.

A network with heads (`tinycnn.models.heads`) returns a tuple in training: its scores y, then those of the heads, aᵢ.
All are to say the same, so they are compared with the same targets, and the heads count w::

    L = ℓ(y) + w·Σᵢ ℓ(aᵢ)
    ∂L/∂y = ∂ℓ(y)/∂y,   ∂L/∂aᵢ = w·∂ℓ(aᵢ)/∂aᵢ

In evaluation there is y alone, and L = ℓ(y): a run's ``train_loss`` counts the heads, its ``val_loss`` does not.

Source: Szegedy et al. 2015, "Going deeper with convolutions", section 5, where w = 0.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ..backend import Array


def each_output(function: Callable[[Array], Array], outputs: Array) -> Array:
    """Return ``function(outputs)``, or of a tuple of outputs the tuple of what it gives of each."""
    return tuple(map(function, outputs)) if isinstance(outputs, tuple) else function(outputs)


def scores_of(outputs: Array) -> Array:
    """Return the network's own scores, without those of heads."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


class AuxiliaryLoss:
    """A loss for networks with auxiliary heads, made of one for networks without.

    Args:
        loss_fn: ℓ, any function of (logits, targets) that returns (loss, dlogits).
        weight: w, how much each head counts.

    Shape:
        a tuple of logits, the network's first -> loss, and the tuple of their gradients.  Logits that are no tuple,
        as in evaluation, -> what ``loss_fn`` returns.

    Raises:
        ValueError: the weight is no number from 0 on.

    >>> import numpy as np
    >>> from tinycnn import MSELoss
    >>> y, a = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    >>> loss, (dy, da) = AuxiliaryLoss(MSELoss(), weight=0.5)((y, a), np.array([1.0, 1.0]))
    >>> float(loss), dy.tolist(), da.tolist()
    (2.5, [0.0, 2.0], [0.5, 0.5])
    """

    def __init__(self, loss_fn: Callable[[Array, Array], tuple[Array, Array]], weight: float = 0.3) -> None:
        if not 0 <= weight < math.inf:
            raise ValueError(f"AuxiliaryLoss: weight must be a number from 0 on, got {weight!r}")
        self.loss_fn, self.weight = loss_fn, float(weight)

    def __call__(self, outputs: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, gradients), a gradient for every output."""
        if not isinstance(outputs, tuple):
            return self.loss_fn(outputs, targets)
        y, *heads = outputs
        loss, dy = self.loss_fn(y, targets)
        gradients = [dy]
        for a in heads:
            of_head, da = self.loss_fn(a, targets)
            w = da.dtype.type(self.weight)
            loss = loss + w * of_head
            gradients.append(w * da)
        return loss, tuple(gradients)

    def check(self) -> None:
        """Have ``loss_fn`` tell what it has noted about labels, if it does that (`CrossEntropyLoss.check`)."""
        check = getattr(self.loss_fn, "check", None)
        if callable(check):
            check()

    def __repr__(self) -> str:
        return f"AuxiliaryLoss({self.loss_fn!r}, weight={self.weight})"
