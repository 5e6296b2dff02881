"""A sequence of launches, captured once as a CUDA graph and replayed.

Launching a kernel from Python takes some 10 µs of the CPU's time, more than many kernels take of the GPU's.  A graph is
a list of launches with all their arguments, made while a stream *captures*: what is launched on it then is written down
and not done.  To replay the list is one call, and costs the GPU one or two microseconds a kernel.

What a graph has written down are addresses.  So everything that it reads and writes must be where it was:

- **Temporaries** come from a memory pool of the graph's own, which nothing else allocates from.  Freed, they go back to
  it, and may be another temporary further on in the graph; the pool keeps their memory as long as the graph lives.
- **Warm-up.**  The task has run before, on the same stream and with the same pool: kernels are compiled and loaded
  then, constants made and cached, and memory is in the pool, none of which can be done while capturing.
- **Tables of addresses** (`places`) made before are held on to.
- **Everything else** (parameters, inputs, numbers that change from step to step) whoever replays writes in place.

CuPy refuses what cannot be captured: looking at a result, copies between host and device, cuBLAS, cuRAND.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from ...backend import Array, array_module
from .places import Places, kept

Result = TypeVar("Result")

_lingering: list[Any] = []
"""Pools of graphs that are gone with arrays in them that are not: CuPy would take the memory from under those."""


class CapturedTask:
    """A task (a function of no arguments) that is run a few times, captured, and replayed.

    Args:
        like: an array on the GPU.

    Attributes:
        is_captured: whether `replay` can be called.
    """

    def __init__(self, like: Array) -> None:
        xp = array_module(like)
        self._cuda, shared = xp.cuda, xp.get_default_memory_pool()
        shared.free_all_blocks()  # what a step has used so far is wanted here from now on
        self._stream = self._cuda.Stream(non_blocking=True)
        self._pool = self._cuda.MemoryPool()
        if limit := shared.get_limit():
            self._pool.set_limit(size=max(limit - shared.used_bytes(), 1))
        self._graph: Any = None
        self._result: Any = None
        self._tables: list[Places] = []

    @property
    def is_captured(self) -> bool:
        """Whether there is a graph."""
        return self._graph is not None

    @property
    def nbytes(self) -> int:
        """Bytes of the GPU's memory that the graph keeps."""
        return int(self._pool.total_bytes())

    def run(self, task: Callable[[], Result]) -> Result:
        """Run ``task`` as it would be captured, and wait for it."""
        with self._aside():
            try:
                return task()
            finally:
                self._stream.synchronize()

    def capture(self, task: Callable[[], Result]) -> None:
        """Write down what ``task`` launches; it does nothing until `replay`.

        Raises:
            Exception: whatever ``task`` raises, or CuPy because of what it does.  No graph is there then, and nothing
                was done on the GPU.
        """
        with self._aside(), _no_collection():
            self._stream.begin_capture()
            try:
                self._result = task()
            except BaseException:
                self._result = None
                with contextlib.suppress(Exception):  # what made it fail may have made it invalid
                    self._stream.end_capture()
                raise
            self._graph = self._stream.end_capture()
            self._tables = kept()

    def replay(self) -> Any:
        """Do what was captured, in the current stream.

        Returns:
            What the task returned when it was captured; arrays hold this replay's values until the next.
        """
        self._graph.launch()
        return self._result

    def close(self) -> None:
        """Give the graph and its memory up, when the GPU has finished with them."""
        self._cuda.get_current_stream().synchronize()
        self._graph, self._result, self._tables = None, None, []
        self._pool.free_all_blocks()
        _lingering[:] = [pool for pool in (*_lingering, self._pool) if pool.used_bytes()]

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # nobody could catch them, and at the end of the process all is gone
            self.close()

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Have work done on the task's stream with the task's pool, after what the current stream is doing."""
        self._cuda.get_current_stream().synchronize()
        with self._cuda.using_allocator(self._pool.malloc), self._stream:
            yield


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from collecting garbage: what it frees (kernels, events) cannot be freed while capturing."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
