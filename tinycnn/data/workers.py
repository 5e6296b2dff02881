"""Tasks done ahead of time by threads, their results handed out in order.

A batch has to be read, decoded, changed and scaled before it can be trained with.  Here that is done beside the
training step: `prepared` takes tasks, each of which makes one batch, and yields what they return::

    to do    task 6   task 5   task 4
    threads  at task 3             at task 2
    done     batch 1                              (bounded: no more than ``workers + ahead`` are in these three rows)
    in use   batch 0

A task knows what it makes, randomness included; threads only decide when it is made.  So results come in the order of
the tasks, and are the same to the bit, however many threads there are, none at all included.

**Beside the training step.**  A thread here computes alone: with one thread of the BLAS library, and without the
helpers of `tinycnn.parallel`, which are the training step's.  (Where both give them jobs, the step would wait in the
queue behind a batch that nobody needs yet.)

**How it ends.**  Leaving the iterator, by ``break``, an exception, or because nobody holds it any more, dismisses the
threads: each ends when its task is done, and begins no other.  Nobody waits for that, since an iterator may be dropped
anywhere, even by one of the threads.  Where the program ends, tasks that are under way have `PATIENCE` seconds.

**Where a task fails**, the results before it are handed out first; then its exception is raised, which is the end.

**In a forked child** there are none of these threads.  It does the tasks that are left itself.
"""

from __future__ import annotations

import atexit
import contextvars
import itertools
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

from .. import parallel

T = TypeVar("T")

PATIENCE = 2.0
"""Seconds that the end of a program waits for threads: one stopped in the middle of a library might take it down."""


def prepared(tasks: Iterator[Callable[[], T]], workers: int, ahead: int) -> Generator[T, None, None]:
    """Yield what every task returns, in order.

    Args:
        tasks: called by any thread, several at once; taken from this iterator by the caller's own thread, one whenever
            a result is handed out.
        workers: number of threads; without any a task is done when its result is asked for.
        ahead: how many results more than there are threads may be begun, or wait.

    Raises:
        Exception: whatever a task raises.  StopIteration becomes a RuntimeError.
    """
    if workers == 0:
        for task in tasks:
            yield _alone(task)
        return
    waiting: deque[_Job[T]] = deque()
    crew = _Crew()

    def give(count: int) -> None:
        for task in itertools.islice(tasks, count):
            waiting.append(_Job(task, crew.process))
            crew.jobs.put(waiting[-1])

    def take() -> T:
        result = waiting.popleft().outcome()
        give(1)
        return result

    try:
        give(workers + ahead)
        crew.grow(min(workers, len(waiting)))
        while waiting:
            yield take()  # into no variable: a result that the user drops is gone
    finally:
        crew.dismiss()


def _alone(task: Callable[[], T]) -> T:
    """Do a task, always with one thread of BLAS: sums might round otherwise with more."""
    with parallel.single_threaded_blas():
        return task()


class _Job(Generic[T]):
    """A task, and in the end its result or its error."""

    def __init__(self, task: Callable[[], T], process: int) -> None:
        self.task, self.process = task, process  # whose threads there are
        self.done = threading.Event()
        self.results: list[T] = []
        self.error: BaseException | None = None

    def do(self) -> None:
        """Do it, in whichever thread this is."""
        try:
            self.results.append(_alone(self.task))
        except BaseException as error:
            self.error = error
        self.done.set()

    def outcome(self) -> T:
        """Wait for the result and return it, or raise the error; once."""
        if os.getpid() != self.process:
            return _alone(self.task)
        self.done.wait()
        if self.error is None:
            return self.results.pop()  # the thread may hold on to the job for a moment
        try:
            raise self.error
        finally:
            self.error = None  # its traceback leads back here: a cycle


class _Crew:
    """Threads that do jobs in the order in which they come, until they are dismissed."""

    def __init__(self) -> None:
        self.jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        self.dismissed, self.process = False, os.getpid()
        _crews.add(self)

    def grow(self, size: int) -> None:
        """Have so many threads."""
        for i in range(len(self.threads), size):
            # NumPy keeps its error state in a context variable: each thread works in a copy of this context
            context = contextvars.copy_context()
            thread = threading.Thread(target=context.run, args=(self._serve,), name=f"tinycnn-loader-{i}", daemon=True)
            thread.start()
            self.threads.append(thread)

    def _serve(self) -> None:
        parallel.work_alone()
        for job in iter(self.jobs.get, None):
            if self.dismissed:
                return
            job.do()
        self.jobs.put(None)  # for the next

    def dismiss(self) -> None:
        """Tell the threads to end."""
        self.dismissed = True
        self.jobs.put(None)


_crews: weakref.WeakSet[_Crew] = weakref.WeakSet()


@atexit.register
def _end() -> None:
    """At the end of the program, dismiss those that are still at work, and wait for them a while."""
    crews = list(_crews)
    for crew in crews:
        crew.dismiss()
    deadline = time.monotonic() + PATIENCE
    for thread in [thread for crew in crews for thread in crew.threads]:
        thread.join(max(0, deadline - time.monotonic()))
