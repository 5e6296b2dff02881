"""Dropout on a GPU: the very masks of the CPU, drawn again on the way back, and anew in every replay of a graph."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import Checkpointed, Dropout, Dropout2d, Sequential, StochasticDepth
from tinycnn.kernels.cuda import dropout as twins
from tinycnn.kernels.dropout import dropout, dropout_backward

KINDS = {
    "each": lambda N, H, W, C: (N, H, W, C),
    "channels": lambda N, H, W, C: (N, 1, 1, C),
    "images": lambda N, H, W, C: (N, 1, 1, 1),
    "batch": lambda N, H, W, C: (1, 1, 1, 1),
}
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 8, 24, 56]))


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


def both_ways(gpu, x, key, step, p, parts):
    """y, dx and the place afterwards, on the device."""
    place, x = gpu.asarray(np.array([key, step], np.uint64)), gpu.asarray(x)
    y, mask = dropout(x, place, p, parts)
    dropout_backward(x, mask, p, parts)  # moves nothing on
    return y.get(), dropout_backward(x, mask, p, parts).get(), place.get().tolist()


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_its_specification_to_the_last_bit(gpu, monkeypatch, backwards, dtype, kind):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    dtype = dtype_of(dtype)

    @settings(max_examples=8)
    @given(SHAPES, st.sampled_from([0.5, 0.25, 0.3, 0.9, 1.0]), st.integers(0, 2**63 - 1), st.integers(0, 2**40))
    def check(shape, p, key, step):
        x = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
        place, parts = np.array([key, step], np.uint64), KINDS[kind](*shape)
        # 16 bits are multiplied in float32 and rounded once
        wanted, _ = dropout(x.astype(np.float32) if dtype.itemsize == 2 else x, place, p, parts)
        y, dx, after = both_ways(gpu, x, key, step, p, parts)
        np.testing.assert_array_equal(y, wanted.astype(dtype))
        np.testing.assert_array_equal(dx, y)
        assert after == [key, step + 1]

    check()


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("size", [0, 1, 31, 1023, 1024, 1025, 9000])
@pytest.mark.parametrize("blocks", [None, 1])
def test_rows_of_any_length(gpu, monkeypatch, p, size, blocks):
    if blocks:
        monkeypatch.setattr(twins, "blocks_for", lambda n: blocks)
    x = np.random.default_rng(0).uniform(1, 2, size).astype(np.float32)
    wanted, _ = dropout(x, np.array([3, 4], np.uint64), p, x.shape)
    y, dx, after = both_ways(gpu, x, 3, 4, p, x.shape)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(dx, wanted)
    assert after == [3, 5]


@pytest.mark.parametrize("shape", [(2, 3, 2, 1300), (2, 3, 2, 1299), (2, 30, 20, 24), (2, 30, 20, 3)])
def test_more_channels_than_threads_and_more_pixels(gpu, shape):
    x, parts = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32), KINDS["channels"](*shape)
    wanted, _ = dropout(x, np.array([3, 4], np.uint64), 0.5, parts)
    np.testing.assert_array_equal(both_ways(gpu, x, 3, 4, 0.5, parts)[0], wanted)


def test_memory_that_is_not_aligned(gpu):
    memory, place = gpu.arange(4097, dtype=np.float32), gpu.asarray(np.array([3, 4], np.uint64))
    x = memory[1:]
    y, _ = dropout(x, place, 0.5, x.shape)
    np.testing.assert_array_equal(y.get(), dropout(x.get(), np.array([3, 4], np.uint64), 0.5, x.shape)[0])


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_as_many_are_kept_as_asked(gpu, p):
    x = gpu.ones(200_000, np.float32)
    y, _ = dropout(x, gpu.asarray(np.array([11, 0], np.uint64)), p, x.shape)
    kept = (y.get() != 0).sum()
    assert abs(kept - x.size * (1 - p)) < 5 * math.sqrt(x.size * p * (1 - p))


@pytest.mark.parametrize("make", [Dropout, Dropout2d, lambda p, rng: StochasticDepth(p, "row", rng=rng)])
def test_the_random_state_goes_between_devices(gpu, make):
    x = np.random.default_rng(0).uniform(1, 2, (6, 4, 5, 3))
    on_cpu, on_gpu = (make(0.4, rng=np.random.default_rng(1)) for _ in range(2))
    for _ in range(3):
        np.testing.assert_array_equal(on_gpu(gpu.asarray(x)).get(), on_cpu(x))
    state = on_gpu.random_state()
    assert on_gpu.stream.step == 3
    masks = [on_gpu(gpu.asarray(x)).get() for _ in range(2)]
    on_gpu.set_random_state(state)
    np.testing.assert_array_equal(on_gpu(gpu.asarray(x)).get(), masks[0])
    np.testing.assert_array_equal(on_gpu(x), masks[1])  # back on the CPU
    on_cpu.set_random_state(state)
    np.testing.assert_array_equal(on_cpu(x), masks[0])
    on_gpu(gpu.asarray(x))
    on_gpu.stream.seed(5)
    assert on_gpu.stream.place.get().tolist() == [5, 0]


def captured(gpu, run):
    """A graph of what ``run`` launches, after a warm-up; and what run returned."""
    stream = gpu.cuda.Stream(non_blocking=True)
    with stream:
        run()
        stream.begin_capture()
        result = run()
        graph = stream.end_capture()
    return stream, graph, result


@pytest.mark.parametrize("wrap", [lambda layer: layer, Checkpointed], ids=["plain", "checkpointed"])
def test_every_replay_of_a_graph_draws_anew(gpu, wrap):
    x = np.random.default_rng(0).uniform(1, 2, (4, 5, 6, 3))

    def make():
        dropouts = Dropout(0.3, rng=np.random.default_rng(1)), Dropout2d(0.5, rng=np.random.default_rng(2))
        return wrap(Sequential(*dropouts))

    layer, reference, held = make(), make(), gpu.asarray(x)

    def step():
        y = layer(held)
        return y, layer.backward(held)

    pool = gpu.cuda.MemoryPool()
    with gpu.cuda.using_allocator(pool.malloc):
        stream, graph, (y, dx) = captured(gpu, step)
    reference(x)  # the warm-up
    reference.backward(x)
    for _ in range(4):
        graph.launch(stream)
        stream.synchronize()
        np.testing.assert_array_equal(y.get(), reference(x))
        np.testing.assert_array_equal(dx.get(), reference.backward(x))
    assert {k: [int(v) for v in s] for k, s in layer.random_state().items()} == reference.random_state()
