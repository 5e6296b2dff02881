"""Batch slices on CPU threads.

A training step on a CPU spends its time either in matrix products or in moving memory.  Both go best when a
batch is cut into slices small enough for a core's cache and each core works through slices of its own, with
the BLAS library held to one thread meanwhile: its thread pool and ours would only fight over the cores.

A layer therefore writes its mathematics for one slice of the batch and hands it to `each_slice`, or to `sum_slices`
where every slice contributes to one sum (a weight gradient, a mean).  On a GPU there is one slice: the whole batch.

**Same bits on any number of threads.**  Where the batch is cut depends on its size alone, and partial sums
are added up in a fixed order: each of at most `LANES` *lanes* adds up its own run of slices, then the lanes
are added in order.  Threads only decide who computes a lane, never what is computed.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import math
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

from .backend import Array, array_module, is_device_array, keep_freed_memory, return_freed_memory

SLICE_BYTES = 2 << 20
"""Memory that working on one slice touches, in bytes: about a core's L2 cache (a ResNet-20 step takes 460 ms with
2 or 4 MiB, 530 with 1)."""
SERIAL_BYTES = 1 << 20
"""Work touching less than this is not worth a second thread."""
BUFFER_SIZE = 1024
"""Elements that NumPy's ufuncs copy at a time where operands are strided or broadcast; 8 times as many, the default,
fall out of the L1 cache (7 % of a ResNet-20 step)."""
BAND = 2
"""So many times more is touched in a band of a single image: where threads share one, waiting for Python's lock between
two operations costs more than what falls out of a cache."""
LANES = 8
"""Number of partial sums of a reduction; also the granularity in which slices are counted."""


class _Local(threading.local):
    """What each thread owns: its scratch, and whether it is inside a parallel region already."""

    def __init__(self) -> None:
        self.scratch: dict[str, np.ndarray] = {}
        self.busy = False


class _Helpers:
    """Threads that wait for jobs.  (Handing a job to a `ThreadPoolExecutor` takes some 50 µs, to these 10.)

    A job never waits for another.  The threads end when nobody holds this object any more.
    """

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.size = 0

    def grow(self, size: int) -> None:
        """Have at least so many threads."""
        while self.size < size:
            threading.Thread(target=_serve, args=(self.jobs,), name=f"tinycnn-{self.size}", daemon=True).start()
            self.size += 1

    def __del__(self) -> None:
        for _ in range(self.size):
            self.jobs.put(None)


def _serve(jobs: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    work_alone()
    for job in iter(jobs.get, None):
        job()


_local = _Local()
_num_threads: int | None = None
_helpers: _Helpers | None = None
_helpers_lock = threading.Lock()


def get_num_threads() -> int:
    """Return the number of CPU threads in use: the cores this process may run on, unless set otherwise."""
    if _num_threads is not None:
        return _num_threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_num_threads(n: int) -> None:
    """Use ``n`` CPU threads from now on.  Results do not depend on it, only speed does.

    Raises:
        ValueError: ``n`` is less than 1.
    """
    global _num_threads
    if n < 1:
        raise ValueError(f"the number of threads must be at least 1, got {n}")
    _num_threads = int(n)
    _forget_helpers()


def _forget_helpers() -> None:
    """Drop the helpers; the next region makes new ones."""
    global _helpers
    _helpers = None


def _after_fork() -> None:
    """Start afresh in a forked child: it inherits neither the helpers nor anyone to release a lock."""
    global _helpers_lock, _blas_lock, _blas_users
    _helpers_lock, _blas_lock = threading.Lock(), threading.Lock()
    _forget_helpers()
    _local.busy = False
    if _blas_users:
        _blas_users = 0
        _set_blas(_blas_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _get_helpers(size: int) -> _Helpers:
    global _helpers
    with _helpers_lock:
        helpers = _helpers  # another thread may drop the global one at any moment
        if helpers is None:
            helpers = _helpers = _Helpers()
        helpers.grow(size)
        return helpers


class _Blas(NamedTuple):
    """How to ask a BLAS library for its number of threads, and how to set it."""

    get: Callable[[], int]
    set: Callable[[int], Any]
    each_thread_its_own: bool


@functools.lru_cache(maxsize=1)
def _blas_libraries() -> list[_Blas]:
    keep_freed_memory()  # once, before the engine's first work
    return [_controls(lib) for lib in ThreadpoolController().lib_controllers if lib.user_api == "blas"]


def _controls(library: Any) -> _Blas:
    """Return the controls that threadpoolctl found; of OpenBLAS with threads of its own, the functions themselves.

    Through threadpoolctl a call takes ten times as long, and newer versions heed only the first thread that sets one.
    """
    if getattr(library, "threading_layer", None) == "pthreads":
        for prefix, suffix in itertools.product(("", "scipy_"), ("", "64_", "_64")):
            get, set = (
                getattr(library.dynlib, f"{prefix}openblas_{verb}_num_threads{suffix}", None) for verb in ("get", "set")
            )
            if get and set:
                return _Blas(get, set, False)
    openmp = getattr(library, "threading_layer", None) == "openmp"
    return _Blas(library.get_num_threads, library.set_num_threads, openmp)


_blas_lock = threading.Lock()
_blas_users = 0
_blas_before: list[int] = []


class single_threaded_blas:
    """Hold the BLAS library to one thread for the duration of a ``with`` block.

    The setting belongs to the whole process, so blocks are counted: the first to enter sets it and the last
    to leave restores it, whichever threads they run on.
    """

    def __enter__(self) -> None:
        global _blas_users
        with _blas_lock:
            if _blas_users == 0:
                _blas_before[:] = [library.get() for library in _blas_libraries()]
                _set_blas([1] * len(_blas_before))
            _blas_users += 1

    def __exit__(self, *error: object) -> None:
        global _blas_users
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _set_blas(_blas_before)


def _set_blas(threads: Sequence[int]) -> None:
    for library, n in zip(_blas_libraries(), threads, strict=True):
        library.set(n)


def work_alone() -> None:
    """Let this thread work without helpers from now on, and with one of BLAS where that is its own setting (OpenMP)."""
    _local.busy = True
    for library in _blas_libraries():
        if library.each_thread_its_own:
            library.set(1)


@contextlib.contextmanager
def _small_buffers() -> Iterator[None]:
    """Let this thread's ufuncs work in buffers of `BUFFER_SIZE` for the duration of the block."""
    before = np.setbufsize(BUFFER_SIZE)
    try:
        yield
    finally:
        np.setbufsize(before)


def slice_batch(N: int, item_bytes: int, shared_bytes: int = 0) -> list[slice]:
    """Cut ``range(N)`` into consecutive slices of about `SLICE_BYTES`, as a function of its arguments alone.

    Args:
        N: items in the batch.
        item_bytes: bytes of memory that working on one item touches.
        shared_bytes: bytes that every slice touches, whatever its length (weights): no slice is smaller, lest the time
            go into reading them again and again.

    Returns:
        One slice when the whole is less than `SERIAL_BYTES`; otherwise 2, 4, 8 or a multiple of `LANES` of them where
        ``N`` allows, so that threads share the work evenly.
    """
    return _even(N, _pieces(N * item_bytes, shared_bytes))


def _pieces(total: int, shared_bytes: int) -> int:
    if total < SERIAL_BYTES:
        return 1
    count = 2
    while count * max(SLICE_BYTES, shared_bytes) < total:
        count += min(count, LANES)
    return count


def _even(N: int, count: int) -> list[slice]:
    """Cut ``range(N)`` into so many slices, or N if that is less, whose lengths differ by at most one."""
    count = max(min(N, count), 1)
    edges = [i * N // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def slice_images(N: int, rows: int, row_bytes: int, shared_bytes: int = 0) -> list[tuple[slice, slice]]:
    """Cut N images into (slice of images, slice of their rows): as `slice_batch` does; and where that makes slices of
    one image, which may still be too large, or too few to share, each into large bands (`BAND`).

    Args:
        N: images.
        rows: of each of them, which can be worked on by themselves.
        row_bytes: bytes of memory that working on one row touches.
        shared_bytes: bytes that every piece touches, whatever its size.
    """
    total = N * rows * row_bytes
    slices = _even(N, _pieces(total, shared_bytes))
    single = len(slices) == N > 0
    bands = _even(rows, -(-_pieces(total, max(shared_bytes, BAND * SLICE_BYTES)) // N) if single else 1)
    return [(images, band) for images in slices for band in bands]


def _run(tasks: Sequence[Callable[[], None]]) -> None:
    """Run the tasks, each once, on this thread and the helpers; the first error is raised here."""
    if len(tasks) == 1:
        with single_threaded_blas():
            return tasks[0]()
    threads = 1 if _local.busy else min(get_num_threads(), len(tasks))
    waiting = deque(tasks)  # threads take tasks from it as they come free

    def work() -> None:
        was_busy, _local.busy = _local.busy, True
        try:
            with _small_buffers():
                while waiting:
                    try:
                        task = waiting.popleft()
                    except IndexError:  # another thread was quicker
                        return
                    task()
        finally:
            _local.busy = was_busy

    with single_threaded_blas():
        if threads == 1:
            return work()
        helpers, ends = _get_helpers(threads - 1), queue.SimpleQueue[BaseException | None]()
        for _ in range(threads - 1):
            # NumPy keeps its error state in a context variable: each helper works in a copy of this context.
            helpers.jobs.put(functools.partial(contextvars.copy_context().run, _attempt, work, ends))
        try:
            work()
        finally:
            errors = [ends.get() for _ in range(threads - 1)]
    for error in errors:
        if error is not None:
            raise error


def _attempt(work: Callable[[], None], ends: queue.SimpleQueue[BaseException | None]) -> None:
    """Call ``work`` and report how it ended."""
    try:
        work()
    except BaseException as error:
        ends.put(error)
    else:
        ends.put(None)


def each_slice(task: Callable[[slice], None], x: Array, item_bytes: int | None = None, shared_bytes: int = 0) -> None:
    """Call ``task(s)`` for every slice ``s`` of the first axis of ``x``; the tasks write their results themselves.

    Args:
        task: called from several threads at once, so it may write only to its own slice and to `scratch`.
        x: the batch; a GPU array is one slice.
        item_bytes: memory touched per item, when that is not about twice the item itself.
        shared_bytes: memory that every slice touches, whatever its length.
    """
    if is_device_array(x):
        return task(slice(0, len(x)))
    slices = slice_batch(len(x), item_bytes or 2 * x.nbytes // max(len(x), 1), shared_bytes)
    _run([functools.partial(task, s) for s in slices])


def each_band(task: Callable[[slice, slice], None], x: Array, rows: int, row_bytes: int, shared_bytes: int = 0) -> None:
    """Call ``task(images, rows)`` for every piece of the images ``x`` (`slice_images`): one can employ all threads."""
    if is_device_array(x):
        return task(slice(0, len(x)), slice(0, rows))
    _run([functools.partial(task, *piece) for piece in slice_images(len(x), rows, row_bytes, shared_bytes)])


def sum_slices(
    task: Callable[[slice], tuple[Array, ...]], x: Array, item_bytes: int | None = None, shared_bytes: int = 0
) -> list[Array]:
    """Return the sums of what ``task(s)`` returns, over every slice ``s`` of the first axis of ``x``.

    The order of summation is fixed (module docstring), so the result does not depend on the number of
    threads.  What a task returns may be `scratch`: it is added up before the next task runs on that thread.

    Args:
        task: returns a tuple of arrays, of the same shapes for every slice.
        x, item_bytes, shared_bytes: as for `each_slice`.
    """
    if is_device_array(x):
        return list(task(slice(0, len(x))))
    slices = slice_batch(len(x), item_bytes or 2 * x.nbytes // max(len(x), 1), shared_bytes)
    lanes = [slices[i * len(slices) // LANES : (i + 1) * len(slices) // LANES] for i in range(LANES)]
    lanes = [lane for lane in lanes if lane]
    totals: list[list[Array]] = [[] for _ in lanes]

    def add_up(i: int) -> None:
        for s in lanes[i]:
            parts = task(s)
            if not totals[i]:
                totals[i] = [np.array(part) for part in parts]
            else:
                for total, part in zip(totals[i], parts, strict=True):
                    total += part

    _run([functools.partial(add_up, i) for i in range(len(lanes))])
    for other in totals[1:]:
        for total, part in zip(totals[0], other, strict=True):
            total += part
    return totals[0]


def scratch(name: str, shape: tuple[int, ...], dtype: np.typing.DTypeLike, like: Array = None) -> Array:
    """Return an uninitialised work array of this thread's own, valid until it asks for ``name`` again.

    The memory is kept and reused: allocating anew costs a page fault per 4 KiB, which on large arrays
    is a sizeable share of the time NumPy takes.

    Args:
        name: one name, one buffer; two arrays needed at once need two names.
        shape, dtype: of the array.
        like: when this is a GPU array, a GPU array is returned (CuPy's own memory pool does the reuse).
    """
    if is_device_array(like):
        return array_module(like).empty(shape, dtype)
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    buffer = _local.scratch.get(name)
    if buffer is None or buffer.nbytes < size:
        buffer = _local.scratch[name] = np.empty(size, np.uint8)
    return buffer[:size].view(dtype).reshape(shape)


def release_scratch() -> None:
    """Give memory back: the scratch of this thread and of the helpers, which end, and whatever else was freed."""
    _local.scratch.clear()
    _forget_helpers()
    return_freed_memory()
