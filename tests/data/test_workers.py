"""Tasks done ahead of time: in order, a bounded number, by threads that end."""

import contextlib
import gc
import itertools
import os
import threading
import weakref
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tasks import LONG, Damaged, Gate, still_alive, threads

from tinycnn import parallel
from tinycnn.data import workers
from tinycnn.data.workers import prepared

pytestmark = pytest.mark.usefixtures("in_time", "no_thread_is_left")
# ---- results ---------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None, max_examples=100)
@given(count=st.integers(0, 12), some=st.integers(0, 7), ahead=st.integers(0, 4), taken=st.integers(0, 12))
def test_results_come_in_order_and_tasks_are_taken_one_by_one(count, some, ahead, taken):
    """However they are timed, and no more tasks than the bound are ever taken."""
    given_out = []

    def tasks():
        for i in range(count):
            given_out.append(i)
            yield lambda i=i: i * i

    results, found = prepared(tasks(), some, ahead), []
    assert not given_out, "nothing begins before it is asked for"
    beyond = some + ahead if some else 0
    for result in itertools.islice(results, taken):
        found.append(result)
        assert given_out == list(range(min(count, len(found) + beyond)))
    assert found == [i * i for i in range(min(count, taken))]
    results.close()


def first_of_three(module, patience):
    """The first result where the last of three tasks ends first, and the others after ``patience`` at most."""
    gate, found = Gate(3), []
    gate.open(2)
    results = module.prepared(gate.tasks, 3, 0)
    taking = threading.Thread(target=lambda: found.append(next(results)), daemon=True)
    taking.start()
    assert all(event.wait(LONG) for event in gate.begun)
    taking.join(patience)
    gate.open(0, 1)
    taking.join(LONG)
    return found[0] if found else "it never came"


def test_a_later_task_that_ends_first_waits_for_its_turn():
    assert first_of_three(workers, 0.05) == 0


def test_several_tasks_are_done_at_once():
    meeting = threading.Barrier(3, timeout=LONG)
    tasks = iter([lambda: meeting.wait() >= 0] * 3)
    assert list(prepared(tasks, 3, 0)) == [True] * 3


def test_the_bound_holds_while_the_user_takes_time():
    gate = Gate(9)
    gate.open(*range(9))
    results = prepared(gate.tasks, 2, 1)
    assert next(results) == 0
    for i in range(4):  # 0 is in use, three more are begun
        assert gate.begun[i].wait(LONG)
    assert gate.numbers() == [0, 1, 2, 3]
    assert list(results) == list(range(1, 9))


@pytest.mark.parametrize("some", [0, 1, 2])
def test_a_result_that_is_dropped_is_gone(some):
    class Batch:
        pass

    results = prepared(iter([Batch, Batch, Batch]), some, 1)
    first = weakref.ref(next(results))
    assert first() is None
    assert len(list(results)) == 2
    job = workers._Job(Batch, os.getpid())
    job.do()
    again = weakref.ref(job.outcome())
    assert again() is None, "whoever still holds the job"


def test_without_workers_there_are_no_threads():
    where = list(prepared(iter([threading.current_thread] * 3), 0, 2))
    assert where == [threading.current_thread()] * 3


# ---- errors ----------------------------------------------------------------------------------------------------


def tasks_with(error, at, count=6):
    def task(i):
        if i == at:
            raise error
        return i

    return iter([partial(task, i) for i in range(count)])


@pytest.mark.parametrize("some", [0, 1, 2, 7])
@pytest.mark.parametrize("at", [0, 3, 5])
def test_an_error_comes_when_it_is_its_turn(some, at):
    error = Damaged("bee.jpg")
    results = prepared(tasks_with(error, at), some, 2)
    assert list(itertools.islice(results, at)) == list(range(at))
    with pytest.raises(Damaged) as caught:
        next(results)
    assert caught.value is error
    assert caught.traceback[-1].name == "task", "it says where it happened"
    assert list(results) == [], "that was the end"


@pytest.mark.parametrize("some", [0, 1, 3])
@pytest.mark.parametrize("error", [MemoryError("full"), SystemExit(3), KeyboardInterrupt("worker")])
def test_whatever_is_raised_arrives(some, error):
    results = prepared(tasks_with(error, 1), some, 1)
    assert next(results) == 0
    with pytest.raises(type(error)) as caught:
        next(results)
    assert caught.value is error


@pytest.mark.parametrize("some", [0, 2])
def test_a_task_that_says_stop_is_no_end(some):
    with pytest.raises(RuntimeError, match="StopIteration"):
        list(prepared(tasks_with(StopIteration(), 2), some, 1))


@pytest.mark.parametrize("some", [0, 2])
def test_a_source_of_tasks_that_fails(some):
    def tasks():
        yield lambda: 1
        raise Damaged("list.txt")

    with pytest.raises(Damaged):
        list(prepared(tasks(), some, 1))


def memory_left_behind(module):
    """Whether what a task was making when it failed is still there."""

    class Batch:
        pass

    made = []

    def fail():
        batch = Batch()
        made.append(weakref.ref(batch))
        raise Damaged

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(Damaged):
            next(module.prepared(iter([fail]), 1, 0))
        assert not still_alive(threads())
        return made[0]() is not None
    finally:
        gc.enable()


def test_an_error_leaves_no_memory_behind():
    """Its traceback holds frames, and these what was being made: not in a circle."""
    assert not memory_left_behind(workers)


# ---- beside the training step ----------------------------------------------------------------------------------


def who_computes(module):
    """The names of the threads that do a task's work, and how often BLAS was held to one thread meanwhile."""
    parallel.set_num_threads(4)
    x, names, users = np.ones((64, 1)), set(), []
    meeting = threading.Barrier(2)

    def some(s):
        names.add(threading.current_thread().name)
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(0.05)  # time for a second thread to come

    def task():
        users.append(parallel._blas_users)
        parallel.each_slice(some, x, 1 << 20)

    list(module.prepared(iter([task]), 1, 1))
    return names, users


def test_a_worker_computes_alone_and_with_one_thread_of_blas():
    """No helper does a part of its work: they are the training step's."""
    assert who_computes(workers) == ({"tinycnn-loader-0"}, [1])


def test_a_step_does_not_wait_for_a_batch():
    """All helpers at its service, while a batch computes with tinycnn's own layers."""
    parallel.set_num_threads(2)
    x, inside, go_on = np.ones((64, 1)), threading.Event(), threading.Event()

    def slowly(s):
        inside.set()
        assert go_on.wait(LONG)

    def batch():
        parallel.each_slice(slowly, x, 1 << 20)
        return "batch"

    results = prepared(iter([int, batch]), 1, 0)
    assert next(results) == 0
    assert inside.wait(LONG)
    (total,) = parallel.sum_slices(lambda s: (x[s].sum(),), x, 1 << 20)  # while that one is stuck
    assert total == 64
    go_on.set()
    assert list(results) == ["batch"]


@pytest.mark.parametrize("some", [0, 2])
def test_numpys_error_state_is_the_users(some):
    def task():
        return np.geterr()["over"], np.float32(1e30) * np.float32(1e30)

    with np.errstate(over="ignore"):
        assert list(prepared(iter([task] * 2), some, 0)) == [("ignore", np.inf)] * 2
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        list(prepared(iter([task]), some, 0))


@pytest.mark.parametrize("some", [0, 2])
def test_blas_has_its_threads_back_afterwards(some):
    before = [library.get() for library in parallel._blas_libraries()]
    list(prepared(iter([lambda: np.ones((8, 8)) @ np.ones((8, 8))] * 4), some, 1))
    assert not still_alive(threads())
    assert [library.get() for library in parallel._blas_libraries()] == before
    assert parallel._blas_users == 0


# ---- planted mistakes ------------------------------------------------------------------------------------------


def mutant(old, new):
    source = Path(workers.__file__).read_text(encoding="utf-8")
    assert source.count(old) == 1, f"workers.py no longer has the text {old!r}: plant the mistake anew"
    module = ModuleType("tinycnn.data.workers_mutant")
    module.__package__ = "tinycnn.data"
    exec(compile(source.replace(old, new).replace("@atexit.register\n", ""), "mutant", "exec"), module.__dict__)
    return module


ANY = "while not any(j.done.is_set() for j in waiting): pass"
FIRST = "job = next(j for j in waiting if j.done.is_set()); waiting.remove(job); result = job.outcome()"
PLANTED = {
    "results in the order in which they are done": (
        "result = waiting.popleft().outcome()",
        f"exec({ANY!r}); {FIRST}",
        lambda module: first_of_three(module, LONG) == 0,
    ),
    "helpers of the training step at work": (
        "parallel.work_alone()",
        "pass",
        lambda module: len(who_computes(module)[0]) == 1,
    ),
    "BLAS with all its threads": (
        "with parallel.single_threaded_blas():",
        "if True:",
        lambda module: who_computes(module)[1] == [1],
    ),
    "a traceback that holds itself": (
        "self.error = None  # its",
        "pass  # its",
        lambda module: not memory_left_behind(module),
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_are_caught(name):
    old, new, right = PLANTED[name]
    assert not right(mutant(old, new))
