"""Squared error and binary cross-entropy against PyTorch in float64, and at extremes."""

import math

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from small_losses import REDUCTIONS, agree, oracle

from tinycnn.losses import BCEWithLogitsLoss, MSELoss


@pytest.mark.parametrize("shape", [(6,), (4, 3), (2, 3, 2, 2)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_is_torchs(shape, reduction):
    rng = np.random.default_rng(2)
    x, t = rng.normal(size=(2, *shape))
    agree(MSELoss(reduction)(x, t), oracle(F.mse_loss, x, t, reduction=reduction))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, (4, 3), (3,), (4, 1), ()], ids=str)
@pytest.mark.parametrize("pos_weight", [None, (3,), (4, 3), ()], ids=str)
@pytest.mark.parametrize("soft", [False, True])
def test_bce_with_logits_is_torchs(reduction, weight, pos_weight, soft):
    rng = np.random.default_rng(3)
    x = 3 * rng.normal(size=(4, 3))
    t = rng.uniform(size=(4, 3)) if soft else rng.integers(0, 2, (4, 3)).astype(float)
    options = {"reduction": reduction}
    options |= {"weight": None if weight is None else np.asarray(rng.uniform(0.1, 3, weight))}
    options |= {"pos_weight": None if pos_weight is None else np.asarray(rng.uniform(0.1, 3, pos_weight))}
    agree(BCEWithLogitsLoss(**options)(x, t), oracle(F.binary_cross_entropy_with_logits, x, t, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bce_at_extreme_logits_by_hand(dtype):
    x, t = np.array([1e4, -1e4, 1e4, -1e4, 0], dtype), np.array([1, 0, 0, 1, 1], dtype)
    loss, dx = BCEWithLogitsLoss(reduction="none")(x, t)
    np.testing.assert_allclose(loss, [0, 0, 1e4, 1e4, math.log(2)], rtol=1e-6)
    assert dx.tolist() == [0, 0, 1, -1, -0.5]


def test_bce_keeps_the_digits_of_tiny_losses_and_gradients():
    # far on the right side: loss = log1p(e⁻⁴⁰) ≈ e⁻⁴⁰ = |gradient|, where σ(x) − t would be 0
    loss, dx = BCEWithLogitsLoss(reduction="none")(np.array([40.0, -40.0]), np.array([1.0, 0.0]))
    np.testing.assert_allclose(loss, math.exp(-40), rtol=1e-14)
    np.testing.assert_allclose(dx, [-math.exp(-40), math.exp(-40)], rtol=1e-14)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.sampled_from(REDUCTIONS), st.integers(0, 99))
def test_bce_and_mse_of_any_shape_are_torchs(shape, reduction, seed):
    x, t = np.random.default_rng(seed).uniform(size=(2, *shape))
    agree(MSELoss(reduction)(x, t), oracle(F.mse_loss, x, t, reduction=reduction))
    theirs = oracle(F.binary_cross_entropy_with_logits, x, t, reduction=reduction)
    agree(BCEWithLogitsLoss(reduction=reduction)(x, t), theirs)
