"""``steps --profile``: where a training step of ours spends its time, layer by layer."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import tinycnn
from tinycnn import Layer

from .networks import NETS
from .report import Column, Table
from .training import Ours

STEPS = 5
LEAST = 0.005
"""Layers with a smaller share are left out of the table of layers."""
TIMES = [
    Column("forward", "forward ms", "two"),
    Column("backward", "backward ms", "two"),
    Column("share", "share of the step", "share"),
]


class Clock:
    """Seconds spent in each of several nested activities, time spent in inner ones not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, str], float] = defaultdict(float)
        self._stack: list[tuple[str, str]] = []
        self._mark = 0.0

    def _lap(self) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._mark
        self._mark = now

    def timed(self, key: tuple[str, str], task: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``task``, timed under ``key``."""

        def wrapper(*arguments: Any) -> Any:
            self._lap()
            self._stack.append(key)
            try:
                return task(*arguments)
            finally:
                self._lap()
                self._stack.pop()

        return wrapper


def algorithm_of(layer: Layer, shape: tuple[int, ...]) -> str:
    """Return how the layer computes on an input of this shape, if it has a choice."""
    return layer.chosen_algorithm(shape) if isinstance(layer, tinycnn.Conv2d) else ""


def tables(name: str, N: int) -> list[Table]:
    """Return the profile of a step, by kind of layer and by layer: the mean of some steps after two that warm up."""
    ours = Ours(name, N)
    clock = Clock()
    inputs: dict[str, tuple[int, ...]] = {}
    for path, layer in ours.model.named_layers():
        _watch(path, layer, clock, inputs)
    ours.optimizer.step = clock.timed(("optimizer.step", ""), ours.optimizer.step)  # type: ignore[method-assign]
    step = clock.timed(("zero_grad, loss", ""), ours.step)
    for _ in range(2):
        step()
    clock.seconds.clear()
    for _ in range(STEPS):
        step()
    title = f"{NETS[name].title}, batch {N}: where the time goes"
    return [_by_kind(ours.model, clock, title, name), _by_layer(ours.model, clock, title, name, inputs)]


def _watch(path: str, layer: Layer, clock: Clock, inputs: dict[str, tuple[int, ...]]) -> None:
    """Let the layer's two passes be timed; an attribute of the object hides the method of its class."""
    forward = clock.timed((path, "forward"), layer.forward)

    def noted(x: Any, *others: Any) -> Any:
        inputs[path] = tuple(x.shape)
        return forward(x, *others)

    layer.__dict__.update(forward=noted, backward=clock.timed((path, "backward"), layer.backward))


def _kinds(model: Layer) -> dict[str, str]:
    """Return what each path is called in the table of kinds; containers, whose work is in their children, are one."""
    layers = dict(model.named_layers())
    return {path: "(containers)" if any(layer.children()) else type(layer).__name__ for path, layer in layers.items()}


def _by_kind(model: Layer, clock: Clock, title: str, name: str) -> Table:
    kinds = _kinds(model)
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for (path, what), spent in clock.seconds.items():
        seconds[kinds.get(path, path)][what] += spent
    total = sum(clock.seconds.values())
    result = Table(f"profile_{name}_kinds", f"{title}, by kind", [Column("kind", "kind"), *TIMES])
    for kind, times in sorted(seconds.items(), key=lambda item: -sum(item[1].values())):
        result.add(kind=kind, **_times(times, total))
    return result


def _by_layer(model: Layer, clock: Clock, title: str, name: str, inputs: dict[str, tuple[int, ...]]) -> Table:
    total = sum(clock.seconds.values())
    result = Table(
        f"profile_{name}",
        f"{title}, by layer",
        [Column("path", "layer"), Column("layer", ""), Column("algorithm", "algorithm"), *TIMES],
    )
    for path, layer in model.named_layers():
        spent = {what: clock.seconds.get((path, what), 0.0) for what in ("forward", "backward")}
        if not any(layer.children()) and sum(spent.values()) >= LEAST * total:
            algorithm = algorithm_of(layer, inputs[path])
            result.add(path=path, layer=repr(layer), algorithm=algorithm, **_times(spent, total))
    return result


def _times(spent: dict[str, float], total: float) -> dict[str, float | None]:
    times = {what: 1e3 * spent[what] / STEPS if what in spent else None for what in ("forward", "backward")}
    return {**times, "share": sum(spent.values()) / total}
