"""Initial weights: their distributions."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import initializers as init

SHAPE = (64, 32, 3, 5)  # fan_in 480, fan_out 960


@pytest.mark.parametrize(
    ("fill", "std", "bound"),
    [
        (init.default_uniform, math.sqrt(1 / (3 * 480)), 1 / math.sqrt(480)),
        (init.he_normal, math.sqrt(2 / 480), None),
        (lambda s, r: init.he_normal(s, r, mode="fan_out"), math.sqrt(2 / 960), None),
        (init.he_uniform, math.sqrt(2 / 480), math.sqrt(6 / 480)),
        (init.glorot_normal, math.sqrt(2 / 1440), None),
        (init.glorot_uniform, math.sqrt(2 / 1440), math.sqrt(6 / 1440)),
        (init.lecun_normal, math.sqrt(1 / 480), None),
        (init.lecun_uniform, math.sqrt(1 / 480), math.sqrt(3 / 480)),
        (init.normal, 0.01, None),
        (init.truncated_normal, 0.01 * 0.87963, 0.02),
    ],
)
def test_moments_and_bounds(fill, std, bound):
    x = fill(SHAPE, np.random.default_rng(0))
    assert x.shape == SHAPE
    assert abs(x.mean()) < 5 * std / math.sqrt(x.size)
    assert x.std() == pytest.approx(std, rel=0.02)
    if bound is not None:
        assert 0.99 * bound < np.abs(x).max() <= bound


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 2, 2, 2), (4, 8, 3, 3)])
def test_orthogonal(shape):
    m = init.orthogonal(shape, np.random.default_rng(0), gain=2.0).reshape(shape[0], -1)
    gram = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_one_seed_one_fill():
    a, b, c = (init.he_normal(SHAPE, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least two dimensions"):
        init.he_normal((3,), np.random.default_rng(0))
    with pytest.raises(ValueError, match="cut must be greater than 0"):
        init.truncated_normal(SHAPE, np.random.default_rng(0), cut=0)
    with pytest.raises(ValueError, match="'fan_in' or 'fan_out', got 'fan'"):
        init.he_normal(SHAPE, np.random.default_rng(0), mode="fan")


def test_orthogonal_has_no_preferred_sign():
    signs = {float(init.orthogonal((1, 1), np.random.default_rng(s))[0, 0]) for s in range(20)}
    assert signs == {-1.0, 1.0}


def test_no_draws_are_zeros_that_take_no_memory():
    rng = init.NoDraws(3)
    big = init.he_normal((1 << 20, 1 << 10), rng)
    assert big.strides == (0, 0)
    assert big[5, 7] == 0
    assert rng.uniform(1, 2) == 0
    assert rng.integers(1 << 60) == np.random.default_rng(3).integers(1 << 60)
    assert np.random.default_rng(rng) is rng


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read off /proc")
def test_no_draws_become_zeros_that_take_memory_when_they_are_used():
    rng = init.NoDraws()
    before = resident_bytes()
    kept = [init.he_normal(shape, rng).astype(np.float32) for shape in [(20_000, 10_000), (5000, 400, 10, 10)]]
    assert resident_bytes() - before < 100 << 20
    assert not kept[0][123].any()
    kept[0][123] = 1
    assert kept[0].dtype == np.float32
    assert is_channels_last(kept[1])
    np.testing.assert_array_equal((rng.normal(size=3) + 1).astype(np.float32), np.ones(3, np.float32))
