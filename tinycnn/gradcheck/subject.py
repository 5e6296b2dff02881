"""The layer under test, run from the very same state every time, and left as it was found."""

from __future__ import annotations

import random
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.random import Generator, RandomState, get_state, set_state

from ..backend import Array, array_module, is_device_array, to_numpy

INPUT = "x"
"""What the report calls the layer's input, beside its parameters' names."""


def is_array(thing: object) -> bool:
    """Whether ``thing`` is an array of either module."""
    return isinstance(thing, np.ndarray) or is_device_array(thing)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays hold the same numbers, nan in the same places included."""
    return bool(np.array_equal(to_numpy(a), to_numpy(b), equal_nan=a.dtype.kind in "fc"))


def copy(a: Array) -> Array:
    """Return a copy in the same memory order."""
    return array_module(a).array(a, copy=True, order="K")


def find_parameters(layer: Any) -> dict[str, Any]:
    """Return the layer's parameters by name.

    ``layer.parameters`` may be absent, a method or an attribute; a list of parameters, of (name, parameter)
    pairs, or a mapping.  A parameter is anything with arrays ``data`` and ``grad`` (which may start as None).

    Raises:
        TypeError: something else is found there.
    """
    found = getattr(layer, "parameters", ())
    found = found() if callable(found) else found
    named: dict[str, Any] = {INPUT: None}
    for key, item in found.items() if isinstance(found, Mapping) else enumerate(found or ()):
        is_pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        key, p = item if is_pair else (key, item)
        if not is_array(getattr(p, "data", None)) or is_array(p) or not hasattr(p, "grad"):
            raise TypeError(
                f"gradcheck: {type(layer).__name__}.parameters holds {type(p).__name__} {key!r}: "
                "a parameter is an object with arrays data and grad"
            )
        if any(p is other for other in named.values()):
            continue  # shared by two layers: its gradient is the sum of both
        name = key if isinstance(key, str) else str(getattr(p, "name", "") or f"parameter {key}")
        while name in named:
            name += "'"
        named[name] = p
    del named[INPUT]
    return named


class Snapshot:
    """The state of everything reachable from some objects, to be put back as often as wanted.

    Attributes, containers, the contents of arrays, NumPy generators, and the global generators of NumPy and
    Python.  No base class is asked for: a learner's own dropout draws the same mask again, and running
    statistics that no method admits to are put back too.
    """

    def __init__(self, *roots: Any) -> None:
        self.arrays: list[tuple[Array, Array]] = []
        self.dicts: list[tuple[dict, dict]] = []
        self.lists: list[tuple[list, list]] = []
        self.slots: list[tuple[Any, str, Any]] = []
        self.generators: list[tuple[Any, Any]] = []
        self.layers = [(r, r.random_state()) for r in roots if _has_random_state(r)]
        self.globals = random.getstate(), get_state()  # noqa: NPY002
        seen: dict[int, Any] = {}
        stack = list(roots)
        while stack:
            thing = stack.pop()
            if id(thing) not in seen and not _is_opaque(thing):
                seen[id(thing)] = thing  # kept alive, so that no id is used twice
                stack.extend(self._record(thing))

    def _record(self, thing: Any) -> Iterator[Any]:
        """Note the state of one object, and return what it refers to."""
        if is_array(thing):
            if getattr(thing.flags, "writeable", True):
                self.arrays.append((thing, copy(thing)))
        elif isinstance(thing, Generator):
            self.generators.append((thing.bit_generator, thing.bit_generator.state))
        elif isinstance(thing, RandomState):
            self.generators.append((thing, thing.get_state(legacy=False)))
        elif isinstance(thing, dict):
            self.dicts.append((thing, dict(thing)))
            yield from thing.values()
        elif isinstance(thing, list):
            self.lists.append((thing, list(thing)))
            yield from thing
        elif isinstance(thing, tuple | set | frozenset):
            yield from thing
        else:
            yield from self._record_attributes(thing)

    def _record_attributes(self, thing: Any) -> Iterator[Any]:
        if hasattr(thing, "__dict__"):
            self.dicts.append((vars(thing), dict(vars(thing))))
            yield from list(vars(thing).values())
        for cls in type(thing).__mro__:
            names = cls.__dict__.get("__slots__", ())
            for name in (names,) if isinstance(names, str) else names:
                if hasattr(thing, name) and name not in ("__dict__", "__weakref__"):
                    self.slots.append((thing, name, getattr(thing, name)))
                    yield getattr(thing, name)

    def restore(self) -> None:
        """Put everything back."""
        for own, saved in self.dicts:
            own.clear()
            own.update(saved)
        for items, saved_items in self.lists:
            items[:] = saved_items
        for thing, name, value in self.slots:
            object.__setattr__(thing, name, value)
        for array, contents in self.arrays:
            array[...] = contents
        self.restore_random()

    def restore_random(self) -> None:
        """Put back the random generators alone."""
        for generator, state in self.generators:
            if isinstance(generator, RandomState):
                generator.set_state(state)
            else:
                generator.state = state
        random.setstate(self.globals[0])
        set_state(self.globals[1])  # noqa: NPY002
        for layer, position in self.layers:
            layer.set_random_state(position)


def _has_random_state(thing: Any) -> bool:
    return callable(getattr(thing, "random_state", None)) and callable(getattr(thing, "set_random_state", None))


def _is_opaque(thing: Any) -> bool:
    """Whether an object is left alone: code, plain values, and what the standard library made (locks, pools)."""
    plain = (dict, list, tuple, set, frozenset, types.SimpleNamespace)
    if isinstance(thing, plain) or is_array(thing):
        return False
    if isinstance(thing, Generator | RandomState):
        return False
    room = type(thing).__module__.partition(".")[0]
    return isinstance(thing, type) or room in sys.stdlib_module_names or room in ("numpy", "cupy")


class Subject:
    """A layer and the point x at which it is checked.

    Attributes:
        values: what each tensor holds at that point, by name: the input and every parameter.
        mutated: names of what a forward or backward has changed that was not its own.
    """

    def __init__(self, layer: Any, x: Array) -> None:
        self.layer = layer
        self.parameters = find_parameters(layer)
        self.values = {INPUT: copy(x)} | {name: copy(p.data) for name, p in self.parameters.items()}
        self.snapshot = Snapshot(layer, self.parameters)
        self.mutated: set[str] = set()

    def is_frozen(self, name: str) -> bool:
        """Whether the layer is excused from computing this gradient."""
        if name == INPUT:
            return not getattr(self.layer, "needs_dx", True)
        return not getattr(self.parameters[name], "requires_grad", True)

    def forward(self, name: str = INPUT, value: Array | None = None) -> Array:
        """Return y, with the tensor ``name`` holding ``value`` instead."""
        self.snapshot.restore()
        x = self.values[INPUT]
        if name != INPUT:
            p = self.parameters[name]
            if value is not None and value.dtype != p.data.dtype:
                p.data = value  # complex
            elif value is not None:
                p.data[...] = value
        elif value is not None:
            x = value
        return self._run(copy(x))

    def branches(self) -> list[Array]:
        """Return the choices of the last forward at kinks, if the layer tells them."""
        method = getattr(self.layer, "branches", None)
        return [copy(branch) for branch in method()] if callable(method) else []

    def backward(self, dy: Array, start: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Return every gradient for the cotangent ``dy``, after a forward of its own.

        Args:
            dy: the cotangent.
            start: what the parameters' gradients hold before; zeros by default.
        """
        self.snapshot.restore()
        return self._both(self.values[INPUT], dy, start or {})

    def backward_after_another(self, dy: Array, other: Array) -> dict[str, Array]:
        """Return every gradient for ``dy``, right after a forward and backward on other numbers.

        Nothing but the random generators is put back in between.
        """
        self.snapshot.restore()
        x = self.values[INPUT]
        self._both(x[::-1] if x.ndim else x, other, {})
        self.snapshot.restore_random()
        return self._both(x, dy, {})

    def _both(self, x: Array, dy: Array, start: Mapping[str, Array]) -> dict[str, Array]:
        for name, p in self.parameters.items():
            zeros = array_module(p.data).zeros_like(p.data)
            if is_array(p.grad) and p.grad.shape == p.data.shape:
                p.grad[...] = start.get(name, zeros)
            else:
                p.grad = copy(start.get(name, zeros))
        own_x, own_dy = copy(x), copy(dy)
        self._run(own_x)
        gradients = {INPUT: self.layer.backward(own_dy)} | {name: p.grad for name, p in self.parameters.items()}
        now = {INPUT: own_x, "dy": own_dy} | {name: p.data for name, p in self.parameters.items()}
        before = self.values | {INPUT: x, "dy": dy}
        self.mutated |= {name for name, value in now.items() if not same_bits(value, before[name])}
        return {name: copy(g) if is_array(g) else g for name, g in gradients.items()}

    def _run(self, x: Array) -> Array:
        y = self.layer(x) if callable(self.layer) else self.layer.forward(x)
        return np.asarray(y) if isinstance(y, float | np.floating) else y
