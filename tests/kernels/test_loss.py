"""The formulas of losses on rows; `tests/test_losses.py` holds the losses made of them to PyTorch."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from tinycnn.kernels.loss import binary_cross_entropy, cross_entropy, reduced, squared_error

x = np.random.default_rng(0).normal(size=(6, 5))
y = np.arange(6) % 5


@pytest.mark.parametrize("scale", [None, 8.0])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_scale_multiplies_the_gradient_and_not_the_loss(reduction, scale):
    factor = (scale or 1) / (6 if reduction == "mean" else 1)
    reduce = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction]
    loss, dx = cross_entropy(x, y, None, -100, 0.0, reduction, scale, None)
    np.testing.assert_allclose(loss, reduce(-log_softmax(x, axis=1)[np.arange(6), y]), rtol=1e-14)
    np.testing.assert_allclose(dx, factor * (softmax(x, axis=1) - np.eye(5)[y]), rtol=1e-13, atol=1e-16)
    t = np.full_like(x, 0.25)
    factor = (scale or 1) / (30 if reduction == "mean" else 1)
    loss, dx = squared_error(x, t, reduction, scale)
    np.testing.assert_allclose(loss, reduce((x - t) ** 2), rtol=1e-14)
    np.testing.assert_allclose(dx, factor * 2 * (x - t), rtol=1e-14)
    loss, dx = binary_cross_entropy(x, t, None, None, reduction, scale)
    np.testing.assert_allclose(loss, reduce(np.log1p(np.exp(x)) - t * x), rtol=1e-13)
    np.testing.assert_allclose(dx, factor * (1 / (1 + np.exp(-x)) - t), rtol=1e-13, atol=1e-16)


def test_reductions_of_nothing():
    nothing = np.empty((0, 3), np.float32)
    assert np.isnan(reduced(nothing, nothing, "mean", None)[0])
    assert reduced(nothing, nothing, "sum", None)[0] == 0
