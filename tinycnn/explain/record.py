"""Listening to every layer of a network while one image goes through it and its gradient comes back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..layers.base import Layer
from ..layers.batchnorm import BatchNorm2d
from ..layers.pool import MaxPool2d
from ..layers.watch import restored


@dataclass(eq=False)
class Visit:
    """What one layer received and returned in one pass; copies, in the order of the shape.

    Attributes:
        x, y: input and output; of a network with auxiliary heads, y is the main output.
        shortcut: what a `BatchNormReLU2d` at the end of a block added; None elsewhere.
        dy, dx: dL/dy and dL/dx; None where no gradient came, or where the layer around it added it up in place.
        dshortcut: dL/d(shortcut).
        gradients: of the layer's own parameters, by name.
        facts: what it chose on the way: ``winners`` of a maximum, ``mean`` and ``inv_std`` of a normalisation.
    """

    x: np.ndarray
    y: np.ndarray
    shortcut: np.ndarray | None = None
    dy: np.ndarray | None = None
    dx: np.ndarray | None = None
    dshortcut: np.ndarray | None = None
    gradients: dict[str, np.ndarray] = field(default_factory=dict)
    facts: dict[str, np.ndarray] = field(default_factory=dict)


def record(model: Layer, x: Array, gradient: Callable[[Any], Any]) -> dict[Layer, Visit]:
    """Send ``x`` forward and a gradient back, in the model's present mode, and return what every layer saw.

    Running statistics, random streams and switches are put back in the end, so that a second call draws the same
    masks; the parameters' gradients are afterwards those of this pass.

    Args:
        model: any layer.
        x: its input.
        gradient: from the model's output to the gradient that is sent back, dL/dy.

    Returns:
        Visits in the order in which layers finished their forward, inner ones before those they belong to; layers
        that took no part are absent.

    Raises:
        LayerError: the model cannot take x.
    """
    visits: dict[Layer, Visit] = {}
    model.zero_grad()
    needed = model.needs_dx
    with restored(model), _listening(model, visits):
        model.set_saving(True).require_dx()
        model.backward(gradient(model.forward(x)))
    model.require_dx(needed)
    for layer, visit in visits.items():
        visit.gradients = {name: _copy(p.grad) for name, p in layer._parameters.items()}
    return visits


@contextmanager
def _listening(model: Layer, visits: dict[Layer, Visit]) -> Iterator[None]:
    layers = list(model.layers())
    for layer in layers:
        _listen(layer, visits)
    try:
        yield
    finally:
        for layer in layers:
            del layer.__dict__["forward"], layer.__dict__["backward"]


def _listen(layer: Layer, visits: dict[Layer, Visit]) -> None:
    """Put functions that note what goes through in the place of ``layer``'s two."""
    forward, backward = layer.forward, layer.backward

    def noting_forward(x: Array, *others: Any, **options: Any) -> Any:
        given = _copy(x)  # before anybody can change it
        y = forward(x, *others, **options)
        shortcut = others[0] if isinstance(layer, BatchNorm2d) and len(others) == 1 else None
        visit = Visit(given, _copy(_first(y)), None if shortcut is None else _copy(shortcut), facts=_facts(layer))
        known = visits.setdefault(layer, visit)  # `Checkpointed` does it twice, to the same bits
        known.facts = known.facts or visit.facts  # and saves what was chosen only the second time
        return y

    def noting_backward(dy: Array, *others: Any, **options: Any) -> Any:
        visit = visits[layer]
        visit.dy = _copy(_first(dy))
        dx = backward(dy, *others, **options)
        both = dx if isinstance(dx, tuple) else (dx, None)
        if others:  # it was to add to what there was
            both = (None, None)
        visit.dx, visit.dshortcut = (None if d is None else _copy(d) for d in both)
        return dx

    layer.__dict__["forward"], layer.__dict__["backward"] = noting_forward, noting_backward


def _facts(layer: Layer) -> dict[str, np.ndarray]:
    """What the last forward chose."""
    saved = layer._saved
    if saved is None:
        return {}
    if isinstance(layer, MaxPool2d):
        return {"winners": _copy(saved[0].transpose(0, 3, 1, 2))}  # (N, OH, OW, C) -> (N, C, OH, OW)
    if isinstance(layer, BatchNorm2d):
        _, mean, inv_std = saved[1]
        return {"mean": _copy(mean), "inv_std": _copy(inv_std)}
    return {}


def _first(y: Any) -> Array:
    return y[0] if isinstance(y, tuple) else y


def _copy(a: Array) -> np.ndarray:
    return np.array(to_numpy(a), order="C")
