"""The batch-slice engine."""

import os
import signal
import threading

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel


@given(st.integers(0, 500), st.integers(0, 1 << 22))
def test_slices_cover_the_batch_once_in_order(N, item_bytes):
    slices = parallel.slice_batch(N, item_bytes)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(N))
    assert len(slices) == 1 or all(s.stop > s.start for s in slices)


def test_small_work_is_one_slice_and_large_work_a_multiple_of_the_lanes():
    assert len(parallel.slice_batch(64, 16)) == 1
    assert [len(parallel.slice_batch(64, n << 15)) for n in (1, 2, 3, 5, 9, 17)] == [2, 2, 4, 8, 16, 24]
    assert [len(parallel.slice_batch(6, n << 20)) for n in (1, 2, 3)] == [4, 6, 6]
    assert len(parallel.slice_batch(3, 1 << 24)) == 3


@given(st.integers(0, 40), st.integers(1, 60), st.integers(0, 1 << 20), st.integers(0, 1 << 23))
def test_pieces_of_images_are_all_rows_once(N, rows, row_bytes, shared):
    met = np.zeros((N, rows), int)
    pieces = parallel.slice_images(N, rows, row_bytes, shared)
    for images, band in pieces:
        met[images, band] += 1
        assert band == slice(0, rows) or images.stop - images.start == 1, "only single images are cut into bands"
    assert (met == 1).all()


def test_images_are_cut_into_bands_where_they_are_few_and_large():
    def cut(N, image_mib, shared_mib=0):
        pieces = parallel.slice_images(N, 64, image_mib << 20 >> 6, shared_mib << 20)
        return sorted({(s.stop - s.start, b.stop - b.start) for s, b in pieces})

    assert (cut(1, 0), cut(64, 0)) == ([(1, 64)], [(64, 64)])
    assert cut(1, 6) == [(1, 32)], "two bands, of 3 MiB"
    assert cut(1, 60) == [(1, 4)], "16, of 3.75 MiB"
    assert cut(2, 12) == [(1, 16)]
    assert cut(8, 3) == [(1, 64)], "eight images are work enough for all"
    assert cut(64, 1) == [(2, 64)]
    assert cut(1, 60, shared_mib=40) == [(1, 32)], "no smaller than what all touch"


def test_slices_do_not_depend_on_threads():
    parallel.set_num_threads(1)
    one = parallel.slice_batch(100, 300_000)
    parallel.set_num_threads(7)
    assert parallel.slice_batch(100, 300_000) == one


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_slice_is_worked_on_once(threads):
    parallel.set_num_threads(threads)
    x = np.zeros((101, 50_000), np.float32)

    def add_one(s):
        x[s] += 1

    parallel.each_slice(add_one, x)
    assert (x == 1).all()


def test_the_order_of_summation_is_fixed():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((200, 2000)) * 10.0 ** rng.integers(-6, 6, (200, 1))).astype(np.float32)
    sums = []
    for threads in (1, 2, 3, 6):
        parallel.set_num_threads(threads)
        sums.append(parallel.sum_slices(lambda s: (x[s].sum(axis=0), x[s].sum()), x, 1 << 18))
    for other in sums[1:]:
        np.testing.assert_array_equal(sums[0][0], other[0])
        assert sums[0][1] == other[1]
    np.testing.assert_allclose(sums[0][0], x.sum(axis=0, dtype=np.float64), rtol=1e-4, atol=1)


def test_a_sum_may_be_handed_over_in_scratch():
    parallel.set_num_threads(2)
    x = np.arange(40.0).reshape(40, 1)

    def task(s):
        part = parallel.scratch("part", (1,), np.float64)
        part[...] = x[s].sum()
        return (part,)

    (total,) = parallel.sum_slices(task, x, 1 << 20)
    assert total == x.sum()


def test_several_threads_really_work_at_once():
    parallel.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=20)
    x = np.zeros((8, 1))
    names = set()

    def task(s):
        if s.start < 2:
            meeting.wait()  # passes only if two threads are in a task at the same time
        names.add(threading.current_thread().name)

    parallel.each_slice(task, x, 1 << 22)
    assert len(names) == 2


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_error_in_a_slice_is_raised_and_the_engine_goes_on(threads):
    parallel.set_num_threads(threads)
    x = np.zeros((64, 1))

    def fail(s):
        if s.start <= 40 < s.stop:
            raise KeyError("slice 40")

    with pytest.raises(KeyError, match="slice 40"):
        parallel.each_slice(fail, x, 1 << 20)
    parallel.each_slice(lambda s: x[s].fill(3), x, 1 << 20)
    assert (x == 3).all()


def test_a_region_within_a_region_runs_on_its_own_thread():
    parallel.set_num_threads(2)
    x = np.zeros((16, 1))
    parallel.each_slice(lambda s: parallel.each_slice(lambda t: None, x, 1 << 20), x, 1 << 20)


def test_scratch_is_reused_by_name_and_private_to_a_thread():
    a = parallel.scratch("a", (3, 4), np.float32)
    assert np.shares_memory(a, parallel.scratch("a", (2, 2), np.float64))
    assert not np.shares_memory(a, parallel.scratch("b", (3, 4), np.float32))
    others = []
    thread = threading.Thread(target=lambda: others.append(parallel.scratch("a", (3, 4), np.float32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(a, others[0])


@pytest.fixture
def _blas_on_two_threads():
    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        assert 2 in blas_threads()
        yield


def blas_threads():
    return [library.get() for library in parallel._blas_libraries()]


def blas_threads_inside():
    inside = []
    parallel.each_slice(lambda s: inside.extend(blas_threads()), np.zeros((16, 1)), 1 << 20)
    return set(inside)


@pytest.mark.usefixtures("_blas_on_two_threads")
def test_blas_is_held_to_one_thread_inside_and_restored_outside():
    before = blas_threads()
    assert blas_threads_inside() == {1}
    assert blas_threads() == before


@pytest.mark.usefixtures("_blas_on_two_threads")
def test_blas_is_held_whichever_thread_asks_and_asked_before():
    before, inside = blas_threads(), []
    for _ in range(2):
        thread = threading.Thread(target=lambda: inside.append(blas_threads_inside()))
        thread.start()
        thread.join()
        inside.append(blas_threads_inside())
    assert inside == [{1}] * 4
    assert blas_threads() == before


@pytest.mark.usefixtures("_blas_on_two_threads")
def test_blas_is_held_though_another_thread_set_limits_of_its_own():
    taken, leave = threading.Event(), threading.Event()

    def take():
        for library in threadpoolctl.ThreadpoolController().lib_controllers:
            library.set_num_threads(library.num_threads)
        taken.set()
        leave.wait(20)

    thread = threading.Thread(target=take)
    thread.start()
    taken.wait(20)
    assert blas_threads_inside() == {1}
    leave.set()
    thread.join()


@pytest.mark.usefixtures("_blas_on_two_threads")
def test_blocks_that_overlap_are_counted():
    before = blas_threads()
    entered, leave = threading.Event(), threading.Event()

    def other():
        with parallel.single_threaded_blas():
            entered.set()
            leave.wait(20)

    with parallel.single_threaded_blas():
        thread = threading.Thread(target=other)
        thread.start()
        entered.wait(20)
    assert set(blas_threads()) <= {1}
    leave.set()
    thread.join()
    assert blas_threads() == before


def test_ufunc_buffers_are_small_inside_and_restored_outside():
    parallel.set_num_threads(2)
    before, inside = np.getbufsize(), []
    x = np.zeros((64, 1))
    parallel.each_slice(lambda s: inside.append(np.getbufsize()), x, 1 << 20)
    assert set(inside) == {parallel.BUFFER_SIZE}
    with pytest.raises(ZeroDivisionError):
        parallel.each_slice(lambda s: 1 // 0, x)
    assert np.getbufsize() == before


def test_numpys_error_state_reaches_every_thread():
    parallel.set_num_threads(3)
    x = np.zeros((64, 1))
    with np.errstate(divide="ignore"):
        parallel.each_slice(lambda s: np.log(x[s]), x, 1 << 20)  # would warn, and warnings are errors here
    with np.errstate(divide="raise"), pytest.raises(FloatingPointError):
        parallel.each_slice(lambda s: np.log(x[s]), x, 1 << 20)


def test_threads_must_be_positive():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        parallel.set_num_threads(0)


def test_the_number_of_threads_may_change_while_others_work():
    x, errors = np.zeros((64, 1)), []

    def work():
        try:
            for _ in range(100):
                parallel.each_slice(lambda s: x[s].sum(), x, 1 << 20)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(200):
        parallel.set_num_threads(1 + i % 3)
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_child_starts_afresh():
    parallel.set_num_threads(2)
    x, before = np.ones((64, 1)), blas_threads()
    parallel.each_slice(lambda s: None, x, 1 << 20)
    with parallel.single_threaded_blas():
        child = os.fork()
        if child == 0:
            signal.alarm(20)  # a lock that nobody releases ends it, and the test fails
            (total,) = parallel.sum_slices(lambda s: (x[s].sum(),), x, 1 << 20)
            os._exit(0 if total == 64 and blas_threads() == before and parallel._blas_users == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
