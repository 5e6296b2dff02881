"""Fingerprints of mistakes, on gradients made up here."""

import numpy as np
import pytest

from tinycnn.gradcheck.diagnosis import likely_cause

SIZES = {"batch size N": 4, "number 2": 2, "pixels H·W": 15}
N4 = np.random.default_rng(0).normal(size=(4, 2, 3, 5))
N2 = np.random.default_rng(1).normal(size=(4, 6))
SQUARE = np.random.default_rng(2).normal(size=(5, 5))
X4 = np.random.default_rng(3).normal(size=N4.shape)
CHANNEL = np.array([2.0, -3.0]).reshape(1, 2, 1, 1)


def edited(n, place, value):
    a = n.copy()
    a[place] = value
    return a


CASES = {
    "zero": (0 * N4, N4, "no gradient arrives"),
    "nan": (edited(N4, (0, 0), np.nan), N4, "nan or inf"),
    "sign": (-N4, N4, "sign: the gradient is the negative"),
    "batch": (4 * N4, N4, "factor of 4, the batch size N"),
    "one over batch": (N4 / 4, N4, "factor of 1/4, the batch size N: mean taken twice?"),
    "pixels": (N4 / 15, N4, "factor of 1/15, the pixels H·W"),
    "two": (N4 * 2, N4, "factor of 2, the number 2"),
    "minus two": (N4 * -2, N4, "factor of 2 and of the wrong sign"),
    "any factor": (N4 * 0.7, N4, "factor of 0.7 everywhere"),
    "nearly": (N4 * (1 + 1e-7), N4, "slightly off"),
    "nearly, in one place": (edited(N4, (0, 0, 0, 0), N4[0, 0, 0, 0] + 1e-7), N4, "slightly off"),
    "transposed": (SQUARE.T, SQUARE, "transposed: rows and columns"),
    "transposed, not square": (N2.T.reshape(4, 6), N2, "transposed: rows and columns"),
    "axes swapped": (np.swapaxes(N4[:, :, :, :3], 2, 3), N4[:, :, :, :3], "axes 2 and 3 have changed places"),
    "rotated": (N4[..., ::-1, ::-1], N4, "turned by 180°"),
    "reversed": (N4[:, ::-1], N4, "reversed along axis 1"),
    "shifted": (np.roll(N4, 1, axis=3), N4, "shifted by 1 along axis 3"),
    "shifted back, border cut": (edited(np.roll(N4, -1, 2), np.s_[:, :, -1], 0), N4, "shifted by -1 along axis 2"),
    "elsewhere": (np.random.default_rng(5).permutation(N2.ravel()).reshape(4, 6), N2, "right numbers in the wrong"),
    "channel factor": (N4 * CHANNEL, N4, "depends on axis 1 alone"),
    "mean over all but channels": (N4 + CHANNEL, N4, "all along axes (0, 2, 3)"),
    "mean over all": (N4 + 1, N4, "all along axes (0, 1, 2, 3)"),
    "mean over the batch": (N2 + N2[:1], N2, "all along axes (0,)"),
    "variance": (N4 + CHANNEL * (X4 - 0.3), N4, "each channel"),
    "variance of each item": (N4 + N4[:, :1, :1, :1] * X4 + X4[:, :1, :1, :1], N4, "each item"),
    "border": (edited(N4, np.s_[1:3, 0, 2], 9), N4, "in 10 of 120 entries, between (1, 0, 2, 0) and (2, 0, 2, 4)"),
    "anything": (np.sin(9 * N4), N4, "check the formula"),
}


@pytest.mark.parametrize(("a", "n", "words"), CASES.values(), ids=CASES)
def test_fingerprints(a, n, words):
    assert words in likely_cause(a, n, SIZES, x=X4 if a.shape == X4.shape else None)


@pytest.mark.parametrize("name", ["zero", "sign", "batch", "transposed", "rotated", "shifted", "channel factor"])
def test_fingerprints_of_a_sample(name):
    a, n, words = CASES[name]
    sample = np.full(n.shape, np.nan)
    some = np.random.default_rng(0).choice(n.size, n.size // 2, replace=False)
    sample.flat[some] = n.flat[some]
    assert words in likely_cause(a, sample, SIZES)


def of_jacobians(change):
    rng = np.random.default_rng(0)
    numeric = rng.normal(size=(6, 9)) * (rng.uniform(size=(6, 9)) < 0.5)
    analytic = numeric.copy()
    change(analytic, np.flatnonzero(numeric), np.flatnonzero(numeric == 0))
    v = rng.normal(size=9)
    return likely_cause(analytic @ v, numeric @ v, SIZES, (analytic, numeric))


def test_contributions_of_the_jacobian():
    missing = of_jacobians(lambda a, there, zeros: np.put(a, there[[1, 5]], 0))
    assert missing.startswith("2 of ")
    assert "contributions are missing" in missing
    assert "3 contributions too many" in of_jacobians(lambda a, there, zeros: np.put(a, zeros[:3], 0.7))
    assert "contributions" not in of_jacobians(lambda a, there, zeros: np.put(a, there[:3], 9.0))


def test_nothing_known():
    assert "known nowhere" in likely_cause(N4, np.full(N4.shape, np.nan), SIZES)


def test_a_gradient_where_none_belongs():
    assert "wrong in every entry" in likely_cause(N2, 0 * N2, SIZES)
