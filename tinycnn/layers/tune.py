"""Which algorithm computes each convolution of a network: read, restored, or chosen by measurement.

Left alone, every `Conv2d` takes the algorithm that a rule predicts to be the fastest (`tinycnn.kernels.conv.plan`): the
same everywhere, so that the same run has the same bits.  `tune` asks this machine instead.  Its answer depends on the
machine, on the number of threads and on the moment; whoever wants the same bits again keeps it, and gives it back
with `set_algorithms`, as ``tinycnn train --tune`` does.

On a GPU each pass is timed by itself, and answers are remembered (`tinycnn.kernels.cuda.measured`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from ..backend import Array, array_module, is_device_array
from ..kernels.conv import plan
from ..kernels.cuda import measured, routes
from ..messages import nearest, some
from .base import Layer, LayerError
from .conv import Conv2d, conv2d_backward, conv2d_forward, is_algorithm
from .watch import restored, watched

SHORT = 2e-3
"""Seconds.  What takes less is timed several times in a row, so that the clock's grain and a thread's start drown."""


def convolutions(model: Layer) -> dict[str, Conv2d]:
    """Return every `Conv2d` of the model by its path, as in the state dict."""
    return {path: layer for path, layer in model._walk("") if isinstance(layer, Conv2d)}


def algorithms(model: Layer) -> dict[str, str]:
    """Return the algorithm of every convolution by its path; ``'auto'`` where the rule decides.

    >>> from tinycnn import Conv2d, ReLU, Sequential
    >>> algorithms(Sequential(Conv2d(3, 8, 3), ReLU(), Conv2d(8, 8, 3, algorithm="winograd2")))
    {'0': 'auto', '2': 'winograd2'}
    """
    return {path: conv.algorithm for path, conv in convolutions(model).items()}


def set_algorithms(model: Layer, mapping: Mapping[str, str]) -> None:
    """Give convolutions their algorithms, as `algorithms` and `tune` return them; others keep what they have.

    Raises:
        LayerError: a path at which the model has no convolution, or an unknown algorithm; nothing is changed then.

    >>> from tinycnn import Conv2d, Sequential
    >>> model = Sequential(Conv2d(3, 8, 3))
    >>> set_algorithms(model, {"0": "winograd2"})
    >>> algorithms(model)
    {'0': 'winograd2'}
    """
    known = convolutions(model)
    for path, name in mapping.items():
        if path not in known:
            raise LayerError(
                f"{model}: no convolution at {path!r}{nearest(path, known)} (it has them at {some(known)})"
            )
        if not is_algorithm(name):
            names = ("auto", *dict.fromkeys([*plan.ALGORITHMS, *routes.ROUTES]))
            raise LayerError(
                f"{known[path]}: unknown algorithm {name!r}{nearest(name, names)} (known: {some(names, 9)})"
            )
    for path, name in mapping.items():
        known[path].algorithm = name


class Use(NamedTuple):
    """What is asked of a convolution: its sizes, and which results.  Equal ones get one answer."""

    problem: plan.Problem
    dtype: np.dtype
    reached: bool
    need_dx: bool
    need_dw: bool

    @property
    def passes(self) -> list[str]:
        """The passes, as a GPU names them."""
        wanted = {"forward": True, "dx": self.reached and self.need_dx, "dw": self.reached and self.need_dw}
        return [name for name, needed in wanted.items() if needed]


def tune(
    model: Layer,
    input_shape: tuple[int, ...],
    *,
    names: Iterable[str] | None = None,
    repeats: int = 7,
    progress: Callable[[int, int], None] | None = None,
    dtype: np.typing.DTypeLike | None = None,
    fresh: bool = False,
) -> dict[str, str]:
    """Time the algorithms of every convolution, at the sizes it has in the network, and set the fastest.

    Forward and backward are timed together, on random numbers, the algorithms taking turns; medians are compared.
    What backward has to return is as in the network (`Layer.require_dx`, frozen parameters).  On a GPU every pass gets
    an answer of its own, which is looked up in the user's cache directory if it is there.

    Args:
        model: the network; nothing else of it changes, but for what an earlier forward saved for its backward.
        input_shape: (N, C, H, W), with the batch that it will be trained with.
        names: the algorithms to try; on a GPU, routes.  By default all, but on a CPU for layers in float64 im2col
            alone, the exact way.
        repeats: timings of each.
        progress: called with the number of timed problems and of all of them, first with 0.
        dtype: of the input; by default the parameters'.
        fresh: whether to time again what a GPU has been timed for before.

    Returns:
        The algorithm of every convolution by its path, for `set_algorithms`.

    Raises:
        LayerError: the model cannot take this shape, or a name is unknown.

    >>> from tinycnn import Conv2d, Sequential
    >>> model = Sequential(Conv2d(3, 8, 3))
    >>> found = tune(model, (2, 3, 8, 8), repeats=1)
    >>> found == algorithms(model), list(found)
    (True, ['0'])
    """
    uses = _uses(model, input_shape, dtype)
    convs, distinct = convolutions(model), dict.fromkeys(uses.values())
    tried = None if names is None else tuple(names)
    known = routes.ROUTES if any(is_device_array(conv.weight.data) for conv in convs.values()) else plan.ALGORITHMS
    for name in tried or ():
        if name not in known:
            raise LayerError(f"tune: unknown algorithm {name!r}{nearest(name, known)}")
    answers: dict[Use, str] = {}
    tell = progress or (lambda done, total: None)
    tell(0, len(distinct))
    for path, use in uses.items():
        if use not in answers:
            answers[use] = _fastest(use, convs[path].weight.data, tried, repeats, fresh)
            tell(len(answers), len(distinct))
    chosen = {path: answers[use] for path, use in uses.items()}
    set_algorithms(model, chosen)
    return chosen


def _uses(model: Layer, input_shape: tuple[int, ...], dtype: np.typing.DTypeLike | None) -> dict[str, Use]:
    """Return what is asked of each convolution, by sending zeros of ``input_shape`` through the model."""
    inputs: dict[Layer, tuple[tuple[int, ...], np.dtype]] = {}
    first = next(model.parameters(), None)
    xp, own = (np, np.dtype("float32")) if first is None else (array_module(first.data), first.dtype)
    with restored(model), watched(model.eval(), lambda layer, x, y: inputs.update({layer: (tuple(x.shape), x.dtype)})):
        model.forward(xp.zeros(input_shape, own if dtype is None else dtype))
    return {path: _use(conv, *inputs[conv]) for path, conv in convolutions(model).items() if conv in inputs}


def _use(conv: Conv2d, shape: tuple[int, ...], dtype: np.dtype) -> Use:
    return Use(conv.problem(shape), dtype, conv.reached, conv.needs_dx, conv.weight.requires_grad)


def _fastest(use: Use, w: Array, names: tuple[str, ...] | None, repeats: int, fresh: bool) -> str:
    if is_device_array(w):
        return measured.fastest(use.problem, w, use.dtype, use.passes, names, repeats, fresh).algorithm
    if names is None:
        names = ("im2col",) if use.dtype == np.float64 else plan.ALGORITHMS
    able = [name for name in names if plan.supports(name, use.problem)]
    if len(able) < 2:
        return able[0] if able else "im2col"
    times = measure(use, w, able, repeats)
    return min(able, key=lambda name: statistics.median(times[name]))


def measure(use: Use, w: Array, names: Iterable[str], repeats: int) -> dict[str, list[float]]:
    """Return so many times of a forward and backward with each algorithm, in seconds; they take turns."""
    step, names = _step(use, w), list(names)
    calls: dict[str, int] = {}
    for name in names:  # twice: the first call allocates
        step(name)
        calls[name] = max(1, round(SHORT / max(_seconds(step, name, 1), 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            times[name].append(_seconds(step, name, calls[name]))
    return times


def _step(use: Use, w: Array) -> Callable[[str], None]:
    """Return a function that does what is asked of the convolution, by the algorithm named, on random numbers."""
    rng, problem = np.random.default_rng(0), use.problem
    # (N, H, W, C) -> (N, C, H, W)
    x, dy = (
        rng.standard_normal(shape, np.float32).astype(use.dtype).transpose(0, 3, 1, 2)
        for shape in (problem.x_shape, problem.y_shape)
    )

    def step(name: str) -> None:
        conv2d_forward(x, w, None, problem.window, problem.G, name)
        if use.reached:
            conv2d_backward(dy, x, w, problem.window, problem.G, name, use.need_dx, use.need_dw)

    return step


def _seconds(step: Callable[[str], None], name: str, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        step(name)
    return (time.perf_counter() - start) / calls
