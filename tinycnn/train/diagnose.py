"""When a loss becomes infinite or not a number: where did that begin?"""

from __future__ import annotations

import numpy as np

from ..backend import Array
from ..kernels.finite import all_finite
from ..layers.base import Layer
from ..layers.watch import restored, watched


class NonFiniteError(ArithmeticError):
    """Training or evaluation met an infinite loss, or one that is not a number.

    Attributes:
        what: what was seen, and when: ``loss became nan at epoch 2, batch 17``.
        where: where it began, see `diagnose`; None if that cannot be told.
    """

    def __init__(self, what: str, where: str | None) -> None:
        super().__init__(f"{what}: first non-finite value in {where}" if where else what)
        self.what, self.where = what, where


def check_labels(loss_fn: object) -> None:
    """Ask a loss whose labels were looked at on a GPU (`CrossEntropyLoss.check`) whether they were all right.

    Raises:
        ValueError: they were not.
    """
    check = getattr(loss_fn, "check", None)
    if callable(check):
        check()


def diagnose(model: Layer, x: Array | None = None) -> str | None:
    """Return in words where the first non-finite value is, or None if there is none.

    Looked at in this order, which is the order of causes: the images; the gradients of the update before, from
    the output back, and the parameters (only if a parameter is not finite, since gradients alone do no harm);
    the output of every layer as `find_non_finite` sees it; and if all of these are finite, the loss itself.

    Args:
        model: the network, with the gradients that the last update used.
        x: the batch whose loss is not finite; without one only parameters are looked at.
    """
    if x is not None and not is_finite(x):
        return "the images of this batch"
    if bad := [p for p in model.parameters() if not is_finite(p.data)]:
        for p in reversed(list(model.parameters())):  # backward's order
            if not is_finite(p.grad):
                return f"the gradient of {p.name}, in the update before"
        return f"the parameter {bad[0].name}, after the update before"
    if x is None:
        return None
    return find_non_finite(model, x) or "the loss itself: every layer's output is finite"


def find_non_finite(model: Layer, x: Array) -> str | None:
    """Send ``x`` through the network and return the first layer, in order of execution, whose output is not finite.

    The network is left as it was: mode, running statistics and random streams.

    Returns:
        ``"the output of layer1.0.bn2 (BatchNorm2d(16))"``, or None if every output is finite.
    """
    found: list[str] = []

    def look(layer: Layer, x: Array, y: Array) -> None:
        if not found and not all(map(is_finite, y if isinstance(y, tuple) else [y])):
            is_leaf = not list(layer.children())
            found.append(f"the output of {str(layer) if is_leaf else layer.path or 'the network'}")

    with restored(model), watched(model, look), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model.set_saving(False).forward(x)
    return found[0] if found else None


def is_finite(x: Array) -> bool:
    """Whether no value of ``x`` is infinite or not a number."""
    return bool(all_finite(x))
