"""The normal distribution function against SciPy and the standard library."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from tinycnn.kernels.erf import COEFFICIENTS, FAR, MIDDLE, normal_cdf


def both(x):
    cdf, pdf = np.full_like(x, np.nan), np.full_like(x, np.nan)
    normal_cdf(x, cdf, pdf)
    assert cdf.dtype == pdf.dtype == x.dtype
    return cdf, pdf


def test_float64_is_exact_to_the_last_digits():
    x = np.concatenate([np.linspace(-9, 9, 30_001), [0.0, 5e-324, 1e-300, 1e-17, -1e-17, 1e-8]])
    cdf, pdf = both(x)
    wanted = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x])
    assert np.abs(cdf - wanted).max() < 5e-16
    np.testing.assert_allclose(pdf, scipy.stats.norm.pdf(x), rtol=1e-14)


def test_the_left_tail_keeps_its_relative_accuracy():
    x = np.linspace(-37, -1, 10_001)
    cdf, _ = both(x)
    # log Φ is computed without the tiny number itself
    np.testing.assert_allclose(np.log(cdf), scipy.special.log_ndtr(x), rtol=1e-13, atol=1e-13)
    single = np.linspace(-10, -1, 1001, dtype=np.float32)
    np.testing.assert_allclose(both(single)[0], scipy.special.ndtr(single.astype(np.float64)), rtol=1e-5)


def test_float32_is_right_to_its_precision():
    x = np.linspace(-12, 12, 100_001, dtype=np.float32)
    cdf, pdf = both(x)
    assert np.abs(cdf - scipy.special.ndtr(x.astype(np.float64))).max() < 2e-7
    assert np.abs(pdf - scipy.stats.norm.pdf(x.astype(np.float64))).max() < 1e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes(dtype):
    cdf, pdf = both(np.array([-np.inf, -1e30, -1e4, 1e4, 1e30, np.inf, np.nan], dtype))
    np.testing.assert_array_equal(cdf, np.array([0, 0, 0, 1, 1, 1, np.nan], dtype))
    np.testing.assert_array_equal(pdf, np.array([0, 0, 0, 0, 0, 0, np.nan], dtype))
    assert math.erfc(FAR / math.sqrt(2)) == 0


def test_coefficients_are_those_of_mills_ratio():
    n = 96
    theta = np.pi * (np.arange(n) + 0.5) / n
    a = MIDDLE * (1 + np.cos(theta)) / (1 - np.cos(theta))
    mills = math.sqrt(math.pi / 2) * scipy.special.erfcx(a / math.sqrt(2))
    wanted = [2 / n * (mills * np.cos(j * theta)).sum() for j in range(len(COEFFICIENTS))]
    wanted[0] /= 2
    np.testing.assert_allclose(COEFFICIENTS, wanted, rtol=0, atol=1e-15)
