"""Figures of merit, compared with scikit-learn's."""

import json
import math

import numpy as np
import pytest
import sklearn.metrics as sk
from scipy.stats import binomtest

from tinycnn.evaluation import Predictions, average, wilson


def made(N=200, K=7, seed=0, absent=(), never=()):
    """Random probabilities, right more often than not; some classes absent from the labels, some never believed in."""
    rng = np.random.default_rng(seed)
    y = rng.choice([k for k in range(K) if k not in absent], N)
    logits = rng.standard_normal((N, K))
    logits[np.arange(N), y] += 1.5
    logits[:, list(never)] = -20
    e = np.exp(logits)
    return Predictions(e / e.sum(axis=1, keepdims=True), y, tuple(f"class {k}" for k in range(K)))


@pytest.mark.parametrize("K", [2, 3, 7, 100])
def test_single_figures(K):
    p = made(K=K)
    assert p.accuracy == sk.accuracy_score(p.labels, p.predicted)
    assert p.loss == pytest.approx(sk.log_loss(p.labels, p.probabilities, labels=range(K)), rel=1e-12)
    onehot = np.eye(K)[p.labels]
    assert p.brier == pytest.approx(((p.probabilities - onehot) ** 2).sum(axis=1).mean(), rel=1e-12)
    if K == 2:
        assert p.brier == pytest.approx(2 * sk.brier_score_loss(p.labels, p.probabilities[:, 1]), rel=1e-12)
    for k in range(1, min(K, 9)):
        expected = sk.top_k_accuracy_score(p.labels, p.probabilities, k=k, labels=range(K)) if K > 2 else p.accuracy
        assert p.top(k) == expected
    assert p.top(K) == p.top(K + 5) == 1
    assert p.top(1) == p.accuracy


def test_of_equal_probabilities_the_first_counts_as_larger():
    p = Predictions(np.full((3, 4), 0.25), [0, 2, 3])
    assert p.predicted.tolist() == [0, 0, 0]
    assert [p.top(k) for k in (1, 2, 3, 4)] == pytest.approx([1 / 3, 1 / 3, 2 / 3, 1])


def test_class_by_class():
    p = made(absent=[2], never=[4])
    assert np.array_equal(p.confusion(), sk.confusion_matrix(p.labels, p.predicted, labels=range(7)))
    assert p.confusion().dtype == np.int64
    scores = sk.precision_recall_fscore_support(p.labels, p.predicted, labels=range(7), zero_division=np.nan)
    for k, row in enumerate(p.per_class()):
        assert row["class"] == f"class {k}"
        assert row["images"] == scores[3][k]
        assert row["predicted"] == (p.predicted == k).sum()
        for name, expected in zip(("precision", "recall", "f1"), scores, strict=False):
            if row[name] is None:
                assert np.isnan(expected[k])
            else:
                assert row[name] == pytest.approx(expected[k], rel=1e-12)
    assert p.per_class()[2]["recall"] is None
    assert p.per_class()[4]["precision"] is None


def test_rows_of_the_confusion_matrix_are_the_truth():
    p = Predictions([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]], [0, 0, 0])
    assert p.confusion().tolist() == [[1, 2], [0, 0]]


def test_most_wrong():
    p = Predictions([[0.9, 0.1], [0.6, 0.4], [0.1, 0.9], [0.8, 0.2], [0.99, 0.01], [0.4, 0.6]], [0, 1, 0, 1, 0, 1])
    assert p.most_wrong(2).tolist() == [2, 3]
    assert p.most_wrong(9).tolist() == [2, 3, 1]
    assert p.most_wrong(0).tolist() == []


@pytest.mark.parametrize(("right", "N"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 359), (343, 359), (9173, 10_000)])
def test_wilson(right, N):
    expected = binomtest(right, N).proportion_ci(0.95, method="wilson")
    assert wilson(right, N) == pytest.approx((expected.low, expected.high), rel=1e-12, abs=1e-15)
    y = np.arange(N) >= right  # told to be of class 0
    p = Predictions(np.tile([0.9, 0.1], (N, 1)), y.astype(int))
    assert p.interval() == wilson(right, N)
    low, high = wilson(right, N)
    assert 0 <= low <= right / N <= high <= 1


def test_probability_zero_of_what_is_true():
    p = Predictions([[1.0, 0.0]], [1])
    assert p.loss == math.inf
    assert p.to_dict()["loss"] is None
    assert p.brier == 2


def test_everything_is_json():
    p = made(absent=[2], never=[4])
    found = json.loads(json.dumps(p.to_dict(), allow_nan=False))
    assert found["accuracy"] == p.accuracy
    assert found["interval"] == list(p.interval())
    assert found["top5"] == p.top(5)
    assert found["classes"] == list(p.classes)
    assert found["confusion"] == p.confusion().tolist()
    assert found["calibration_error"] == found["calibration"]["error"] == p.calibration().error
    assert made(K=5).to_dict()["top5"] is None


def test_classes_have_numbers_for_names():
    assert Predictions([[0.5, 0.5]], [0]).classes == ("0", "1")


def test_any_float_and_integer():
    p = Predictions(np.array([[0.25, 0.75]], np.float32), np.array([1], np.uint8), ["a", "b"])
    assert (p.probabilities.dtype, p.labels.dtype, p.classes) == (np.float64, np.int64, ("a", "b"))


@pytest.mark.parametrize(
    ("probabilities", "labels", "classes", "words"),
    [
        ([0.5, 0.5], [0, 1], (), r"probabilities \(N, K\)"),
        (np.empty((0, 3)), np.empty(0, int), (), "at least one"),
        ([[0.5, 0.5]], [0, 1], (), r"labels int64 \(2,\)"),
        ([[0.5, 0.5]], [1.0], (), "labels float64"),
        ([[0.5, 0.5]], [2], (), r"must lie in 0..1, got 2..2"),
        ([[0.5, 0.5]], [-1], (), r"must lie in 0..1, got -1..-1"),
        ([[0.5, 0.5]], [0], ("a",), "as many classes, got 1"),
        ([[0.5, 0.5], [0.5, 0.6]], [0, 0], (), "of image 1 must be at least 0 and sum to 1"),
        ([[0.5, 0.5], [1.5, -0.5]], [0, 0], (), "of image 1"),
        ([[np.nan, 0.5]], [0], (), "of image 0"),
    ],
)
def test_refused(probabilities, labels, classes, words):
    with pytest.raises(ValueError, match=words):
        Predictions(probabilities, labels, classes)


def test_top_zero_is_refused():
    with pytest.raises(ValueError, match="at least one class"):
        made().top(0)


# ---- ensembles -----------------------------------------------------------------------------------------------


def test_average():
    three = [made(seed=0)]
    for seed in (1, 2):
        three.append(Predictions(made(seed=seed).probabilities, three[0].labels, three[0].classes))
    found = average(three)
    expected = np.empty((200, 7))
    for n in range(200):
        for k in range(7):
            expected[n, k] = math.fsum(p.probabilities[n, k] for p in three) / 3
    np.testing.assert_allclose(found.probabilities, expected, rtol=1e-15)
    assert found.classes == three[0].classes
    assert np.array_equal(average(three[:1]).probabilities, three[0].probabilities)
    assert np.array_equal(three[0].probabilities, made(seed=0).probabilities)


def test_average_refuses_other_images():
    a = Predictions([[0.5, 0.5], [0.5, 0.5]], [0, 1], ("a", "b"))
    with pytest.raises(ValueError, match="network 2 had other labels"):
        average([a, Predictions(a.probabilities, [1, 0], a.classes)])
    with pytest.raises(ValueError, match="network 3 has others"):
        average([a, a, Predictions(a.probabilities, a.labels, ("b", "a"))])
    with pytest.raises(ValueError, match="got none"):
        average([])


@pytest.mark.parametrize(("right", "N"), [(0, 0), (3, 2), (-1, 2)])
def test_an_interval_of_nothing(right, N):
    with pytest.raises(ValueError, match=f"got {right} of {N}"):
        wilson(right, N)
