"""Transforms of transforms."""

import numpy as np
import pytest

from tinycnn.data import Compose, CutMix, Mixup, Normalize, RandomApply, RandomChoice, RandomCrop, RandomVerticalFlip


def photos(N=2000):
    return np.random.default_rng(0).integers(0, 256, (N, 3, 4, 5), dtype=np.uint8)


def add(k):
    return lambda x, rng: x + k


def test_one_after_the_other_from_one_generator():
    x, crop, flip = photos(50), RandomCrop((4, 5), padding=2), RandomVerticalFlip()
    rng = np.random.default_rng(3)
    expected = Normalize((0.1,) * 3, (0.5,) * 3)(flip(crop(x, rng), rng))
    y = Compose([crop, flip, Normalize((0.1,) * 3, (0.5,) * 3)])(x, np.random.default_rng(3))
    np.testing.assert_array_equal(y, expected)
    assert Compose([add(1), lambda x, rng: x * 2])(np.array([3]), None).tolist() == [8]


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_some_images_are_changed(p):
    x = photos()
    before = x.copy()
    y = RandomApply(RandomVerticalFlip(1.0), p)(x, np.random.default_rng(0))
    np.testing.assert_array_equal(x, before)
    changed = (x != y).any(axis=(1, 2, 3))
    for image, result, was in zip(x, y, changed, strict=True):
        np.testing.assert_array_equal(result, image[:, ::-1] if was else image)
    assert abs(changed.sum() - 2000 * p) <= 5 * np.sqrt(2000 * p * (1 - p))


def test_the_changed_and_the_others_must_go_together():
    with pytest.raises(ValueError, match=r"made uint8 \(2, 2, 3\) .* of uint8 \(4, 5, 3\)"):
        RandomApply(RandomCrop(2), 1.0)(photos(4), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"made float32 .* of uint8"):
        RandomApply(Normalize((0.0,) * 3, (1.0,) * 3), 1.0)(photos(4), np.random.default_rng(0))


def test_choices_are_as_likely_as_asked():
    for p, expected in ((None, [1 / 3] * 3), ((0.2, 0.5, 0.3), [0.2, 0.5, 0.3])):
        choose, rng = RandomChoice([add(0), add(1), add(2)], p), np.random.default_rng(0)
        counts = np.bincount([int(choose(np.array([0]), rng)[0]) for _ in range(3000)])
        assert np.abs(counts - 3000 * np.array(expected)).max() < 5 * np.sqrt(3000 * 0.25)


def test_a_choice_of_mixtures():
    x, y = photos(6), np.arange(6)
    mix = RandomChoice([Mixup(6), CutMix(6)])
    found = {tuple(mix(x, y, np.random.default_rng(seed))[1].argmax(axis=1)) for seed in range(9)}
    assert len(found) > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Compose([]), r"Compose needs transforms, got \[\]"),
        (lambda: Compose([add(1), 3]), "Compose needs transforms, got 3"),
        (lambda: RandomApply("x"), "RandomApply needs transforms, got 'x'"),
        (lambda: RandomApply(add(1), 2), "RandomApply: p must lie between 0 and 1, got 2"),
        (lambda: RandomChoice([add(1)], (0.5, 0.5)), r"p must be 1 numbers from 0 on of sum 1, got \(0\.5, 0\.5\)"),
        (lambda: RandomChoice([add(1), add(2)], (0.5, 0.4)), "p must be 2 numbers"),
        (lambda: RandomChoice([add(1), add(2)], (1.5, -0.5)), "p must be 2 numbers"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
