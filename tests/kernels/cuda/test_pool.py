"""Pooling on a GPU against its specification."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels import pool
from tinycnn.kernels.window import Window

small = st.integers(1, 3)


@st.composite
def cases(draw):
    """(shape of x, window) with at least one position."""
    kernel, stride, dilation = (tuple(draw(st.tuples(small, small))) for _ in range(3))
    padding = tuple((draw(st.integers(0, k - 1)), draw(st.integers(0, k - 1))) for k in kernel)
    window = Window(kernel, stride, padding, dilation)
    H, W = (draw(st.integers(d * (k - 1) + 1, 9)) for k, d in zip(kernel, dilation, strict=True))
    return (draw(small), H, W, draw(st.integers(1, 5))), window


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_max_pool_is_its_specification(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @given(cases())
    def check(case):
        shape, window = case
        x = np.random.default_rng(0).integers(-4, 5, shape).astype(dtype)
        y = np.empty((shape[0], *window.out_size(*shape[1:3]), shape[3]), dtype)
        own = gpu.full(y.shape, np.nan, dtype)
        pool.max_pool(x, window, y)
        pool.max_pool(gpu.asarray(x), window, own)
        np.testing.assert_array_equal(own.get(), y)

    check()


def test_a_nan_wins_as_in_numpy(gpu):
    x = np.array([1, np.nan, 3, -np.inf, 0, 2], np.float32).reshape(1, 1, 6, 1)
    own = gpu.empty((1, 1, 3, 1), np.float32)
    pool.max_pool(gpu.asarray(x), Window((1, 2), (1, 2)), own)
    np.testing.assert_array_equal(own.get().ravel(), [np.nan, 3, 2])
