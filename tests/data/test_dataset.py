import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.data import Dataset, Normalize, prepare, split_validation, stratified_split


def toy(N: int = 30, C: int = 1, K: int = 3, **changes) -> Dataset:
    """Image i is filled with i, label i is i mod K."""
    images = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, C, 4, 5))
    fields = {
        "name": "toy",
        "split": "train",
        "images": images,
        "labels": np.arange(N) % K,
        "classes": tuple("abcdefghij"[:K]),
        "mean": (0.5,) * C,
        "std": (0.25,) * C,
    }
    return Dataset(**{**fields, **changes})


def test_words():
    d = toy(C=2)
    assert repr(d) == "Dataset(toy train: 30 images 2×4×5, 3 classes)"
    assert (len(d), d.shape, d.num_classes) == (30, (2, 4, 5), 3)
    assert d.normalize == Normalize((0.5, 0.5), (0.25, 0.25))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((30, 4, 5), np.uint8)}, r"images must be uint8 \(N, C, H, W\), got uint8 \(30, 4, 5\)"),
        ({"images": np.zeros((30, 1, 4, 5))}, "images must be uint8 .* got float64"),
        ({"labels": np.zeros(29, np.int64)}, r"30 images need int64 labels of shape \(30,\), got int64 \(29,\)"),
        ({"labels": np.zeros(30, np.uint8)}, "got uint8"),
        ({"labels": np.full(30, 3)}, r"labels must lie in 0\.\.2, got 3\.\.3"),
        ({"labels": np.full(30, -1)}, r"labels must lie in 0\.\.2, got -1\.\.-1"),
        ({"mean": (0.5, 0.5)}, "one value for each of 1 channels"),
        ({"std": ()}, "one value for each of 1 channels"),
    ],
)
def test_parts_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match="^toy: .*" + message):
        toy(**changes)


def test_subset():
    d = toy(C=3).subset(np.array([7, 2, 7]), "part")
    assert d.split == "part"
    assert d.images[:, 2, 3, 4].tolist() == [7, 2, 7]
    assert d.labels.tolist() == [1, 2, 1]
    assert is_channels_last(d.images)
    assert toy().subset(np.array([0])).split == "train"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(
    labels=st.lists(st.integers(0, 4), min_size=4, max_size=60),
    fraction=st.floats(0.15, 0.85),
    seed=st.integers(0, 2**64 - 1),
)
def test_stratified_split(labels, fraction, seed):
    labels = np.array(labels)
    rest, part = stratified_split(labels, fraction, seed)
    assert sorted([*rest, *part]) == list(range(len(labels)))
    assert list(rest) == sorted(rest)
    assert list(part) == sorted(part)
    assert len(part) == round(fraction * len(labels))
    for k in set(labels.tolist()):
        assert abs((labels[part] == k).sum() - fraction * (labels == k).sum()) < 1
    again = stratified_split(labels.copy(), fraction, seed)
    assert [list(a) for a in again] == [list(rest), list(part)]


def test_the_seed_decides_and_every_example_can_be_drawn():
    labels = np.arange(20) % 2
    drawn = [stratified_split(labels, 0.3, seed)[1] for seed in range(60)]
    assert len({tuple(part) for part in drawn}) > 50
    assert set(np.concatenate(drawn).tolist()) == set(range(20))


def test_the_global_generator_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    stratified_split(np.arange(20) % 2, 0.5)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, 0.01, 0.99, float("nan")])
def test_a_split_with_nothing_on_one_side(fraction):
    with pytest.raises(ValueError, match=r"fraction must lie between 0 and 1 .* of 10 does not"):
        stratified_split(np.zeros(10, np.int64), fraction)


def test_split_validation():
    train, validation = split_validation(toy(), 0.2, seed=3)
    assert (train.split, validation.split) == ("train", "validation")
    assert np.bincount(validation.labels).tolist() == [2, 2, 2]
    both = np.concatenate([train.images[:, 0, 0, 0], validation.images[:, 0, 0, 0]])
    assert sorted(both.tolist()) == list(range(30))
    for part in (train, validation):
        assert (part.images[:, 0, 0, 0] % 3 == part.labels).all()
        assert (part.mean, part.classes) == (toy().mean, toy().classes)
    assert not np.array_equal(split_validation(toy(), 0.2, seed=4)[1].images, validation.images)


def test_prepare():
    d = prepare(toy(), (5, 6))
    assert d.images.shape == (30, 1, 5, 6)
    assert d.images.dtype == np.uint8
    assert d.images[7].sum() == 7 * 20  # padded
    assert prepare(toy(), (8, 10)).images[7].sum() == 7 * 80  # enlarged
    assert d.labels is not None
    assert d.mean == (0.5,)
