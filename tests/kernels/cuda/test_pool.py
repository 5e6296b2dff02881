"""Pooling on a GPU against its specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels import pool
from tinycnn.kernels.window import Window

small = st.integers(1, 3)
CHANNELS = st.sampled_from([1, 2, 3, 4, 6, 8, 16, 40])
few = settings(max_examples=12)
ROUNDING = {"float64": 1e-12, "float32": 1e-5, "float16": 2**-10, "bfloat16": 2**-7}
"""Relative to the sum of the terms; those of 16 bits round results to 11 and to 8 bits, sums are of float32."""
DTYPES = pytest.mark.parametrize("dtype", ROUNDING)
ORDERS = pytest.mark.parametrize("backwards", ["0", "1"])


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@st.composite
def cases(draw):
    """(shape of x, window, seed) with at least one position; some windows lie on padding entirely."""
    kernel, stride, dilation = (tuple(draw(st.tuples(small, small))) for _ in range(3))
    padding = tuple((draw(st.integers(0, k)), draw(st.integers(0, k + 1))) for k in kernel)
    H, W = (draw(st.integers(d * (k - 1) + 1, 9)) for k, d in zip(kernel, dilation, strict=True))
    return (draw(small), H, W, draw(CHANNELS)), Window(kernel, stride, padding, dilation), draw(st.integers(0, 99))


def poisoned(gpu, shape, dtype):
    """Memory on the device with something in it that nobody may read."""
    return gpu.asarray(np.full(shape, 99 if np.dtype(dtype).kind == "u" else np.nan, dtype))


def on_host(x):
    return x.get().astype(np.float64)


def compare(own, wanted, dtype, scale=None):
    own = on_host(own)
    if scale is None:
        np.testing.assert_array_equal(own, wanted)
    else:
        assert np.isfinite(own).all()
        assert (np.abs(own - wanted) <= ROUNDING[dtype] * scale).all(), np.abs(own - wanted).max()


@ORDERS
@DTYPES
def test_maximum_and_the_way_back_are_their_specification(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    kind = dtype_of(dtype)

    @few
    @given(cases())
    def check(case):
        shape, window, seed = case
        rng = np.random.default_rng(seed)
        x = rng.integers(-4, 5, shape).astype(np.float64)  # many ties; sums of integers are exact
        x[rng.uniform(size=shape) < 0.05] = -np.inf
        y, winners = np.empty((shape[0], *window.out_size(*shape[1:3]), shape[3])), None
        own, own_too = poisoned(gpu, y.shape, kind), poisoned(gpu, y.shape, kind)
        winners, own_winners = np.empty(y.shape, np.uint8), poisoned(gpu, y.shape, np.uint8)
        on_device = gpu.asarray(x.astype(kind))
        pool.max_pool_winners(x, window, y, winners)
        pool.max_pool(on_device, window, own)
        pool.max_pool_winners(on_device, window, own_too, own_winners)
        compare(own, y, dtype)
        compare(own_too, y, dtype)
        np.testing.assert_array_equal(own_winners.get(), winners)
        dy = rng.integers(-9, 10, y.shape).astype(np.float64)
        dx, own_dx = np.empty(shape), poisoned(gpu, shape, kind)
        pool.max_pool_backward(dy, winners, window, dx)
        pool.max_pool_backward(gpu.asarray(dy.astype(kind)), own_winners, window, own_dx)
        compare(own_dx, dx, dtype)

    check()


def test_nan_and_infinity_are_treated_as_in_numpy(gpu):
    x = np.array([1, np.nan, 3, -np.inf, 0, 2, -np.inf, -np.inf, np.nan, np.nan, np.nan, 4], np.float32)
    x, window = x.reshape(1, 1, 12, 1), Window((1, 2), (1, 2), ((0, 0), (1, 2)))
    y, winners = np.empty((1, 1, 7, 1), np.float32), np.empty((1, 1, 7, 1), np.uint8)
    own, own_winners = gpu.empty(y.shape, np.float32), gpu.empty(y.shape, np.uint8)
    pool.max_pool_winners(x, window, y, winners)
    pool.max_pool_winners(gpu.asarray(x), window, own, own_winners)
    np.testing.assert_array_equal(own.get(), y)
    np.testing.assert_array_equal(own_winners.get(), winners)
    dy = np.array([1, np.inf, np.nan, 2, 3, 4, 5], np.float32).reshape(y.shape)
    dx, own_dx = np.empty_like(x), gpu.empty(x.shape, np.float32)
    pool.max_pool_backward(dy, winners, window, dx)
    pool.max_pool_backward(gpu.asarray(dy), own_winners, window, own_dx)
    np.testing.assert_array_equal(own_dx.get(), dx)


@pytest.mark.parametrize("C", [4, 5])
def test_windows_of_more_cells_than_a_byte_counts(gpu, C):
    x, window = np.random.default_rng(0).permutation(2 * 18 * 19 * C).astype(float), Window((17, 18), (1, 1))
    x = x.reshape(2, 18, 19, C)
    y, winners = np.empty((2, 2, 2, C)), np.empty((2, 2, 2, C), np.uint16)
    own, own_winners = gpu.empty(y.shape), gpu.empty(y.shape, np.uint16)
    pool.max_pool_winners(x, window, y, winners)
    pool.max_pool_winners(gpu.asarray(x), window, own, own_winners)
    assert winners.max() > 255
    np.testing.assert_array_equal(own.get(), y)
    np.testing.assert_array_equal(own_winners.get(), winners)
    dx, own_dx = np.empty_like(x), gpu.full(x.shape, np.nan)
    pool.max_pool_backward(y, winners, window, dx)
    pool.max_pool_backward(own, own_winners, window, own_dx)
    np.testing.assert_array_equal(own_dx.get(), dx)


@ORDERS
@DTYPES
def test_mean_and_the_way_back_are_their_specification(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    kind = dtype_of(dtype)

    @few
    @given(cases(), st.booleans(), st.sampled_from([None, None, 3, -2]))
    def check(case, include_pad, fixed):
        shape, window, seed = case
        divisor, rng = pool.Divisor(include_pad, fixed), np.random.default_rng(seed)
        pads = tuple((min(p[0], k // 2),) * 2 for p, k in zip(window.padding, window.kernel, strict=True))
        window = Window(window.kernel, window.stride, pads).ceiled(*shape[1:3])  # as in AvgPool2d
        x = rng.uniform(0, 1, shape).astype(kind).astype(np.float64)
        y = np.empty((shape[0], *window.out_size(*shape[1:3]), shape[3]))
        own = poisoned(gpu, y.shape, kind)
        pool.mean_pool(x, window, divisor, y)
        pool.mean_pool(gpu.asarray(x.astype(kind)), window, divisor, own)
        compare(own, y, dtype, np.abs(y) + 1e-30)
        dy = rng.uniform(0, 1, y.shape).astype(kind).astype(np.float64)
        dx, own_dx = np.empty(shape), poisoned(gpu, shape, kind)
        pool.mean_pool_backward(dy, window, divisor, dx)
        pool.mean_pool_backward(gpu.asarray(dy.astype(kind)), window, divisor, own_dx)
        compare(own_dx, dx, dtype, np.abs(dx) + 1e-30)

    check()


@ORDERS
@DTYPES
def test_bins_and_the_way_back_are_their_specification(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    kind = dtype_of(dtype)

    @few
    @given(st.tuples(small, st.integers(1, 9), st.integers(1, 9), CHANNELS), st.integers(1, 7), st.integers(1, 7))
    def check(shape, OH, OW):
        rng = np.random.default_rng(0)
        x = rng.uniform(0, 1, shape).astype(kind).astype(np.float64)
        y = np.empty((shape[0], OH, OW, shape[3]))
        own = poisoned(gpu, y.shape, kind)
        pool.bin_means(x, y)
        pool.bin_means(gpu.asarray(x.astype(kind)), own)
        compare(own, y, dtype, y)
        dx, own_dx = np.empty(shape), poisoned(gpu, shape, kind)
        pool.bin_means_backward(y.astype(kind).astype(float), dx)
        pool.bin_means_backward(gpu.asarray(y.astype(kind)), own_dx)
        compare(own_dx, dx, dtype, dx)

    check()


@ORDERS
@pytest.mark.parametrize("shape", [(2, 7, 7, 168), (3, 8, 8, 64), (1, 5, 13, 3), (2, 16, 17, 1)])
@pytest.mark.parametrize("bins", [(1, 1), (1, 2)])
def test_large_bins(gpu, monkeypatch, backwards, shape, bins):
    """More channels than a block takes, and more pixels than it has rows."""
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    x = np.random.default_rng(0).integers(-9, 10, shape).astype(float)
    y = np.empty((shape[0], *bins, shape[3]))
    own = gpu.full(y.shape, np.nan)
    pool.bin_means(x, y)
    pool.bin_means(gpu.asarray(x), own)
    np.testing.assert_allclose(own.get(), y, rtol=1e-14, atol=0)


def test_memory_that_is_not_aligned_is_pooled_by_single_numbers(gpu):
    memory, window = gpu.arange(2 * 4 * 4 * 8 + 1, dtype=np.float32), Window((2, 2), (2, 2))
    x, y = memory[1:].reshape(2, 4, 4, 8), gpu.empty((2, 2, 2, 8), np.float32)
    pool.max_pool(x, window, y)
    np.testing.assert_array_equal(y.get(), x.get()[:, 1::2, 1::2])


def test_nothing_is_launched_for_nothing(gpu):
    x, y, window = gpu.empty((0, 4, 4, 3)), gpu.empty((0, 2, 2, 3)), Window((2, 2), (2, 2))
    winners = gpu.empty(y.shape, np.uint8)
    pool.max_pool(x, window, y)
    pool.max_pool_winners(x, window, y, winners)
    pool.max_pool_backward(y, winners, window, x)
    pool.mean_pool(x, window, pool.Divisor(True, None), y)
    pool.mean_pool_backward(y, window, pool.Divisor(True, None), x)
    pool.bin_means(x, y)
    pool.bin_means(x, y[:, :1, :1])
    pool.bin_means_backward(y, x)


def test_a_layer_on_the_device_makes_one_launch_each_way(gpu, monkeypatch):
    from tinycnn import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool2d, MaxPool2d
    from tinycnn.kernels.cuda import module

    launched, call = [], module.Kernel.__call__

    def noted(kernel, *args, **kwargs):
        launched.append(kernel.name)
        call(kernel, *args, **kwargs)

    monkeypatch.setattr(module.Kernel, "__call__", noted)
    x = gpu.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 9, 8, 4))).transpose(0, 3, 1, 2)
    for layer in (MaxPool2d(3, 2, 1), AvgPool2d(2), AdaptiveAvgPool2d(3), GlobalAvgPool2d()):
        layer.backward(layer(x))
    assert launched == [
        *("max_pool_winners", "max_pool_backward", "mean_pool", "mean_pool_backward"),
        *("bin_means", "bin_means_backward", "bin_means_large", "bin_means_backward"),
    ]
