"""What decides what a training step does, to be compared before the step is replayed.

A captured step (`captured.CapturedStep`) does what it did when it was captured.  `Facts` notes what that depended on:
every layer's plain attributes, arrays, parameters and children, those of the loss, and whatever else it is given.
Arrays must be the very same, since a graph knows addresses; other things must be equal.  An attribute that begins with
an underscore and is neither plain nor an array is taken for something remembered, that decides nothing.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from ..layers.base import Layer
from ..parameter import Parameter

PLAIN = (type(None), bool, int, float, complex, str, bytes)
GONE = object()
"""In place of an attribute that is not there."""
METHODS = ("forward", "backward")
"""Of the class; one among an object's own attributes has been put there to watch it."""
SWITCHES = ("training", "saving", "needs_dx", "reached")
IGNORED = (*SWITCHES, "_saved", "_children", "_parameters", "_buffers")
"""What is looked at apart (the class may have it), and what passes from forward to backward."""


class Fact(NamedTuple):
    """One attribute: whose it is, where it is stored, and what it was."""

    owner: Any
    store: Mapping[str, Any]
    name: str
    value: Any


class Facts:
    """What a step of ``model`` depends on, as it is now.

    Args:
        model: the network.
        loss_fn: its loss.
        others: by name, functions that return further values.
    """

    def __init__(self, model: Layer, loss_fn: Any, others: Mapping[str, Callable[[], Any]]) -> None:
        self._model, self._others = model, [(name, ask, ask()) for name, ask in others.items()]
        layers = list(model.layers())
        self._facts = [fact for layer in layers for fact in _facts(layer)]
        while hasattr(loss_fn, "__dict__"):
            self._facts += _facts(loss_fn)
            loss_fn = getattr(loss_fn, "loss_fn", None)  # `AuxiliaryLoss` is made of another
        self._switches = [(layer, _switches(layer)) for layer in layers]
        self._parts = [(layer, parts, list(parts.values())) for layer in layers for parts in _parts(layer)]
        self._parameters = [(p, p.data, p._grad, p.requires_grad) for p in model.parameters()]

    def hold(self) -> bool:
        """Whether all is as it was."""
        return next(self._differences(), None) is None

    def difference(self) -> str | None:
        """Return the first thing that has changed, in words."""
        return next(self._differences(), None)

    def _differences(self) -> Iterator[str]:
        for owner, store, name, value in self._facts:
            now = store.get(name, GONE)
            if now is not value and not same(now, value):
                yield f"{name} of {owner}"
        for layer, switches in self._switches:
            if _switches(layer) != switches:
                yield f"training, or who needs gradients, of {layer}"
        for layer, parts, before in self._parts:
            if len(parts) != len(before) or any(a is not b for a, b in zip(parts.values(), before, strict=True)):
                yield f"what {layer} is made of"
        for p, data, grad, trained in self._parameters:
            if p.data is not data or p._grad is not grad or p.requires_grad is not trained:
                yield f"{p.name or 'a parameter'}"
        for name, ask, value in self._others:
            if not same(ask(), value):
                yield name


def _facts(owner: Any) -> Iterator[Fact]:
    store = vars(owner)
    for name, value in store.items():
        if name not in IGNORED and _decides(name, value):
            yield Fact(owner, store, name, list(value) if isinstance(value, list) else value)
    for name in METHODS:
        if isinstance(owner, Layer) and name not in store:
            yield Fact(owner, store, name, GONE)
    if hasattr(owner, "stream"):
        yield Fact(owner, vars(owner.stream), "place", owner.stream.place)


def _decides(name: str, value: Any) -> bool:
    """Whether an attribute may decide what a step does."""
    if isinstance(value, dict):
        return False
    return not name.startswith("_") or isinstance(value, (*PLAIN, Parameter, Layer)) or hasattr(value, "dtype")


_switches = operator.attrgetter(*SWITCHES)


def _parts(layer: Layer) -> tuple[Mapping[str, Any], ...]:
    return layer._children, layer._parameters, layer._buffers


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same for a graph: one object, equal numbers or words, or lists of such."""
    if a is b:
        return True
    if type(a) is not type(b) or hasattr(a, "__array_interface__") or hasattr(a, "__cuda_array_interface__"):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)
