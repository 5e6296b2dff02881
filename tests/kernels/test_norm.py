"""The loops under the normalisation layers, against plain sums in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.norm import (
    Rows,
    as_rows,
    backward_vectors,
    channel_dots,
    channel_sums,
    column_dots,
    column_sums,
    example_dots,
    example_sums,
    fold,
    forward_vectors,
    gate,
    gradient_sums,
    moments,
    normalize_backward,
    scale_and_shift,
    spread,
)

SHAPE = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 7, 36, 60]), st.sampled_from([1, 2, 6, 16]))


@given(st.integers(1, 3000), st.integers(1, 300), st.sampled_from([1, 64, 512]))
def test_fold_is_the_shortest_run_of_pixels_that_is_wide_enough(P, C, width):
    k = fold(P, C, width)
    divisors = [d for d in range(1, P + 1) if P % d == 0]
    assert k in divisors
    assert k * C >= width or k == P
    assert not [d for d in divisors if d < k and d * C >= width]


@given(SHAPE, st.integers(1, 3))
def test_a_spread_vector_meets_each_pixel_of_its_block(shape, seed):
    B, P, C = shape
    rng = np.random.default_rng(seed)
    x, v = rng.standard_normal(shape), rng.standard_normal((B, C))
    for k in (k for k in range(1, P + 1) if P % k == 0):
        rows = spread(v, k, x.dtype)
        assert rows.shape == (B, 1, k * C)
        np.testing.assert_array_equal((as_rows(x, rows) - rows).reshape(shape), x - v[:, None])


@given(SHAPE, st.integers(0, 9))
def test_channel_sums_are_exact_on_integers(shape, seed):
    x = np.random.default_rng(seed).integers(-99, 99, shape).astype(np.float32)
    sums = channel_sums(x)
    assert sums.dtype == np.float64
    np.testing.assert_array_equal(sums, x.sum(axis=1))
    y = x[::-1] - 7
    np.testing.assert_array_equal(channel_dots(x, y), (x * y).sum(axis=1))
    flat, other = x.reshape(len(x), -1), y.reshape(len(x), -1)
    np.testing.assert_array_equal(example_sums(flat), flat.sum(axis=1, keepdims=True, dtype=np.float64))
    np.testing.assert_array_equal(
        example_dots(flat, other), (flat * other).sum(axis=1, keepdims=True, dtype=np.float64)
    )


@given(SHAPE, st.sampled_from([1, 2]), st.integers(0, 9))
def test_moments_are_those_of_the_groups(shape, G, seed):
    B, P, C = shape[0], shape[1], 2 * shape[2]
    x = np.random.default_rng(seed).standard_normal((B, P, C)) + 3
    d = np.empty_like(x)
    m, mean, var = moments(x, G, P, d)
    np.testing.assert_array_equal(d, x - np.repeat(m, C // G, axis=1)[:, None])
    groups = x.reshape(B, P, G, C // G)
    np.testing.assert_allclose(mean, groups.mean(axis=(1, 3)), rtol=1e-13)
    np.testing.assert_allclose(var, groups.var(axis=(1, 3)), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("mean", [0, 1e3, -1e4, 1e6])
@pytest.mark.parametrize("shape", [(1, 4096, 16), (4, 1024, 3), (2, 1, 3072)])
def test_moments_in_float32_survive_a_mean_far_from_zero(mean, shape):
    x = (np.random.default_rng(0).standard_normal(shape) + mean).astype(np.float32)
    _, got_mean, got_var = moments(x, 1, 1, np.empty_like(x))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(got_mean[:, 0], exact.mean(axis=(1, 2)), rtol=0, atol=1e-6)
    np.testing.assert_allclose(got_var[:, 0], exact.var(axis=(1, 2)), rtol=2e-6)


@pytest.mark.parametrize("value", [0, 0.1, 123.456, 1e6])
def test_a_constant_has_no_variance(value):
    x = np.full((2, 77, 3), np.float32(value))
    _, mean, var = moments(x, 3, 77, np.empty_like(x))
    np.testing.assert_allclose(mean, np.float32(value), rtol=1e-7)
    np.testing.assert_allclose(var, 0, rtol=0, atol=1e-14 * value**2)


def test_forward_and_backward_are_their_formulas():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 2, 12, 5))
    mean, inv_std, w, b, g, gx = rng.uniform(0.5, 2, (6, 2, 5))
    m = mean.astype(np.float32)
    x_hat = (x - mean[:, None]) * inv_std[:, None]
    a, c = forward_vectors(m, mean, inv_std, w, b)
    q, r = backward_vectors(m, mean, inv_std, g, gx)
    m, a, c, q, r = (spread(v, 4, np.float64) for v in (m, a, c, q, r))
    y, dx = np.empty(x.shape), np.empty(x.shape)
    as_rows(y, m)[...] = as_rows(x, m) - m
    scale_and_shift(y, a, c)
    np.testing.assert_allclose(y, w[:, None] * x_hat + b[:, None], rtol=0, atol=1e-13)
    normalize_backward(dy, x, m, q, r, a, dx)
    wanted = (inv_std * w)[:, None] * (dy - g[:, None] - x_hat * gx[:, None])
    np.testing.assert_allclose(dx, wanted, rtol=0, atol=1e-13)
    total, dot = gradient_sums(dy, x, m)
    np.testing.assert_allclose(total, dy.sum(axis=1), atol=1e-13)
    np.testing.assert_allclose(dot, (dy * (x - m[:, :, :5])).sum(axis=1), atol=1e-13)


@given(st.tuples(*[st.integers(1, 9)] * 4), st.booleans())
def test_rows_hold_the_pixels_in_the_order_of_memory(shape, contiguous):
    x = np.arange(float(np.prod(shape))).reshape(shape)
    if not contiguous:  # channels-last memory
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    R, C = Rows(shape), shape[1]
    rows = R.of(x)
    np.testing.assert_array_equal(rows.reshape(-1, C), [x[n, :, h, w] for n, h, w in np.ndindex(shape[0], *shape[2:])])
    np.testing.assert_array_equal(R.images(rows), x)
    v = np.arange(C) * 0.5
    np.testing.assert_array_equal(R.images(rows + R.spread(v, np.float64)), x + v[:, None, None])
    np.testing.assert_allclose(R.mean(rows), x.mean(axis=(0, 2, 3)), rtol=1e-13)


@pytest.mark.parametrize("shape", [(3, 5, 4, 7), (64, 6, 24, 20), (16, 3, 50, 50)])
def test_sums_of_rows_are_exact_on_integers(shape):
    rng = np.random.default_rng(0)
    x, y = rng.integers(-9, 9, (2, *shape)).astype(np.float32)
    R = Rows(shape)
    rows, others = R.of(x), R.of(y)
    sums = R.sums(lambda s: (column_sums(rows[s]), column_dots(rows[s], others[s])), rows)
    assert sums.dtype == np.float64
    np.testing.assert_array_equal(sums, [x.sum(axis=(0, 2, 3)), (x * y).sum(axis=(0, 2, 3))])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gate_is_open_above_zero(dtype):
    y = np.array([[-1, -0.0, 0, 1e-45 if dtype == np.float32 else 5e-324, 3, np.nan]], dtype)
    dy, g = np.array([[1, 2, 3, 4, 5, 6]], dtype), np.full((1, 6), np.nan, dtype)
    gate(dy, y, g)
    np.testing.assert_array_equal(g, [[0, 0, 0, 4, 5, 0]])
