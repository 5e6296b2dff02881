"""Threads of a loader end: however their iterator is left, and with the program."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from functools import partial

import pytest
from small_tasks import LONG, Damaged, Gate, still_alive, threads

from tinycnn.data.workers import prepared

pytestmark = pytest.mark.usefixtures("in_time", "no_thread_is_left")


def leave_by_break(results):
    for _ in results:
        break


def leave_by_error(results):
    with contextlib.suppress(Damaged):
        for _ in results:
            raise Damaged


def leave_in_a_circle(results):
    circle = [results]
    circle.append(circle)
    del circle, results


LEAVING = {
    "break": leave_by_break,
    "error": leave_by_error,
    "close": lambda results: results.close(),
    "garbage": leave_in_a_circle,
}


@pytest.mark.parametrize("how", LEAVING)
def test_leaving_ends_the_threads_and_begins_nothing_more(how):
    gate = Gate(9)
    gate.open(0)
    results = prepared(gate.tasks, 2, 3)
    assert next(results) == 0
    gate.begun[1].wait(LONG)
    gate.begun[2].wait(LONG)
    crew = threads()
    assert len(crew) == 2
    if how in ("break", "error"):
        gate.open(1)  # one more is taken, and with it 3 begins
        assert gate.begun[3].wait(LONG)
    LEAVING[how](results)
    del results
    gc.collect()
    begun = gate.numbers()
    gate.open(*range(9))
    assert not still_alive(crew)
    assert gate.numbers() == begun


def test_ctrl_c_while_waiting():
    gate, waits = Gate(4), threading.Event()
    gate.open(0)

    def interrupted():
        assert waits.wait(LONG)
        while not gate.may_end[1].wait(0.3):  # one that comes just before the waiting begins wakes nobody
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return gate.task(1)

    results = prepared(iter([partial(gate.task, 0), interrupted, *list(gate.tasks)[2:]]), 1, 1)
    assert next(results) == 0

    def wait_and_take():
        waits.set()
        next(results)

    with pytest.raises(KeyboardInterrupt):
        wait_and_take()
    gate.open(1)
    assert not still_alive(threads())
    assert gate.numbers() in ([0], [0, 1])


def test_many_iterators_at_once_and_no_thread_too_many():
    before = threading.active_count()
    several = [prepared(iter([partial(divmod, i, 7) for i in range(30)]), 2, 1) for _ in range(5)]
    for i, results in enumerate(zip(*several, strict=True)):
        assert set(results) == {divmod(i, 7)}
        assert len(threads()) <= 10
    assert not still_alive(threads())
    assert threading.active_count() == before


def test_no_more_threads_than_tasks():
    results = prepared(iter([int, int]), 7, 0)
    next(results)
    assert len(threads()) <= 2
    results.close()


PROGRAM = """
import os, threading, time
from tinycnn.data import workers
workers.PATIENCE = 0.2
begun, never = threading.Event(), threading.Event()
def task():
    begun.set()
    {what}
results = workers.prepared(iter([int] + 5 * [task]), 2, 2)
next(results)
begun.wait()
print("end of the program", flush=True)
"""


@pytest.mark.parametrize("what", ["never.wait()", "return time.sleep(0.05)", "return sum(range(1000))"])
def test_a_program_ends_with_an_iterator_half_way(what):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(what=what)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of the program\n", "")


def test_a_task_that_is_under_way_when_the_program_ends_is_not_cut_off():
    what = "time.sleep(0.2); os.write(1, b'task done\\n')"
    program = PROGRAM.format(what=what).replace("0.2\nbegun", "20\nbegun")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[:2] == ["end of the program", "task done"]
    assert done.stdout.count("task done") <= 2, "and no other is begun"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_goes_on_by_itself():
    results = prepared(iter([partial(pow, i, 2) for i in range(6)]), 2, 1)
    assert next(results) == 0
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(LONG)
        os._exit(0 if list(results) == [1, 4, 9, 16, 25] else 1)
    assert list(results) == [1, 4, 9, 16, 25]
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
