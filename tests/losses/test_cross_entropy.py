"""Cross-entropy against PyTorch in float64 for every combination of options, and at extremes."""

import math

import numpy as np
import pytest
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax as scipy_softmax
from small_losses import REDUCTIONS, SHAPES, WEIGHT, C, agree, example, labels_for, oracle, refuses

from tinycnn.losses import CrossEntropyLoss


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [None, -100, 3, 255])
def test_cross_entropy_of_labels_is_torchs(shape, reduction, weight, smoothing, ignore_index):
    rng = np.random.default_rng(0)
    x, y = 3 * rng.normal(size=shape), labels_for(shape, rng, ignore_index)
    options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    options |= {} if ignore_index is None else {"ignore_index": ignore_index}
    agree(CrossEntropyLoss(**options)(x, y), oracle(F.cross_entropy, x, y, **options))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_of_soft_targets_is_torchs(shape, reduction, weight, smoothing):
    rng = np.random.default_rng(1)
    x, t = 3 * rng.normal(size=shape), rng.uniform(0, 0.5, shape)  # need not sum to one
    options = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    agree(CrossEntropyLoss(**options)(x, t), oracle(F.cross_entropy, x, t, **options))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": WEIGHT}])
def test_cross_entropy_at_extreme_logits(dtype, size, options):
    x = np.array([[size, -size, 0, 0, 0], [-size, size, 0, 1, 2], [-size] * 5, [size] * 5], dtype)
    y = np.array([0, 0, 3, 4])
    loss, dx = CrossEntropyLoss(reduction="none", **options)(x, y)
    assert np.isfinite(loss).all()
    assert np.isfinite(dx).all()
    agree(
        (loss, dx),
        oracle(
            F.cross_entropy,
            x,
            y,
            reduction="none",
            **{k: np.asarray(v, dtype) if k == "weight" else v for k, v in options.items()},
        ),
        1e-6,
    )


def test_cross_entropy_at_extreme_logits_by_hand():
    x, y = np.array([[1e4, -1e4], [1e4, -1e4]]), np.array([0, 1])
    loss, dx = CrossEntropyLoss(reduction="none")(x, y)
    assert loss.tolist() == [0.0, 2e4]
    assert dx.tolist() == [[0, 0], [1, -1]]


def test_a_class_masked_by_minus_infinity_gets_no_probability():
    x, y = np.array([[0.0, -np.inf, 1.0]]), np.array([0])
    agree(CrossEntropyLoss()(x, y), oracle(F.cross_entropy, x, y))
    t = np.array([[1.0, 0.0, 0.0]])
    agree(CrossEntropyLoss()(x, t), oracle(F.cross_entropy, x, y))


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"weight": WEIGHT}])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_all_labels_ignored(options, reduction):
    x, y = np.ones((3, C)), np.full(3, -100)
    ours = CrossEntropyLoss(reduction=reduction, **options)(x, y)
    theirs = oracle(F.cross_entropy, x, y, reduction=reduction, **options)
    np.testing.assert_array_equal(ours[0], theirs[0])  # nan for the mean
    np.testing.assert_array_equal(ours[1], np.zeros((3, C)))
    np.testing.assert_array_equal(theirs[1], np.zeros((3, C)))


def test_the_gradient_of_a_channels_last_image_is_channels_last():
    x, t = example((2, 4, 6, C), "soft")
    logits = x.transpose(0, 3, 1, 2)
    _, dx = CrossEntropyLoss()(logits, t.argmax(axis=3))
    assert dx.strides == logits.strides
    contiguous = np.ascontiguousarray(logits)
    agree(CrossEntropyLoss()(contiguous, t.argmax(axis=3)), CrossEntropyLoss()(logits, t.argmax(axis=3)))


def test_the_gradient_is_p_minus_y():
    x = np.random.default_rng(4).normal(size=(6, C))
    y = np.arange(6) % C
    _, dx = CrossEntropyLoss(reduction="sum")(x, y)
    np.testing.assert_allclose(dx, scipy_softmax(x, axis=1) - np.eye(C)[y], atol=1e-15)
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-15)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.data())
def test_cross_entropy_of_any_shape_is_torchs(data):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5).map(tuple))
    classes = shape[1]
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, y = rng.normal(size=shape), rng.integers(0, classes, (shape[0], *shape[2:]))
    y[rng.uniform(size=y.shape) < 0.3] = -100
    y.flat[0] = 0
    options = {
        "weight": data.draw(st.sampled_from([None, rng.uniform(0.1, 1, classes)])),
        "reduction": data.draw(st.sampled_from(REDUCTIONS)),
        "label_smoothing": data.draw(st.sampled_from([0.0, 0.3])),
    }
    agree(CrossEntropyLoss(**options)(x, y), oracle(F.cross_entropy, x, y, **options))


def test_labels_out_of_range_name_the_worst():
    x = np.zeros((4, C))
    refuses(CrossEntropyLoss(), x, np.array([0, 5, 12, 6]), "label 12", "position 2", "5 classes", "0 to 4")
    refuses(CrossEntropyLoss(), x, np.array([0, 4, 4, 5]), "label 5", "position 3")
    refuses(CrossEntropyLoss(), x, np.array([0, -1, 4, 4]), "label -1", "position 1")
    refuses(CrossEntropyLoss(ignore_index=-1), x, np.array([0, -1, -7, 4]), "label -7", "position 2")
    refuses(CrossEntropyLoss(), x, np.array([0, 0, 0, 255], np.uint8), "label 255", "position 3")
    images = np.zeros((2, C, 3, 3))
    y = np.zeros((2, 3, 3), int)
    y[1, 2, 0] = 9
    refuses(CrossEntropyLoss(), images, y, "label 9", "position (1, 2, 0)")


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, math.nan])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
        CrossEntropyLoss(label_smoothing=smoothing)


def test_labels_are_not_looked_at_when_told_so():
    x, y = np.zeros((2, C)), np.array([0, -1])
    loss, _ = CrossEntropyLoss(check_labels=False)(x, y)  # −1 is Python's last class: wrong, as documented
    assert loss == pytest.approx(math.log(C))
