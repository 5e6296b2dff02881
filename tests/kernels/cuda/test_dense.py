"""Dense blocks' kernels on a GPU against their specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import DenseBlock
from tinycnn.backend import to_device, to_numpy
from tinycnn.kernels import dense as specification
from tinycnn.kernels.cuda import dense, module, norm
from tinycnn.kernels.norm import Running
from tinycnn.layers.dense import channel_moments

COLUMNS = st.sampled_from([0, 1, 2, 4, 8])
CASES = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 4, 6, 8, 20, 36, 72]), *[st.integers(1, 7)] * 2),
        "before": COLUMNS,
        "behind": COLUMNS,
        "measures": st.booleans(),
        "momentum": st.sampled_from([0.1, None]),
        "add": st.booleans(),
        "affine": st.booleans(),
        "running": st.booleans(),
        "needs_dx": st.booleans(),
        "seed": st.integers(0, 99),
    }
)
BLOCKS = st.tuples(st.sampled_from([256, 96, 40, 33]), st.sampled_from([1, 3, 1000]))


@pytest.fixture
def blocks(monkeypatch):
    """A function that sets the threads in a block, and about how many blocks."""

    def set_blocks(threads, most):
        monkeypatch.setattr(norm, "THREADS", threads)
        monkeypatch.setattr(dense, "SUMMING", most)
        monkeypatch.setattr(dense, "WRITING", most + 1)

    return set_blocks


def poison(gpu, monkeypatch):
    """Let `empty` hand out NaN."""
    empty = gpu.empty

    def filled(shape, dtype=np.float64):
        x = empty(shape, dtype)
        x.fill(np.nan)
        return x

    monkeypatch.setattr(gpu, "empty", filled)


def both_ways(case, device, dtype=np.float64, offset=0.0):
    """All that a layer and the block around it compute on a device: new moments, y, sums, dx and what is around it."""
    rng, (N, C, H, W) = np.random.default_rng(case["seed"]), case["shape"]
    own, before, behind = slice(case["before"], case["before"] + C), case["before"], case["behind"]
    shape, kind = (N + 1, H, W, before + C + behind), np.float64 if dtype == np.float64 else np.float32

    def on(x):
        return to_device(x, device)

    whole = (offset + rng.uniform(0.3, 3, shape[3]) * rng.standard_normal(shape)).astype(dtype)
    gradients = rng.standard_normal((*shape[:3], shape[3] + 4)).astype(kind)  # another pitch
    whole, gradients = (on(v).transpose(0, 3, 1, 2) for v in (whole, gradients))
    x, dx = whole[:, own], gradients[:, own]
    dy = on(rng.standard_normal((N + 1, H, W, C)).astype(dtype)).transpose(0, 3, 1, 2)
    w, b, mean, var = rng.uniform(0.5, 2, (4, C)).astype(kind)
    running = Running(on(mean), on(var), on(np.array(3))) if case["running"] or not case["measures"] else None
    w, b = (on(w), on(b)) if case["affine"] else (None, None)
    moments, correction = (on(v) for v in rng.uniform(1, 2, (2, 2, shape[3])))
    fresh = on(np.ascontiguousarray(to_numpy(x).transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    channel_moments(fresh, moments[:, own])
    known = moments[:, own] if case["measures"] else None
    statistics = specification.channel_statistics(x, known, w, b, running, 1e-3, case["momentum"])
    y = specification.norm_relu_forward(x, statistics, w, b)
    sinks = tuple(None if w is None else (w * 0 + (2 if case["add"] else np.nan), case["add"]) for _ in range(2))
    specification.norm_relu_backward(
        *(dy, y, x, statistics, w, sinks),
        *(dx if case["needs_dx"] else None, correction[:, own] if case["measures"] else None),
    )
    finished = specification.corrected(dx, x, known, correction[:, own])
    results = [moments, y, gradients, correction, finished, *(sink and sink[0] for sink in sinks), *(running or ())]
    return [None if v is None else to_numpy(v) for v in results]


def assert_close(got, wanted, tolerance):
    """Arrays agree, relative to the largest number of each."""
    for i, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert (a is None) == (b is None)
        if a is not None:
            b = b.astype(np.float64)
            np.testing.assert_allclose(
                a.astype(np.float64), b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1), err_msg=f"{i}"
            )


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_all_steps_are_the_specification(gpu, monkeypatch, blocks, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    poison(gpu, monkeypatch)

    @settings(max_examples=80)
    @given(CASES, BLOCKS)
    def check(case, sizes):
        blocks(*sizes)
        assert_close(both_ways(case, "cuda"), both_ways(case, "cpu"), 1e-11)

    check()


CASE = {
    **{"shape": (3, 72, 5, 6), "before": 4, "behind": 8, "measures": True, "momentum": None, "add": True},
    **{"affine": True, "running": True, "needs_dx": True, "seed": 0},
}


def test_neither_the_order_of_blocks_nor_of_threads_changes_a_bit(gpu, monkeypatch, blocks):
    blocks(96, 7)
    results = []
    for backwards in ("0", "1"):
        monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
        results.append(both_ways(CASE, "cuda", np.float32))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


def test_float32_keeps_its_digits_with_a_mean_far_from_zero(gpu, blocks):
    blocks(96, 7)
    assert_close(both_ways(CASE, "cuda", np.float32, 1e5), both_ways(CASE, "cpu", np.float32, 1e5), 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_float32_rounded(gpu, monkeypatch, dtype):
    """Inputs are exact, statistics, sums and gradients that wait are those of float32; y and the result are rounded."""
    dtype, rounding = {
        "float16": lambda: (np.dtype(np.float16), 2**-11),
        "bfloat16": lambda: (np.dtype(pytest.importorskip("ml_dtypes").bfloat16), 2**-8),
    }[dtype]()
    poison(gpu, monkeypatch)
    own = slice(CASE["before"], CASE["before"] + CASE["shape"][1])
    whole = both_ways(CASE, "cuda", dtype)
    assert [x.dtype for x in whole[1:5]] == [dtype, np.float32, np.float64, dtype]
    rng, shape = np.random.default_rng(0), (4, 5, 6, 84)
    x = (rng.uniform(0.3, 3, 84) * rng.standard_normal(shape)).astype(dtype).astype(np.float64)[..., own]
    np.testing.assert_allclose(whole[0][0, own], x.mean((0, 1, 2)), rtol=0, atol=1e-7)
    np.testing.assert_allclose(whole[0][1, own], x.var((0, 1, 2)), rtol=1e-6)
    exact = both_ways(CASE, "cuda", np.float32)
    assert_close(whole[1:2], exact[1:2], 4 * rounding)


def test_pitches_and_places_that_wide_loads_cannot_have(gpu):
    whole = gpu.zeros((2, 3, 4, 24), np.float32).transpose(0, 3, 1, 2)
    assert dense.Parts(whole[:, :8]).V == 4
    assert dense.Parts(whole[:, 4:12]).V == 4
    assert dense.Parts(whole[:, 2:10]).V == 1
    assert dense.Parts(whole[:, :6]).V == 1
    odd = gpu.zeros((2, 3, 4, 23), np.float32).transpose(0, 3, 1, 2)
    assert dense.Parts(odd[:, :8]).V == 1
    assert dense.Parts(whole[:, :8], odd[:, :8]).V == 1
    assert dense.Parts(whole[:, :8]).pitches == [24]


def test_a_nan_stays_and_lets_nothing_through(gpu):
    whole = gpu.asarray(np.array([1, 9, np.nan, 9, -1, 9, 2, 9], np.float32).reshape(1, 1, 4, 2)).transpose(0, 3, 1, 2)
    x, dx = whole[:, :1], gpu.zeros((1, 1, 4, 2), np.float32).transpose(0, 3, 1, 2)[:, :1]
    fixed = Running(gpu.full(1, 0, np.float32), gpu.full(1, 1, np.float32), None)
    statistics = specification.channel_statistics(x, None, None, None, fixed, 0.0, None)
    y = specification.norm_relu_forward(x, statistics, None, None)
    np.testing.assert_array_equal(y.get().ravel(), [1, np.nan, 0, 2])
    dy = gpu.full((1, 1, 1, 4), 1, np.float32)
    specification.norm_relu_backward(dy, y, x, statistics, None, (None, None), dx)
    np.testing.assert_array_equal(to_numpy(dx).ravel(), [1, 0, 0, 1])


def test_what_a_step_of_a_block_launches(gpu, monkeypatch):
    names, launch = [], module.Kernel.__call__

    def note(self, *args, **options):
        if self.file == "dense":
            names.append(self.name)
        return launch(self, *args, **options)

    monkeypatch.setattr(module.Kernel, "__call__", note)
    block, x = DenseBlock(8, 4, 2).to("cuda"), to_device(np.zeros((2, 3, 3, 8), np.float32), "cuda")
    block.zero_grad()
    y = block(x.transpose(0, 3, 1, 2))
    assert names == ["measure_part", "know", "normalize_part"] * 2
    names.clear()
    block.backward(y)
    assert names == ["correct", "add_up_part", "correct", "add_up_part", "correct"]
