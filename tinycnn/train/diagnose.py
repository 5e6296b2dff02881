"""When a loss becomes infinite or not a number: where did that begin?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..backend import Array, array_module
from ..layers.base import Layer


class NonFiniteError(ArithmeticError):
    """Training or evaluation met an infinite loss, or one that is not a number.

    Attributes:
        what: what was seen, and when: ``loss became nan at epoch 2, batch 17``.
        where: where it began, see `diagnose`; None if that cannot be told.
    """

    def __init__(self, what: str, where: str | None) -> None:
        super().__init__(f"{what}: first non-finite value in {where}" if where else what)
        self.what, self.where = what, where


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
    buffers = {name: value.copy() for name, value in model.named_buffers()}
    streams = model.random_state()
    modes = [(layer, layer.saving) for layer in model.layers()]
    model.set_saving(False)
    try:
        with _watched(model, found), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            model.forward(x)
    finally:
        for layer, saving in modes:
            layer.saving = saving
        model.set_random_state(streams)
        for name, value in model.named_buffers():
            value[...] = buffers[name]
    return found[0] if found else None


@contextmanager
def _watched(model: Layer, found: list[str]) -> Iterator[None]:
    """Let every layer note in ``found`` when its output is not finite; inner layers finish before outer ones."""
    layers = list(model.layers())

    def watch(layer: Layer) -> None:
        forward = layer.forward

        def forward_and_look(x: Array) -> Array:
            y = forward(x)
            if not found and not is_finite(y):
                name = str(layer) if not list(layer.children()) else layer.path or "the network"
                found.append(f"the output of {name}")
            return y

        layer.__dict__["forward"] = forward_and_look

    for layer in layers:
        watch(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"]


def is_finite(x: Array) -> bool:
    """Whether no value of ``x`` is infinite or not a number."""
    return bool(array_module(x).isfinite(x).all())
