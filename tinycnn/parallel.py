"""Batch slices on CPU threads.

A training step on a CPU spends its time either in matrix products or in moving memory.  Both go best when a
batch is cut into slices small enough for a core's cache and each core works through slices of its own, with
the BLAS library held to one thread meanwhile: its thread pool and ours would only fight over the cores.

A layer therefore writes its mathematics for one slice of the batch and hands it to `each_slice`, or to
`sum_slices` where every slice contributes to one sum (a weight gradient, a mean).  On a GPU there is one
slice: the whole batch.

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
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from .backend import Array, array_module, is_device_array

SLICE_BYTES = 2 << 20
"""Memory that working on one slice touches, in bytes: about a core's L2 cache (a ResNet-20 step takes 460 ms with
2 or 4 MiB, 530 with 1)."""
SERIAL_BYTES = 1 << 20
"""Work touching less than this is not worth a second thread."""
BUFFER_SIZE = 1024
"""Elements that NumPy's ufuncs copy at a time where operands are strided or broadcast; 8 times as many, the default,
fall out of the L1 cache (7 % of a ResNet-20 step)."""
LANES = 8
"""Number of partial sums of a reduction; also the granularity in which slices are counted."""


class _Local(threading.local):
    """What each thread owns: its scratch, and whether it is inside a parallel region already."""

    def __init__(self) -> None:
        self.scratch: dict[str, np.ndarray] = {}
        self.busy = False


_local = _Local()
_num_threads: int | None = None
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


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
    _forget_pool()


def _forget_pool() -> None:
    """Drop the pool; the next region makes a new one."""
    global _pool
    _pool = None


def _after_fork() -> None:
    """Start afresh in a forked child: it inherits neither the pool's threads nor anyone to release a lock."""
    global _pool_lock, _blas_lock, _blas_users
    _pool_lock, _blas_lock = threading.Lock(), threading.Lock()
    _forget_pool()
    _local.busy = False
    if _blas_users:
        _blas_users = 0
        _restore_blas()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _executor(workers: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < workers:
            _pool = ThreadPoolExecutor(workers, thread_name_prefix="tinycnn", initializer=_limit_own_blas)
            _pool_size = workers
        return _pool


@functools.lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_blas_lock = threading.Lock()
_blas_users = 0
_blas_limit: Any = None


@contextlib.contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Hold the BLAS library to one thread for the duration of the block.

    The setting belongs to the whole process, so blocks are counted: the first to enter sets it and the last
    to leave restores it, whichever threads they run on.
    """
    global _blas_users, _blas_limit
    with _blas_lock:
        if _blas_users == 0:
            _clear_control()
            _blas_limit = _controller().limit(limits=1, user_api="blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if _blas_users == 0:
                _restore_blas()


def _restore_blas() -> None:
    _clear_control()
    _blas_limit.restore_original_limits()
    _clear_control()


def _clear_control() -> None:
    """Let the next thread that asks set limits: newer versions of threadpoolctl heed only the first that ever did."""
    for library in _controller().lib_controllers:
        if hasattr(library, "clear_controlling_thread"):
            library.clear_controlling_thread(force=True)


def _limit_own_blas() -> None:
    """Hold a new thread of the pool to one BLAS thread where that is a setting of each thread (OpenMP)."""
    for library in _controller().lib_controllers:
        if getattr(library, "threading_layer", None) == "openmp":
            library.set_num_threads(1)


@contextlib.contextmanager
def _small_buffers() -> Iterator[None]:
    """Let this thread's ufuncs work in buffers of `BUFFER_SIZE` for the duration of the block."""
    before = np.setbufsize(BUFFER_SIZE)
    try:
        yield
    finally:
        np.setbufsize(before)


def slice_batch(N: int, item_bytes: int) -> list[slice]:
    """Cut ``range(N)`` into consecutive slices of about `SLICE_BYTES`, as a function of its arguments alone.

    Args:
        N: items in the batch.
        item_bytes: bytes of memory that working on one item touches.

    Returns:
        One slice when the whole is less than `SERIAL_BYTES`; otherwise a multiple of `LANES` of them where
        ``N`` allows, so that threads share the work evenly.
    """
    total = N * item_bytes
    if N <= 1 or total < SERIAL_BYTES:
        return [slice(0, N)]
    count = min(N, LANES * -(-total // (LANES * SLICE_BYTES)))
    edges = [i * N // count for i in range(count + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _run(tasks: Sequence[Callable[[], None]]) -> None:
    """Run the tasks, each once, on this thread and the pool's; the first error is raised here."""
    threads = min(get_num_threads(), len(tasks))
    queue = deque(tasks)  # threads take tasks from it as they come free

    def work() -> None:
        was_busy, _local.busy = _local.busy, True
        try:
            with _small_buffers():
                while True:
                    try:
                        task = queue.popleft()
                    except IndexError:
                        return
                    task()
        finally:
            _local.busy = was_busy

    with single_threaded_blas():
        if threads == 1 or _local.busy:
            return work()
        # NumPy keeps its error state in a context variable: each helper works in a copy of this context.
        pool = _executor(threads - 1)
        helpers = [pool.submit(contextvars.copy_context().run, work) for _ in range(threads - 1)]
        try:
            work()
        finally:
            errors = [helper.exception() for helper in helpers]  # waits
    for error in errors:
        if error is not None:
            raise error


def each_slice(task: Callable[[slice], None], x: Array, item_bytes: int | None = None) -> None:
    """Call ``task(s)`` for every slice ``s`` of the first axis of ``x``; the tasks write their results themselves.

    Args:
        task: called from several threads at once, so it may write only to its own slice and to `scratch`.
        x: the batch; a GPU array is one slice.
        item_bytes: memory touched per item, when that is not about twice the item itself.
    """
    if is_device_array(x):
        return task(slice(0, len(x)))
    slices = slice_batch(len(x), item_bytes or 2 * x.nbytes // max(len(x), 1))
    _run([functools.partial(task, s) for s in slices])


def sum_slices(task: Callable[[slice], tuple[Array, ...]], x: Array, item_bytes: int | None = None) -> list[Array]:
    """Return the sums of what ``task(s)`` returns, over every slice ``s`` of the first axis of ``x``.

    The order of summation is fixed (module docstring), so the result does not depend on the number of
    threads.  What a task returns may be `scratch`: it is added up before the next task runs on that thread.

    Args:
        task: returns a tuple of arrays, of the same shapes for every slice.
        x, item_bytes: as for `each_slice`.
    """
    if is_device_array(x):
        return list(task(slice(0, len(x))))
    slices = slice_batch(len(x), item_bytes or 2 * x.nbytes // max(len(x), 1))
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
    """Free the scratch of this thread and of the pool's, which end, and their memory with them."""
    _local.scratch.clear()
    _forget_pool()
