"""What holds for every loss: gradients by finite differences, types, means, refusals."""

import numpy as np
import pytest
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax
from small_losses import WEIGHT, C, all_losses, example, refuses

from tinycnn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, log_softmax, softmax


@pytest.mark.parametrize("loss_fn", [CrossEntropyLoss(), MSELoss(), BCEWithLogitsLoss()])
def test_the_mean_of_an_empty_batch_is_nan(loss_fn):
    x = np.zeros((0, C))
    loss, dx = loss_fn(x, x)
    assert np.isnan(loss)
    assert dx.shape == (0, C)


@pytest.mark.parametrize(("loss_fn", "kind"), list(all_losses()), ids=str)
def test_gradient_by_finite_differences(loss_fn, kind):
    x, t = example((4, C), kind)
    _, dx = loss_fn(x, t)
    h = 1e-5
    for index in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[index] = h
        numeric = (np.sum(loss_fn(x + e, t)[0]) - np.sum(loss_fn(x - e, t)[0])) / (2 * h)
        assert dx[index] == pytest.approx(numeric, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("loss_fn", "kind"), list(all_losses()), ids=str)
def test_dtype_is_kept_and_nothing_is_mutated(loss_fn, kind, dtype):
    x, t = example((4, C), kind)
    x = x.astype(dtype)
    for targets in (t, t.astype(np.uint8) if kind == "labels" else t.astype(np.float32)):
        before = x.copy(), targets.copy()
        loss, dx = loss_fn(x, targets)
        assert loss.dtype == dtype
        assert dx.dtype == dtype
        assert dx.shape == x.shape
        assert not np.shares_memory(dx, x)
        np.testing.assert_array_equal(before[0], x)
        np.testing.assert_array_equal(before[1], targets)


@pytest.mark.parametrize("copies", [2, 5])
@pytest.mark.parametrize(("loss_fn", "kind"), [pair for pair in all_losses() if pair[0].reduction == "mean"], ids=str)
def test_the_mean_is_divided_by_the_batch_once(loss_fn, kind, copies):
    if isinstance(loss_fn, BCEWithLogitsLoss):
        loss_fn = BCEWithLogitsLoss()
    x, t = example((4, C), kind)
    loss, dx = loss_fn(x, t)
    many, dmany = loss_fn(np.concatenate([x] * copies), np.concatenate([t] * copies))
    # the same items again: the mean stays, each copy gets its share of the gradient
    assert many == pytest.approx(loss, rel=1e-12)
    np.testing.assert_allclose(dmany, np.concatenate([dx] * copies) / copies, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax_is_scipys(axis, scale):
    x = scale * np.random.default_rng(5).normal(size=(3, 4, 5))
    np.testing.assert_allclose(softmax(x, axis), scipy_softmax(x, axis=axis), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(log_softmax(x, axis), scipy_log_softmax(x, axis=axis), rtol=1e-12, atol=1e-12)


def test_shapes_and_dtypes_that_do_not_belong_together():
    x = np.zeros((4, C))
    refuses(CrossEntropyLoss(), x, np.zeros(3, int), "(4, 5)", "(4,)", "(3,)")
    refuses(CrossEntropyLoss(), x, np.zeros((4, 1), int), "(4,)", "(4, 1)")
    refuses(CrossEntropyLoss(), x, np.zeros(4), "probabilities", "(4, 5)", "(4,)", "integers")
    refuses(CrossEntropyLoss(), x, np.zeros(4, bool), "bool")
    refuses(CrossEntropyLoss(), x, [0, 1, 2, 3], "list")
    refuses(CrossEntropyLoss(), x.astype(int), np.zeros(4, int), "float32 or float64", "int64")
    refuses(CrossEntropyLoss(), x.astype(np.float16), np.zeros(4, int), "float16")
    refuses(CrossEntropyLoss(), [[0.0, 1.0]], np.zeros(1, int), "list")
    refuses(CrossEntropyLoss(), np.zeros(C), np.zeros(C, int), "(N, C, …)", "(5,)")
    refuses(CrossEntropyLoss(), np.zeros((4, 0)), np.zeros(4, int), "C ≥ 1")
    refuses(CrossEntropyLoss(np.ones(3)), x, np.zeros(4, int), "weight", "(3,)", "5 classes")
    refuses(CrossEntropyLoss(ignore_index=2), x, x, "ignore_index=2", "soft targets")
    for loss_fn in (MSELoss(), BCEWithLogitsLoss()):
        refuses(loss_fn, x, np.zeros((4, 1)), "(4, 5)", "(4, 1)")
        refuses(loss_fn, x.astype(int), x, "int64")
    refuses(BCEWithLogitsLoss(weight=np.ones(4)), x, x, "weight (4,)", "(4, 5)")
    refuses(BCEWithLogitsLoss(pos_weight=np.ones((1, 4, 5))), x, x, "pos_weight", "(1, 4, 5)")


@pytest.mark.parametrize("make", [CrossEntropyLoss, MSELoss, BCEWithLogitsLoss])
def test_unknown_reduction(make):
    with pytest.raises(ValueError, match=f"{make.__name__}: reduction must be .* got 'average'"):
        make(reduction="average")


def test_reprs():
    assert repr(MSELoss("sum")) == "MSELoss(reduction='sum')"
    text = repr(CrossEntropyLoss(WEIGHT, label_smoothing=0.1))
    assert text == "CrossEntropyLoss(reduction='mean', label_smoothing=0.1, weight=…)"
