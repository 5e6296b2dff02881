"""Which routes of a convolution are the fastest on this GPU: measured once, and remembered.

**Clock.**  A route is captured as a graph that takes it `CALLS` times, and events on the GPU time its replays: Python's
time between launches does not count, as it does not in a captured training step.

**Memory.**  Answers are kept in a JSON file in the user's cache directory, one for each GPU, compute capability and
version of tinycnn; by sizes, dtype, precision and pass::

    {"gpu": "NVIDIA H200", "compute_capability": "9.0", "tinycnn": "0.1.0",
     "routes": {"x 128,32,32,64 to 64, 3x3 stride 1,1 … float32": {"forward": "128x64", "dx": "128x64"}}}

The file is a convenience: a run records its own routes in its settings, and a repeat takes them from there.
"""

from __future__ import annotations

import functools
import json
import os
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ... import __version__
from ...backend import Array, array_module, device_seconds, gpu_name
from ..conv.plan import Problem
from ..precision import get_precision
from . import routes
from .graph import CapturedTask
from .routes import PASSES, Routes

CALLS = 10
"""Calls in a graph: enough for the grain of events, and to fill the pause before the first kernel."""


def fastest(
    problem: Problem,
    like: Array,
    dtype: np.dtype,
    passes: Iterable[str] = tuple(PASSES),
    names: Iterable[str] | None = None,
    repeats: int = 7,
    fresh: bool = False,
) -> Routes:
    """Return the fastest routes of a convolution.

    Args:
        problem: its sizes.
        like: any array on the GPU.
        dtype: of the images.
        passes: those to measure; the others follow the rule.
        names: the routes to try.  By default all, and then answers are looked up in the file and kept there.
        repeats: timings of each; medians are compared.
        fresh: measure anew what is in the file.
    """
    path, key = cache_file(), describe(problem, dtype)
    known = {} if fresh or names is not None else read(path).get(key, {})
    found = {which: known[which] for which in passes if known.get(which) in routes.ROUTES}
    missing = [which for which in passes if which not in found]
    for which in missing:
        tried = routes.candidates(problem, dtype, which) if names is None else names
        times = measure(problem, like, dtype, which, [r for r in tried if routes.supports(r, problem)], repeats)
        if times:
            found[which] = min(times, key=lambda route: times[route])
    if missing and names is None:
        write(path, key, found)
    return Routes(*(found.get(which, routes.rule(problem)) for which in PASSES))


def describe(problem: Problem, dtype: np.dtype) -> str:
    """Return the sizes of a convolution and how it is computed, in one line."""
    x, w, G = problem.x_shape, problem.window, f" groups {problem.G}" if problem.G > 1 else ""
    how = "tf32" if dtype == np.float32 and get_precision() == "tf32" else dtype.name
    (top, bottom), (left, right) = w.padding
    sizes = "x {},{},{},{} to {}".format(*x, problem.OC)
    window = "{}x{} stride {},{} dilation {},{}".format(*w.kernel, *w.stride, *w.dilation)
    return f"{sizes}, {window} padding {top},{bottom},{left},{right}{G}, {how}"


# ---- the clock


def measure(
    problem: Problem, like: Array, dtype: np.dtype, which: str, names: Iterable[str], repeats: int
) -> dict[str, float]:
    """Return the median time of a pass by each route, in seconds; without those that memory is short for."""
    task, times = _task(problem, like, dtype, which), {}
    for name in names:
        try:
            times[name] = _seconds(functools.partial(task, name), like, repeats)
        except MemoryError:
            continue
    return times


def _task(problem: Problem, like: Array, dtype: np.dtype, which: str) -> Callable[[str], None]:
    """Return a function that does the pass by a certain route, on random numbers."""
    window, G, (KH, KW) = problem.window, problem.G, problem.window.kernel
    w_shape = problem.OC, KH, KW, problem.x_shape[3] // G
    x, w, dy = (_numbers(shape, like, dtype) for shape in (problem.x_shape, w_shape, problem.y_shape))

    def task(route: str) -> None:
        if which == "forward":
            routes.forward_by(route, x, w, None, window, G)
        elif which == "dx":
            routes.backward_input_by(route, dy, problem.x_shape, w, window, G)
        else:
            routes.backward_weight_by(route, dy, x, w_shape, window, G)

    return task


def _numbers(shape: tuple[int, ...], like: Array, dtype: np.dtype) -> Array:
    """Return random numbers.  (Multiplying zeros takes less power, and so less time.)"""
    xp, size = array_module(like), int(np.prod(shape))
    some = np.random.default_rng(0).standard_normal(min(size, 1 << 16), np.float32)
    return xp.tile(xp.asarray(some).astype(dtype), -(-size // max(some.size, 1)))[:size].reshape(shape)


def _seconds(task: Callable[[], None], like: Array, repeats: int) -> float:
    """Return the median time of ``task`` on the GPU."""

    def calls() -> None:
        for _ in range(CALLS):
            task()

    graph = CapturedTask(like)
    try:
        graph.run(task)  # compiles
        graph.run(calls)
        graph.capture(calls)
        graph.replay()
        return statistics.median(device_seconds(graph.replay) for _ in range(repeats)) / CALLS
    finally:
        graph.close()


# ---- the file


def cache_file() -> Path:
    """Return where this GPU's answers are kept."""
    words = re.findall(r"\w+", " ".join(("conv", *gpu_name(), __version__)))
    return cache_folder() / ("-".join(words) + ".json")


def cache_folder() -> Path:
    """Return the folder for what can be found out again: ``TINYCNN_CACHE``, or what the system has for it."""
    if own := os.environ.get("TINYCNN_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "tinycnn" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinycnn"


def read(path: Path) -> dict[str, dict[str, str]]:
    """Return the routes in the file; none if there is no such file, or it is not as it should be."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["routes"]
        return {key: dict(answer) for key, answer in found.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write(path: Path, key: str, answer: dict[str, str]) -> None:
    """Add an answer to the file, which is there whole or not at all; where it cannot be written, it is not."""
    found = read(path)
    found[key] = found.get(key, {}) | answer
    gpu, capability = gpu_name()
    content = {"gpu": gpu, "compute_capability": capability, "tinycnn": __version__, "routes": found}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2)
        os.replace(temporary, path)
    except OSError:
        return
