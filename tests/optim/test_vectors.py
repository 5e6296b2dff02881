import numpy as np
import pytest

from tinycnn import parallel
from tinycnn.optim import vectors
from tinycnn.optim.vectors import WORKING_SET, add_square, cut, lerp, memory_order, numbers, run_all, with_work
from tinycnn.parameter import Parameter


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(parallel, "_num_threads", 2)


def test_lerp_and_add_square_by_hand():
    average, x, a = np.array([1.0, 2.0]), np.array([3.0, -2.0]), np.empty(2)
    lerp(average, x, 0.25, a)
    np.testing.assert_array_equal(average, [1.5, 1.0])
    add_square(average, x, 0.5, 0.25, a)
    np.testing.assert_array_equal(average, [0.75 + 2.25, 0.5 + 1.0])


def rows_of(sizes, dtype=np.float32):
    return [(np.arange(size, dtype=dtype), np.zeros(size, dtype)) for size in sizes]


@pytest.mark.parametrize("sizes", [[1], [0], [], [5, 0, 7], [300_000], [10, 1_000_003, 3, 400_000, 16], [17] * 100])
def test_every_element_is_in_one_stretch_and_in_order(sizes):
    rows = rows_of(sizes)
    batches = cut(rows, work=2)
    stretches = [stretch for batch in batches for stretch in batch.stretches]
    for _, counts in stretches:
        counts += 1
    assert all((counts == 1).all() for _, counts in rows)
    values = np.concatenate([x for x, _ in stretches]) if stretches else np.empty(0)
    np.testing.assert_array_equal(values, np.concatenate([x for x, _ in rows]) if rows else np.empty(0))
    for batch in batches:
        assert batch.longest == max(len(x) for x, _ in batch.stretches)
        assert batch.longest * 4 * (2 + 2) <= WORKING_SET + 4 * 4 * 16


@pytest.mark.parametrize("size", [*range(30, 70), 255, 256, 257, 1000, 1041])
def test_no_element_is_left_over_at_an_end(size, monkeypatch):
    monkeypatch.setattr(vectors, "WORKING_SET", 32 * 3 * 4)  # 32 elements of two vectors and a work array
    stretches = [stretch for batch in cut(rows_of([size]), work=1) for stretch in batch.stretches]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in stretches]), np.arange(size))
    assert all(0 < len(x) <= 32 for x, _ in stretches)


def test_stretches_begin_at_cache_lines_and_do_not_depend_on_threads(monkeypatch):
    ((x, y),) = rows_of([1_000_003])
    cuts = {}
    for threads in (1, 2, 5):
        monkeypatch.setattr(parallel, "_num_threads", threads)
        cuts[threads] = [part[0] for batch in cut([(x, y)], work=1) for part, _ in batch.stretches]
    assert cuts[1] == cuts[2] == cuts[5]
    assert all(start % 16 == 0 for start in cuts[1])


def test_threads_share_evenly():
    batches = cut(rows_of([2_000_000, *[100] * 50, 2_000_000]), work=1)
    sizes = [sum(len(x) for x, _ in batch.stretches) for batch in batches]
    assert len(sizes) == 2
    assert max(sizes) < 1.1 * min(sizes)
    assert len(cut(rows_of([1000] * 5), work=1)) == 1  # not worth a second thread


def test_work_arrays_fit_their_stretch_and_no_two_share_memory():
    for batch in cut(rows_of([1_000_003, 7], np.float64), work=2):
        for x, y, a, b in with_work(batch, ("a", "b")):
            assert x.shape == y.shape == a.shape == b.shape
            assert a.dtype == b.dtype == np.float64
            assert not any(np.shares_memory(p, q) for p, q in [(a, b), (a, x), (b, y)])
    (batch,) = cut(rows_of([7]), work=1)
    ((_, _, a),) = with_work(batch, ("a",), np.float64)
    assert a.dtype == np.float64


@pytest.mark.parametrize("size", [10, 300_000])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 40])
def test_every_task_runs_once(count, size):
    calls = [0] * count

    def call(i):
        calls[i] += 1

    run_all([lambda i=i: call(i) for i in range(count)], cut(rows_of([size]), work=1)[:1] * count)
    assert calls == [1] * count


def test_numbers_keep_the_type_and_change_no_bit():
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    (c,) = numbers(x, 0.1)
    assert c.dtype == np.float32
    np.testing.assert_array_equal(x * c, x * 0.1)
    assert (x * c).dtype == np.float32


def test_memory_order_is_a_view_in_the_order_of_memory():
    for shape in [(2, 3, 4, 5), (6, 7), (5,)]:
        x = Parameter(np.arange(float(np.prod(shape))).reshape(shape)).data
        flat = memory_order(x)
        assert np.shares_memory(flat, x)
        assert flat.flags.c_contiguous
        np.testing.assert_array_equal(np.sort(flat), np.sort(x, axis=None))
