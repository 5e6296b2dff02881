"""The loops under dense blocks, on parts of wider arrays, against plain sums in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.dense import channel_statistics, corrected, norm_relu_backward, norm_relu_forward
from tinycnn.kernels.norm import Running

AXES = (0, 2, 3)
SHAPES = st.tuples(st.integers(1, 3), st.sampled_from([1, 2, 5, 24]), st.integers(1, 9), st.integers(2, 9))


def part(rng, shape, before, behind):
    """Neighbouring channels (N, C, H, W) of a wider array on channels-last memory, and the array."""
    N, C, H, W = shape
    whole = rng.standard_normal((N, H, W, before + C + behind)).transpose(0, 3, 1, 2)
    return whole[:, before : before + C], whole


def column(v):
    return v[:, None, None]


@given(SHAPES, st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_forward_is_the_definition(shape, before, behind, affine):
    rng = np.random.default_rng(0)
    x, whole = part(rng, shape, before, behind)
    original = whole.copy()
    w, b = rng.uniform(0.5, 2, (2, shape[1])) if affine else (None, None)
    mean, var = x.mean(AXES), x.var(AXES)
    y = norm_relu_forward(x, channel_statistics(x, np.stack([mean, var]), w, b, None, 0.1, 0.1), w, b)
    gain, shift = (w, b) if affine else (np.ones(shape[1]), np.zeros(shape[1]))
    wanted = np.maximum(column(gain) * (x - column(mean)) / np.sqrt(column(var) + 0.1) + column(shift), 0)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(whole, original)


@given(SHAPES, st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_backward_is_the_definition(shape, before, behind, add, measured):
    """a·g is added to the part of dx alone; q and r are what equation (3) says."""
    rng, (_, C, _, _) = np.random.default_rng(1), shape
    (x, _), (dx, whole) = part(rng, shape, before, behind), part(rng, shape, behind, before)
    w, b = rng.uniform(0.5, 2, (2, C))
    dy, mean, var, original, own = rng.standard_normal(shape), x.mean(AXES), x.var(AXES), whole.copy(), dx.copy()
    statistics = channel_statistics(x, np.stack([mean, var]), w, b, None, 0.1, 0.1)
    y = norm_relu_forward(x, statistics, w, b)
    sinks = tuple((np.full(C, 2.0 if add else np.nan), add) for _ in range(2))
    correction = np.ones((2, C))
    norm_relu_backward(
        np.ascontiguousarray(dy.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        *(y, x, statistics, w, sinks, dx, correction if measured else None),
    )
    std, M, g = np.sqrt(var + 0.1), x.size // C, dy * (y > 0)
    dw, db = (g * (x - column(mean)) / column(std)).sum(AXES), g.sum(AXES)
    np.testing.assert_allclose(sinks[0][0], dw + 2 * add, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(sinks[1][0], db + 2 * add, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(dx - own, column(w / std) * g, rtol=0, atol=1e-13)
    q, r = w / std * dw / (std * M), w / std * db / M
    if measured:  # m is the mean, in float64: nothing is left for r
        np.testing.assert_allclose(correction, 1 + np.stack([q, r]), rtol=1e-11, atol=1e-12)
    else:
        np.testing.assert_array_equal(correction, 1)
    dx -= dx - own
    np.testing.assert_allclose(whole, original, rtol=0, atol=1e-15)


@pytest.mark.parametrize("frozen", [False, True])
def test_what_nobody_needs_is_left_alone(frozen):
    rng = np.random.default_rng(2)
    x, _ = part(rng, (2, 3, 4, 5), 1, 1)
    statistics = x.mean(AXES), x.mean(AXES), np.ones(3)
    y, correction = norm_relu_forward(x, statistics, None, None), np.zeros((2, 3))
    dw, db = np.zeros(3), np.zeros(3)
    sinks = (None, None) if frozen else ((dw, False), (db, False))
    norm_relu_backward(np.ones_like(y), y, x, statistics, None, sinks, None, correction)
    assert not correction.any()
    assert db.any() != frozen


@given(SHAPES, st.integers(0, 3), st.integers(0, 3))
def test_correction_is_the_definition(shape, before, behind):
    rng, C = np.random.default_rng(3), shape[1]
    (x, _), (dx, whole) = part(rng, shape, before, behind), part(rng, shape, behind, before)
    moments, correction, original = rng.standard_normal((2, C)), rng.standard_normal((2, C)), whole.copy()
    q, r = correction
    wanted = dx - (x - column(moments[0])) * column(q) - column(r)
    got = corrected(dx, x, moments, correction)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(corrected(dx, x, None, correction), dx)
    np.testing.assert_array_equal(whole, original)
    assert got.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize(("momentum", "share"), [(0.25, 0.25), (None, 1 / 4)])
def test_running_statistics_move_towards_the_unbiased_variance(momentum, share):
    x, moments = np.zeros((2, 3, 4, 5)), np.stack([np.full(3, 5.0), np.full(3, 7.0)])
    running = Running(np.full(3, 1.0), np.full(3, 2.0), np.array(3))
    channel_statistics(x, moments, None, None, running, 0.5, momentum)
    np.testing.assert_allclose(running.mean, (1 - share) * 1 + share * 5, rtol=1e-15)
    np.testing.assert_allclose(running.var, (1 - share) * 2 + share * 7 * 40 / 39, rtol=1e-15)
    assert running.count == 4
    m, mean, inv_std = channel_statistics(x, None, None, None, running, 0.5, momentum)
    np.testing.assert_array_equal(mean, running.mean)
    np.testing.assert_array_equal(m, running.mean)
    np.testing.assert_allclose(inv_std, (running.var + 0.5) ** -0.5, rtol=1e-15)
    assert running.count == 4


def test_float32_keeps_its_digits_with_a_mean_far_from_zero():
    """m is the mean rounded, and what it misses is made up for."""
    rng = np.random.default_rng(4)
    x = (1e4 + 1e-1 * part(rng, (3, 4, 9, 8), 2, 3)[1]).astype(np.float32)[:, 2:6]
    exact = x.astype(np.float64)
    mean, var = exact.mean(AXES), exact.var(AXES)
    y = norm_relu_forward(x, channel_statistics(x, np.stack([mean, var]), None, None, None, 0.0, 0.1), None, None)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, np.maximum((exact - column(mean)) / np.sqrt(column(var)), 0), rtol=0, atol=2e-6)
