"""Tasks captured as graphs: what is done when, on whose memory, and what is left when it fails."""

import gc
import weakref

import numpy as np
import pytest

from tinycnn.kernels.cuda import graph, places
from tinycnn.kernels.cuda.graph import CapturedTask


def warmed(gpu, task):
    captured = CapturedTask(gpu.zeros(1))
    for _ in range(3):
        captured.run(task)
    return captured


def test_a_replay_does_what_was_captured_with_what_is_there_now(gpu):
    x, y = gpu.zeros(4), gpu.zeros(4)

    def task():
        t = gpu.exp(x) + 1  # a temporary
        y[...] = t * 2
        return t.sum()

    captured = warmed(gpu, task)
    y.fill(-1)
    captured.capture(task)
    np.testing.assert_array_equal(y.get(), -1)  # capturing does nothing
    for value in (0.0, 1.0, 2.0):
        x.fill(value)
        total = captured.replay()
        np.testing.assert_array_equal(y.get(), (np.exp(np.full(4, value)) + 1) * 2)
        assert float(total) == pytest.approx(4 * (np.exp(value) + 1), rel=1e-15)


def test_temporaries_are_the_graphs_own(gpu):
    """What others allocate and write between replays is not where the graph's temporaries are."""
    x = gpu.arange(1000.0)
    captured = warmed(gpu, lambda: (x * 2 + 1) * 3)
    captured.capture(lambda: (x * 2 + 1) * 3)
    wanted = (np.arange(1000.0) * 2 + 1) * 3
    for _ in range(3):
        others = [gpu.full(1000, np.nan) for _ in range(20)]
        np.testing.assert_array_equal(captured.replay().get(), wanted)
        assert all(bool(gpu.isnan(other).all()) for other in others)
    assert captured.nbytes > 0


@pytest.mark.parametrize(
    "trouble",
    [
        lambda xp, x: float(x.sum()),
        lambda xp, x: xp.asarray(np.ones(3)),
        lambda xp, x: x.get(),
        lambda xp, x: xp.matmul(x.reshape(2, 2), x.reshape(2, 2)),
        lambda xp, x: xp.cuda.get_current_stream().synchronize(),
        lambda xp, x: 1 / 0,
    ],
)
def test_after_a_failure_all_is_as_before(gpu, trouble):
    x = gpu.ones(4)

    def task():
        nonlocal x
        x += 1
        trouble(gpu, x)

    captured = CapturedTask(x)
    with pytest.raises((RuntimeError, NotImplementedError, ZeroDivisionError)):
        captured.capture(task)
    assert not captured.is_captured
    assert not captured._stream.is_capturing()
    assert gc.isenabled()
    np.testing.assert_array_equal(x.get(), 1)
    captured.close()
    np.testing.assert_array_equal((x + 1).get(), 2)  # this stream is not capturing
    again = CapturedTask(x)
    again.capture(lambda: x.fill(5))
    again.replay()
    np.testing.assert_array_equal(x.get(), 5)


def test_memory_that_somebody_still_uses_is_not_given_up(gpu):
    captured = CapturedTask(gpu.zeros(1))
    pool = captured._pool
    kept = captured.run(lambda: gpu.arange(5.0))
    before = len(graph._lingering)
    captured.close()
    assert any(p is pool for p in graph._lingering)
    np.testing.assert_array_equal(kept.get(), np.arange(5.0))
    del kept
    gc.collect()
    CapturedTask(gpu.zeros(1)).close()
    assert len(graph._lingering) <= before


def test_a_task_that_is_forgotten_gives_its_memory_up_too(gpu):
    captured = CapturedTask(gpu.zeros(1))
    kept = captured.run(lambda: gpu.ones(3))
    pool = captured._pool
    del captured
    gc.collect()
    assert any(p is pool for p in graph._lingering)
    del kept
    CapturedTask(gpu.zeros(1)).close()
    assert not any(p is pool for p in graph._lingering)


def test_the_limit_of_memory_is_kept(gpu):
    shared = gpu.get_default_memory_pool()
    x = gpu.zeros(1000)
    shared.set_limit(size=shared.used_bytes() + (1 << 20))
    try:
        with pytest.raises(MemoryError):
            CapturedTask(x).run(lambda: gpu.zeros(1 << 20))
    finally:
        shared.set_limit(size=0)


def test_tables_that_a_graph_may_read_stay_as_long_as_it(gpu):
    x = gpu.zeros(4)
    table = weakref.ref(places.places([x]))
    captured = warmed(gpu, lambda: x.fill(1))
    captured.capture(lambda: x.fill(1))
    others = [gpu.zeros(3) for _ in range(places.KEPT)]
    for other in others:
        places.places([other])
    gc.collect()
    assert table() is not None
    captured.close()
    gc.collect()
    assert table() is None
