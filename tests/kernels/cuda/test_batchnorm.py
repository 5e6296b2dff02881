"""Batch normalisation on a GPU against its specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.backend import to_device, to_numpy
from tinycnn.kernels.cuda import batchnorm, module, norm
from tinycnn.kernels.norm import Running
from tinycnn.layers.batchnorm import BatchNorm2d, BatchNormReLU2d, batch_norm_backward, batch_norm_forward
from tinycnn.parameter import channels_last


def images(rng, shape, dtype=np.float64, offset=0.0):
    """Images on channels-last memory whose channels differ in mean and scale."""
    scale, mean = rng.uniform(0.3, 3, (2, 1, shape[1], 1, 1))
    return channels_last((offset + mean + scale * rng.standard_normal(shape)).astype(dtype))


def poison(gpu, monkeypatch):
    """Let `empty` hand out NaN and 255."""
    empty = gpu.empty

    def filled(shape, dtype=np.float64):
        x = empty(shape, dtype)
        x.fill(255 if np.dtype(dtype).kind == "u" else np.nan)
        return x

    monkeypatch.setattr(gpu, "empty", filled)


def both_ways(case, x, dy, shortcut, w, b, running, device):
    """y, dx, ds, dw, db and the running statistics, computed on a device."""
    measures, relu, momentum, add = (case[name] for name in ("measures", "relu", "momentum", "add"))
    x, dy, shortcut, w, b = (
        None if v is None else to_device(v.copy(order="K"), device) for v in (x, dy, shortcut, w, b)
    )
    running = running and Running(*(to_device(v.copy(), device) for v in running))
    y, statistics = batch_norm_forward(x, w, b, running, 1e-3, momentum, measures, shortcut, relu)
    sinks = [None if v is None else (v * 0 + (2 if add else np.nan), add) for v in (w, b)]
    dx, ds = batch_norm_backward(
        dy, x, statistics, w, tuple(sinks), y if relu else None,
        measured=measures, needs_dx=case["needs_dx"], shortcut=shortcut is not None,
    )  # fmt: skip
    results = [y, dx, ds, *(sink and sink[0] for sink in sinks), *(running or ())]
    return [None if v is None else to_numpy(v) for v in results]


CASES = st.fixed_dictionaries(
    {
        "shape": st.tuples(st.integers(1, 3), st.sampled_from([1, 3, 4, 6, 8, 20, 36, 72]), *[st.integers(1, 7)] * 2),
        "measures": st.booleans(),
        "relu": st.booleans(),
        "momentum": st.sampled_from([0.1, None]),
        "add": st.booleans(),
        "shortcut": st.booleans(),
        "affine": st.booleans(),
        "running": st.booleans(),
        "needs_dx": st.booleans(),
        "seed": st.integers(0, 99),
    }
)


def arrays(case, dtype=np.float64, parameters=np.float64, offset=0.0):
    """What the functions take."""
    rng, (N, C, H, W) = np.random.default_rng(case["seed"]), case["shape"]
    shape = (N + 1, C, H, W)
    x, dy, shortcut = (images(rng, shape, dtype, offset) for offset in (offset, 0, -0.5))
    w, b, mean, var = rng.uniform(0.5, 2, (4, C)).astype(parameters)
    running = Running(mean, var, np.array(3)) if case["running"] or not case["measures"] else None
    return x, dy, shortcut if case["shortcut"] else None, *((w, b) if case["affine"] else (None, None)), running


def assert_close(got, wanted, tolerance):
    """Arrays agree, relative to the largest number of each."""
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1))


BLOCKS = st.tuples(st.sampled_from([256, 96, 40, 33]), st.sampled_from([1, 3, 1000]))
"""Threads in a block, and about how many blocks: small ones give many runs of many rows to small images."""


@pytest.fixture
def blocks(monkeypatch):
    """A function that sets them."""

    def set_blocks(threads, most):
        monkeypatch.setattr(norm, "THREADS", threads)
        monkeypatch.setattr(batchnorm, "SUMMING", most)
        monkeypatch.setattr(batchnorm, "WRITING", most + 1)

    return set_blocks


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_both_ways_are_the_specification(gpu, monkeypatch, blocks, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    poison(gpu, monkeypatch)

    @settings(max_examples=60)
    @given(CASES, BLOCKS)
    def check(case, sizes):
        blocks(*sizes)
        given = arrays(case)
        assert_close(both_ways(case, *given, "cuda"), both_ways(case, *given, "cpu"), 1e-12)

    check()


def test_neither_the_order_of_blocks_nor_of_threads_changes_a_bit(gpu, monkeypatch, blocks):
    blocks(96, 7)
    case = {"measures": True, "relu": True, "momentum": None, "add": True, "needs_dx": True, "seed": 0}
    given = arrays({**case, "shape": (4, 72, 5, 6), "shortcut": True, "affine": True, "running": True}, np.float32, "f")
    results = []
    for backwards in ("0", "1"):
        monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
        results.append(both_ways(case, *given, "cuda"))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("far", [0, 1e3, -1e4])
def test_float32_keeps_its_digits_with_a_mean_far_from_zero(gpu, blocks, far):
    """Statistics to 1e-6 of the deviation, and gradients that follow from them, against sums in float64."""
    blocks(96, 7)
    rng, shape = np.random.default_rng(0), (4, 12, 21, 16)
    x = channels_last((far + rng.standard_normal(shape)).astype(np.float32))
    dy = images(rng, shape, np.float32)
    sinks = tuple((gpu.full(12, np.nan, np.float32), False) for _ in range(2))
    running = Running(*(gpu.full(12, v, np.float32) for v in (0, 0)), gpu.asarray(np.array(0)))
    y, statistics = batch_norm_forward(to_device(x, "cuda"), None, None, running, 1e-5, None, True)
    dx, _ = batch_norm_backward(to_device(dy, "cuda"), to_device(x, "cuda"), statistics, None, sinks)
    exact, dy, axes = x.astype(np.float64), dy.astype(np.float64), (0, 2, 3)
    mean, std = exact.mean(axes, keepdims=True), np.sqrt(exact.var(axes, keepdims=True) + 1e-5)
    x_hat = (exact - mean) / std
    dw, db = (dy * x_hat).sum(axes, keepdims=True), dy.sum(axes, keepdims=True)
    M = x.size // 12
    np.testing.assert_allclose(to_numpy(y), x_hat, rtol=0, atol=1.5e-6)
    np.testing.assert_allclose(to_numpy(dx), (dy - db / M - x_hat * dw / M) / std, rtol=0, atol=5e-6)
    np.testing.assert_allclose(sinks[0][0].get(), dw.ravel(), rtol=0, atol=2e-6 * np.sqrt(M) * 3)
    np.testing.assert_allclose(sinks[1][0].get(), db.ravel(), rtol=0, atol=2e-6 * np.sqrt(M) * 3)
    np.testing.assert_allclose(running.mean.get(), mean.ravel(), rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(running.var.get(), exact.var(axes, ddof=1), rtol=1e-6)
    assert running.count.get() == 1


def test_a_constant_channel_has_no_variance(gpu):
    x = gpu.full((2, 5, 4, 8), np.float32(123.456))
    y, _ = batch_norm_forward(x.transpose(0, 3, 1, 2), None, None, None, 1e-5, None, True)
    np.testing.assert_array_equal(y.get(), np.zeros((2, 8, 5, 4)))


@pytest.mark.parametrize("first", [1, 4, 64])
def test_rows_far_from_all_others_cost_few_digits(gpu, blocks, first):
    """Where the first rows of a run are far off, so is the number that deviations are taken from."""
    blocks(16, 1)
    x = np.random.default_rng(0).standard_normal((1, 1, 40, 50)).astype(np.float32)
    x.reshape(-1)[:first] += 1000
    running = Running(*(gpu.full(1, 0, np.float32) for _ in range(2)), gpu.asarray(np.array(0)))
    batch_norm_forward(gpu.asarray(x), None, None, running, 1e-5, 1.0, True)
    np.testing.assert_allclose(running.var.get(), [x.astype(np.float64).var(ddof=1)], rtol=1e-6)


HALF = {"float16": 2**-11, "bfloat16": 2**-8}
"""Relative error of rounding once."""


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_float32_rounded(gpu, monkeypatch, dtype):
    """Inputs are exact, statistics and sums those of float32; y, g and dx are rounded, dx from a rounded g."""
    dtype, rounding = (
        (np.dtype(pytest.importorskip("ml_dtypes").bfloat16) if dtype == "bfloat16" else np.dtype(dtype)),
        (HALF[dtype]),
    )
    poison(gpu, monkeypatch)

    @settings(max_examples=10)
    @given(CASES)
    def check(case):
        given = arrays(case, dtype, np.float32)
        single = [None if v is None else v.astype(np.float32) for v in given[:3]]
        got, wanted = both_ways(case, *given, "cuda"), both_ways(case, *single, *given[3:], "cuda")
        assert got[0].dtype == dtype
        gated = case["relu"] and (to_numpy(got[0]) > 0) != (wanted[0] > 0)
        if not np.any(gated):  # a y that rounds to 0 closes its gate
            assert_close(got[:3], wanted[:3], 3 * rounding)
            assert_close(got[3:], wanted[3:], 1e-5)

    check()


@pytest.mark.parametrize("shortcut", [False, True])
def test_a_nan_stays_and_lets_nothing_through(gpu, shortcut):
    x = gpu.asarray(np.array([[[[1, np.nan, -1, 2]]]], np.float32))
    fixed = Running(gpu.full(1, 0, np.float32), gpu.full(1, 1, np.float32), None)
    y, statistics = batch_norm_forward(x, None, None, fixed, 0.0, None, False, x * 0 if shortcut else None, True)
    np.testing.assert_array_equal(y.get().ravel(), [1, np.nan, 0, 2])
    dx, ds = batch_norm_backward(
        gpu.full(x.shape, 1, np.float32), x, statistics, None, (None, None), y, measured=False, shortcut=shortcut
    )
    np.testing.assert_array_equal(dx.get().ravel(), [1, 0, 0, 1])
    if shortcut:
        np.testing.assert_array_equal(ds.get().ravel(), [1, 0, 0, 1])


@pytest.mark.parametrize("layer", [BatchNorm2d, BatchNormReLU2d])
def test_a_step_of_a_layer_is_two_launches_each_way(gpu, monkeypatch, layer):
    names = []
    launch = module.Kernel.__call__
    monkeypatch.setattr(
        module.Kernel, "__call__", lambda self, *args, **kw: (names.append(self.name), launch(self, *args, **kw))
    )
    norm, x = layer(8).to("cuda"), to_device(images(np.random.default_rng(0), (2, 8, 3, 3), np.float32), "cuda")
    norm.zero_grad()
    norm.backward(norm(x))
    assert names == ["measure", "normalize", "add_up", "input_gradient"]
    names.clear()
    norm.eval(backward=True)
    norm.backward(norm(x))
    assert names == ["normalize_fixed", "add_up"]
