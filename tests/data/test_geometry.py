"""Mirroring, quarter turns and crops: which images, and where every pixel goes."""

from collections import Counter

import numpy as np
import pytest

from tinycnn.data import Augment, RandomCrop, RandomHorizontalFlip, RandomRotation90, RandomVerticalFlip
from tinycnn.data.geometry import flipped, turned, windows


def photos(N=2, C=3, H=5, W=4, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, C, H, W), dtype=np.uint8)


@pytest.mark.parametrize(("transform", "axis"), [(RandomHorizontalFlip, 2), (RandomVerticalFlip, 1)])
@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_flips(transform, axis, p):
    x = photos(2000)
    y = transform(p)(x, np.random.default_rng(0))
    same = (x == y).all(axis=(1, 2, 3))
    for image, changed, kept in zip(x, y, same, strict=True):
        np.testing.assert_array_equal(changed, image if kept else np.flip(image, axis))
    assert abs((~same).sum() - 2000 * p) <= 5 * np.sqrt(2000 * p * (1 - p))


def test_flipped_by_hand():
    x = np.arange(12).reshape(2, 2, 3, 1)
    assert flipped(x, np.array([False, True]), 2)[..., 0].tolist() == [[[0, 1, 2], [3, 4, 5]], [[8, 7, 6], [11, 10, 9]]]
    assert flipped(x, np.array([True, False]), 1)[..., 0].tolist() == [[[3, 4, 5], [0, 1, 2]], [[6, 7, 8], [9, 10, 11]]]


def test_quarter_turns_are_those_of_numpy():
    x = photos(9, H=5, W=5).transpose(0, 2, 3, 1)
    quarters = np.arange(9) % 4
    for image, k, result in zip(x, quarters, turned(x, quarters), strict=True):
        np.testing.assert_array_equal(result, np.rot90(image, k))


def test_quarter_turns_are_equally_likely():
    x = np.zeros((4000, 1, 2, 2), np.uint8)
    x[:, 0, 0, 0] = 1
    corners = RandomRotation90()(x, np.random.default_rng(0)).reshape(4000, 4).sum(axis=0, dtype=np.int64)
    assert corners.sum() == 4000
    assert np.abs(corners - 1000).max() < 5 * np.sqrt(750)


def test_only_square_images_are_turned():
    with pytest.raises(ValueError, match="RandomRotation90 takes square images, got 5×4"):
        RandomRotation90()(photos(), np.random.default_rng(0))


def test_windows():
    x = photos(3, H=7, W=6).transpose(0, 2, 3, 1)
    y = windows(x, np.array([0, 4, 2]), np.array([2, 0, 1]), (3, 4))
    for image, (h, w), result in zip(x, [(0, 2), (4, 0), (2, 1)], y, strict=True):
        np.testing.assert_array_equal(result, image[h : h + 3, w : w + 4])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize(("size", "padding"), [(5, 0), ((4, 6), 2), ((9, 2), 3)])
def test_crops_are_windows_of_the_padded_image_uniformly(mode, size, padding):
    rng = np.random.default_rng(1)
    image = rng.permutation(42).reshape(7, 6).astype(np.uint8) + 1  # no two pixels alike
    fill = 9 if mode == "constant" else 0
    options = {"constant_values": fill} if mode == "constant" else {}
    around = np.pad(image, padding, mode=mode, **options)
    OH, OW = (size, size) if isinstance(size, int) else size
    places = Counter(  # some look alike, beyond the edge
        around[h : h + OH, w : w + OW].tobytes()
        for h in range(around.shape[0] - OH + 1)
        for w in range(around.shape[1] - OW + 1)
    )
    n = 60 * places.total()
    y = RandomCrop(size, padding, mode, fill)(np.broadcast_to(image, (n, 1, 7, 6)), rng)
    found = Counter(result.tobytes() for result in y)
    assert found.keys() == places.keys()
    for look, times in places.items():
        assert abs(found[look] - 60 * times) < 5 * np.sqrt(60 * times)


def test_crop_and_mirror_are_the_fused_augmentation():
    """The same sixteen by two pictures, equally often."""
    x = np.arange(1, 10, dtype=np.uint8).reshape(1, 1, 3, 3).repeat(4000, axis=0)
    rng = np.random.default_rng(0)
    ours = RandomHorizontalFlip()(RandomCrop(3, padding=1)(x, rng), rng)
    fused = Augment(shift=1, mirror=True)(x, rng)
    found = [np.unique(y.reshape(4000, 9), axis=0, return_counts=True) for y in (ours, fused)]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert len(found[0][0]) == 18
    assert np.abs(found[0][1] - 4000 / 18).max() < 5 * np.sqrt(4000 / 18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "RandomCrop: size must be a whole number from 1 on, or two of them, got 0"),
        ((3, -1), "RandomCrop: padding must be a whole number from 0 on, or two of them, got -1"),
        ((3, 1, "zeros"), "padding_mode must be one of .*'reflect', 'symmetric'.*, got 'zeros'"),
    ],
)
def test_bad_crops(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomCrop(*arguments)


def test_a_window_must_fit():
    with pytest.raises(ValueError, match="a window of 7×7 does not fit into 7×6, the border included"):
        RandomCrop(7, padding=1)(photos(), np.random.default_rng(0))


@pytest.mark.parametrize("transform", [RandomHorizontalFlip, RandomVerticalFlip])
def test_bad_probabilities(transform):
    with pytest.raises(ValueError, match=f"{transform.__name__}: p must lie between 0 and 1, got 2"):
        transform(2)
