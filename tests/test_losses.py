"""Losses against PyTorch in float64 for every combination of options, at extremes, and by finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax as scipy_log_softmax
from scipy.special import softmax as scipy_softmax

from tinycnn.losses import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss, log_softmax, softmax

REDUCTIONS = ("mean", "sum", "none")
C = 5
WEIGHT = np.array([0.5, 2.0, 0.0, 1.0, 0.1])
SHAPES = {"(N, C)": (7, C), "(N, C, H, W)": (2, C, 3, 4)}


def tensor(a):
    return None if a is None else torch.tensor(a)


def oracle(function, x, t, **options):
    """PyTorch's loss, and by autograd the gradient of its sum."""
    leaf = torch.tensor(x, requires_grad=True)
    loss = function(
        leaf, torch.tensor(t), **{k: tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    )
    loss.sum().backward()
    return loss.detach().numpy(), leaf.grad.numpy()


def agree(ours, theirs, rtol=1e-10):
    for name, a, b in zip(("loss", "dlogits"), ours, theirs, strict=True):
        assert np.shape(a) == b.shape, name
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * max(np.abs(b).max(initial=0), 1e-300), err_msg=name)


def labels_for(shape, rng, ignore=None):
    y = rng.integers(0, C, (shape[0], *shape[2:]))
    if ignore is not None:
        y.flat[::3] = ignore
    return y


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


# ---- extremes ----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("loss_fn", [CrossEntropyLoss(), MSELoss(), BCEWithLogitsLoss()])
def test_the_mean_of_an_empty_batch_is_nan(loss_fn):
    x = np.zeros((0, C))
    loss, dx = loss_fn(x, x)
    assert np.isnan(loss)
    assert dx.shape == (0, C)


# ---- properties --------------------------------------------------------------------------------------------


def all_losses():
    for reduction in REDUCTIONS:
        for smoothing, weight in itertools.product((0.0, 0.2), (None, WEIGHT)):
            yield CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing), "labels"
            yield CrossEntropyLoss(weight, reduction=reduction, label_smoothing=smoothing), "soft"
        yield MSELoss(reduction), "soft"
        yield BCEWithLogitsLoss(WEIGHT, reduction, 2 * WEIGHT), "soft"


def example(shape, kind, seed=0):
    rng = np.random.default_rng(seed)
    targets = labels_for(shape, rng) if kind == "labels" else rng.uniform(size=shape)
    return 2 * rng.normal(size=shape), targets


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


def test_the_gradient_of_a_channels_last_image_is_channels_last():
    x, t = example((2, 4, 6, C), "soft")
    logits = x.transpose(0, 3, 1, 2)
    _, dx = CrossEntropyLoss()(logits, t.argmax(axis=3))
    assert dx.strides == logits.strides
    contiguous = np.ascontiguousarray(logits)
    agree(CrossEntropyLoss()(contiguous, t.argmax(axis=3)), CrossEntropyLoss()(logits, t.argmax(axis=3)))


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


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple), st.sampled_from(REDUCTIONS), st.integers(0, 99))
def test_bce_and_mse_of_any_shape_are_torchs(shape, reduction, seed):
    x, t = np.random.default_rng(seed).uniform(size=(2, *shape))
    agree(MSELoss(reduction)(x, t), oracle(F.mse_loss, x, t, reduction=reduction))
    theirs = oracle(F.binary_cross_entropy_with_logits, x, t, reduction=reduction)
    agree(BCEWithLogitsLoss(reduction=reduction)(x, t), theirs)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_softmax_is_scipys(axis, scale):
    x = scale * np.random.default_rng(5).normal(size=(3, 4, 5))
    np.testing.assert_allclose(softmax(x, axis), scipy_softmax(x, axis=axis), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(log_softmax(x, axis), scipy_log_softmax(x, axis=axis), rtol=1e-12, atol=1e-12)


# ---- bad input ---------------------------------------------------------------------------------------------


def refuses(loss_fn, x, t, *words):
    with pytest.raises(ValueError, match=r".+") as caught:
        loss_fn(x, t)
    message = str(caught.value)
    assert "\n" not in message
    for word in (type(loss_fn).__name__, *words):
        assert word in message, message


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


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, math.nan])
def test_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be between 0 and 1"):
        CrossEntropyLoss(label_smoothing=smoothing)


def test_labels_are_not_looked_at_when_told_so():
    x, y = np.zeros((2, C)), np.array([0, -1])
    loss, _ = CrossEntropyLoss(check_labels=False)(x, y)  # −1 is Python's last class: wrong, as documented
    assert loss == pytest.approx(math.log(C))


def test_reprs():
    assert repr(MSELoss("sum")) == "MSELoss(reduction='sum')"
    text = repr(CrossEntropyLoss(WEIGHT, label_smoothing=0.1))
    assert text == "CrossEntropyLoss(reduction='mean', label_smoothing=0.1, weight=…)"
