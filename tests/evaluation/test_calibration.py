"""Bins, the expected calibration error, and temperatures."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from tinycnn.evaluation import Predictions, fit_temperature
from tinycnn.evaluation.calibration import reliability, sharpened


def drawn(N=2000, K=5, T=1.0, seed=0):
    """Logits from which labels are drawn: at temperature T the network would be calibrated."""
    rng = np.random.default_rng(seed)
    z = 2 * rng.standard_normal((N, K))
    y = np.array([rng.choice(K, p=p) for p in softmax(z / T, axis=1)])
    return z, y


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_bins_image_by_image(bins):
    z, y = drawn(300)
    p = Predictions(softmax(z, axis=1), y)
    members = [[] for _ in range(bins)]
    for probability, label in zip(p.probabilities, y, strict=True):
        c = probability.max()
        (m,) = (m for m in range(bins) if m / bins < c <= (m + 1) / bins)
        members[m].append((c, probability.argmax() == label))
    found = p.calibration(bins)
    assert found.counts.tolist() == [len(some) for some in members]
    error = 0
    for m, some in enumerate(members):
        confidence, accuracy = np.mean(some, axis=0) if some else (0, 0)
        assert found.confidence[m] == pytest.approx(confidence, rel=1e-12)
        assert found.accuracy[m] == pytest.approx(accuracy, rel=1e-12)
        error += len(some) / 300 * abs(accuracy - confidence)
    assert found.error == pytest.approx(error, rel=1e-12)
    np.testing.assert_allclose(found.edges, [m / bins for m in range(bins + 1)])


def test_bins_hold_their_upper_edge():
    found = reliability(np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1 + 1e-12]), np.ones(6, bool), 4)
    assert found.counts.tolist() == [2, 1, 1, 2]


def test_sure_and_right_has_no_error_sure_and_wrong_has_all():
    p = np.array([[1.0, 0.0]] * 4)
    assert Predictions(p, [0] * 4).calibration().error == 0
    assert Predictions(p, [1] * 4).calibration().error == 1


def test_at_least_one_bin():
    with pytest.raises(ValueError, match="at least one bin"):
        Predictions([[1.0, 0.0]], [0]).calibration(0)


@pytest.mark.parametrize("T", [0.3, 1, 2.5])
def test_a_temperature_divides_logits(T):
    z, y = drawn(50)
    found = Predictions(softmax(z, axis=1), y).at_temperature(T)
    np.testing.assert_allclose(found.probabilities, softmax(z / T, axis=1), rtol=1e-12)


def test_probability_zero_stays_zero():
    found = sharpened(np.array([[0.0, 1.0], [1e-300, 1.0]]), 3.0)
    assert found.tolist() == [[0, 1], [0, 1]]
    assert sharpened(np.full((1, 1000), 1e-3), 400.0).sum() == pytest.approx(1)


@pytest.mark.parametrize("T", [0.5, 1.0, 3.0])
def test_the_temperature_of_least_loss(T):
    z, y = drawn(T=T)
    best = minimize_scalar(
        lambda t: -log_softmax(z / t, axis=1)[np.arange(len(y)), y].mean(),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-9},
    ).x
    found = fit_temperature(softmax(z, axis=1), y)
    assert found == pytest.approx(best, rel=1e-5)
    assert found == pytest.approx(T, rel=0.1)
    p = Predictions(softmax(z, axis=1), y)
    cooled = p.at_temperature(found)
    assert cooled.accuracy == p.accuracy
    assert cooled.loss <= p.loss
    if T != 1:
        assert cooled.calibration().error < p.calibration().error / 2


def test_temperatures_have_bounds():
    p = np.array([[0.9, 0.1]] * 3)
    assert fit_temperature(p, np.array([0, 0, 0])) == pytest.approx(0.01)  # never wrong: as sure as can be
    assert fit_temperature(p, np.array([1, 1, 1])) == pytest.approx(100)
    assert 1 < fit_temperature(np.array([[1.0, 0.0]] * 3), np.array([0, 0, 1])) <= 100.001


@pytest.mark.parametrize("T", [0.0, -1.0, np.inf, np.nan])
def test_temperatures_that_are_none(T):
    with pytest.raises(ValueError, match="a temperature must be positive"):
        Predictions([[0.5, 0.5]], [0]).at_temperature(T)
