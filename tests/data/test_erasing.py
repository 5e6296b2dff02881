"""Cutout and random erasing."""

import numpy as np
import pytest

from tinycnn.data import Cutout, RandomErasing


def ones(N=2000, C=3, H=12, W=10, dtype=np.uint8):
    return np.ones((N, C, H, W), dtype)


def erased_boxes(x, y):
    """The box around what has changed in each image, and that it has changed wholly and alone."""
    for before, after in zip(x, y, strict=True):
        changed = (before != after).any(axis=0)
        if not changed.any():
            yield None
            continue
        rows, cols = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        assert changed[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1].all()
        yield rows[0], cols[0], rows[-1] + 1, cols[-1] + 1


@pytest.mark.parametrize(("size", "side"), [(4, (4, 4)), ((3, 5), (3, 5)), (1, (1, 1)), (99, (99, 99))])
def test_cutout_around_every_pixel(size, side):
    x = ones()
    boxes = list(erased_boxes(x, Cutout(size, fill=(7, 8, 9))(x, np.random.default_rng(0))))
    tops, lefts = ([middle - side[k] // 2 for middle in range(n)] for k, n in enumerate((12, 10)))
    expected = {
        (max(top, 0), max(left, 0), min(top + side[0], 12), min(left + side[1], 10)) for top in tops for left in lefts
    }
    assert set(boxes) == expected


def test_the_hole_is_filled():
    y = Cutout(99, fill=(7, 8, 9))(ones(N=1), np.random.default_rng(0))
    assert y[0, :, 0, 0].tolist() == [7, 8, 9]
    assert (Cutout(99)(ones(N=1, dtype=np.float32), np.random.default_rng(0)) == 0).all()


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_erasing_as_often_and_as_large_as_asked(p):
    x = ones(N=1500, H=60, W=50)
    boxes = list(erased_boxes(x, RandomErasing(p, (0.1, 0.2), (0.5, 1))(x, np.random.default_rng(0))))
    found = np.array([box for box in boxes if box is not None]).reshape(-1, 4)
    assert abs(len(found) - 1500 * p) <= 5 * np.sqrt(1500 * p * (1 - p))
    h, w = (found[:, 2:] - found[:, :2]).T
    assert (h * w >= 0.1 * 3000 - 30).all()
    assert (h * w <= 0.2 * 3000 + 30).all()
    assert (h <= w + 1).all()  # height to width from ½ to 1
    assert (2 * h >= w - 2).all()
    if p == 1:
        assert h.mean() < 0.9 * w.mean()


def test_noise_is_uniform_and_differs_from_pixel_to_pixel():
    x = np.zeros((200, 3, 20, 20), np.uint8)
    y = RandomErasing(1.0, (1.0, 1.0), (1.0, 1.0), "random")(x, np.random.default_rng(0))
    counts = np.bincount(y.ravel(), minlength=256)
    assert np.abs(counts - y.size / 256).max() < 5.5 * np.sqrt(y.size / 256)
    assert (y[:, 0] != y[:, 1]).mean() > 0.99
    assert (y[0] != y[1]).mean() > 0.99
    floats = RandomErasing(1.0, (1.0, 1.0), (1.0, 1.0), "random")(x / 255, np.random.default_rng(0))
    assert 0.49 < floats.mean() < 0.51
    assert floats.min() >= 0
    assert floats.max() < 1


def test_what_no_box_fits_stays():
    x = ones(N=50, H=2, W=40)
    np.testing.assert_array_equal(RandomErasing(1.0, (0.9, 0.9), (1, 1))(x, np.random.default_rng(0)), x)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Cutout(0), "Cutout: size must be a whole number from 1 on"),
        (lambda: RandomErasing(1.5), r"RandomErasing: p must lie between 0 and 1, got 1\.5"),
        (lambda: RandomErasing(scale=(0.1, 2)), r"scale must be \(a, b\) with 0 ≤ a ≤ b ≤ 1, got \(0\.1, 2\)"),
        (lambda: RandomErasing(ratio=(0, 1)), "ratio must be"),
        (lambda: RandomErasing(value="noise"), "or 'random', got 'noise'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
