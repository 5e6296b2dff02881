"""The images of a run: parts, loaders, and whether they are the same as before."""

import numpy as np
import pytest
from small_runs import settings

from tinycnn import data
from tinycnn.data.dataset import stratified_split
from tinycnn.train import images as images_module
from tinycnn.train.images import Photographs, difference, identity, open_images


def test_a_fraction_has_every_class_in_proportion(small):
    labels = data.load("digits").labels
    opened = open_images(settings(fraction=0.5, val_fraction=0.0), "cpu", None)
    _, part = stratified_split(labels, 0.5, 7)
    assert np.array_equal(opened.training.labels, labels[part])
    whole, half = (np.bincount(y, minlength=10) for y in (labels, opened.training.labels))
    assert np.all(np.abs(half - whole / 2) < 1)
    assert opened.validation is None


def test_the_part_set_aside_is_of_the_fraction(small):
    with pytest.raises(ValueError, match=r"^val_fraction must lie between 0 and 1 and leave .*: 0.0001 of"):
        open_images(settings(fraction=0.5, val_fraction=0.0001), "cpu", None)
    opened = open_images(settings(fraction=0.5, val_fraction=0.2), "cpu", None)
    assert (len(opened.training.labels), len(opened.validation.labels), len(opened.test.labels)) == (80, 20, 60)


def test_the_seed_chooses(small):
    one, other = (open_images(settings(fraction=0.5, seed=seed), "cpu", None) for seed in (1, 2))
    assert not np.array_equal(one.training.labels, other.training.labels)


def test_a_fraction_without_a_class_is_refused(small):
    with pytest.raises(ValueError, match=r"fraction 0\.02 of 200 images leaves none of .* and 2 more: take more"):
        open_images(settings(fraction=0.02), "cpu", None)


def test_images_normalised_as_a_whole(small):
    """Crops are of images that are normalised, so a border is 0; the test images take the training images' mean."""
    chosen = settings(normalize="per-pixel-mean", val_fraction=0.0, shift=2)
    opened = open_images(chosen, "cpu", None)
    train, test = (data.fit_images(data.load("digits", split).images, (32, 32)) / 255 for split in ("train", "test"))
    mean = train.mean(axis=0)
    (x, _), *_ = opened.test.epoch(0)
    np.testing.assert_allclose(x, test - mean, atol=1e-6)
    x = np.concatenate([x for x, _ in opened.training.epoch(0)])
    order = opened.training.order(0)
    rows = x[:, 0, 15:17, 15:17]
    moved = [
        np.roll(train - mean, (i, j), (2, 3))[order][:, 0, 15:17, 15:17] for i in range(-2, 3) for j in range(-2, 3)
    ]
    assert np.abs(np.stack(moved) - rows).max(axis=(2, 3)).min(axis=0).max() < 1e-6
    np.testing.assert_allclose(opened.learnt["mean"], mean, atol=1e-6)


def test_mixed_labels_are_for_training_only(small):
    opened = open_images(settings(mix="mixup"), "cpu", None)
    assert next(opened.training.epoch(0))[1].shape == (64, 10)
    assert next(opened.validation.epoch(0))[1].ndim == 1


def test_workers_reach_the_loaders(small):
    opened = open_images(settings(), "cpu", None, workers=2)
    assert opened.training.workers == opened.test.workers == 2


# ---- photographs ---------------------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for split, n in (("train", 6), ("val", 2)):
        for label in ("ants", "bees"):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for i in range(n):
                image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def batches(loader):
    return [(x, y) for x, y in loader.epoch(0)]


def test_photographs_that_stay_in_their_files_give_the_same_batches(photos, monkeypatch):
    chosen = settings(
        model="resnet20", data="imagefolder", batch_size=4, val_fraction=0.25, fraction=0.9, augment="flip"
    )
    here = open_images(chosen, "cpu", str(photos))
    monkeypatch.setattr(images_module, "LARGE", 1000)
    there = open_images(chosen, "cpu", str(photos))
    assert not isinstance(here.training._images, Photographs)
    assert isinstance(there.training._images, Photographs)
    assert (here.identity, here.preprocessing) == (there.identity, there.preprocessing)
    for name in ("training", "validation", "test"):
        for one, other in zip(batches(getattr(here, name)), batches(getattr(there, name)), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    for given in ({"normalize": "per-pixel-mean"}, {"augment": "lighting"}):
        with pytest.raises(ValueError, match="too many for memory"):
            open_images(settings(model="resnet20", data="imagefolder", **given), "cpu", str(photos))


def test_options_of_photographs(photos):
    chosen = settings(data="imagefolder", data_options={"channels": 1, "size": [16, 16]})
    opened = open_images(chosen, "cpu", str(photos))
    assert opened.channels == 1
    assert tuple(opened.preprocessing["image_size"]) == (16, 16)


# ---- is it the same dataset? ---------------------------------------------------------------------------------


def dataset(classes, labels):
    images = np.zeros((len(labels), 1, 2, 2), np.uint8)
    return data.Dataset("a", "train", images, np.array(labels, np.int64), classes, (0.5,), (0.5,))


@pytest.mark.parametrize(
    ("classes", "training", "test", "words"),
    [
        (("ant", "bee"), [0, 0, 1], [0, 1], None),
        (("ant", "wasp"), [0, 0, 1], [0, 1], "its classes are others (bee is gone; wasp is new)"),
        (("ant", "bee", "wasp"), [0, 0, 1], [0, 1], "its classes are others (wasp is new)"),
        (("bee", "ant"), [0, 0, 1], [0, 1], "its classes are others (their order)"),
        (("ant", "bee"), [0, 1, 1, 0], [0, 1], "its training images are 4 and were 3 (bee 2 and not 1)"),
        (("ant", "bee"), [0, 0, 1], [0, 0], "its test images are 2 and were 2 (ant 2 and not 1, bee 0 and not 1)"),
        (("ant", "bee"), [0, 1, 0], [0, 1], "the order of its images is another"),
    ],
)
def test_difference(classes, training, test, words):
    before = identity(dataset(("ant", "bee"), [0, 0, 1]), dataset(("ant", "bee"), [0, 1]))
    assert difference(before, identity(dataset(classes, training), dataset(classes, test))) == words


def test_what_is_watched_is_of_two_classes_even_where_images_come_class_by_class(small, monkeypatch):
    load = data.load

    def sorted_by_class(*what, **options):
        dataset = load(*what, **options)
        return dataset.subset(np.argsort(dataset.labels, kind="stable"))

    monkeypatch.setattr(data, "load", sorted_by_class)
    opened = open_images(settings(val_fraction=0.0), "cpu", None)
    ((x, y),) = opened.watched.epoch(0)
    labels = data.load("digits").labels
    assert y.tolist() == [labels[0], labels[0] + 1]
    assert opened.watched_numbers == [0, np.count_nonzero(labels == labels[0])]
    assert len(x) == 2
