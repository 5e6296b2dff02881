"""Windows brought to one size, held to Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tinycnn.data import RandomResizedCrop
from tinycnn.data.resized_crop import central_box, resized, window_matrices
from tinycnn.data.transforms import interpolation_matrix


def pillow(image, box, size):
    """One channel, cropped and resized."""
    top, left, bottom, right = (int(v) for v in box)
    picture = Image.fromarray(image).crop((left, top, right, bottom))
    return np.asarray(picture.resize(size[::-1], Image.Resampling.BILINEAR))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_crop_and_resize_are_pillows(H, W, OH, OW, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((4, H, W, 2)).astype(np.float32)
    top, left = rng.integers(0, H, 4), rng.integers(0, W, 4)
    boxes = np.stack([top, left, rng.integers(top + 1, H + 1), rng.integers(left + 1, W + 1)])
    y = resized(x, boxes, (OH, OW))
    assert y.dtype == np.float32
    for n, c in np.ndindex(4, 2):
        np.testing.assert_allclose(y[n, ..., c], pillow(x[n, ..., c], boxes[:, n], (OH, OW)), rtol=0, atol=1e-5)


def test_bytes_are_pillows_to_one_level():
    """Pillow has weights of 8 bits more for these, and rounds twice."""
    x = np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), np.uint8)
    boxes = np.array([[0, 3, 5], [0, 4, 1], [20, 17, 8], [24, 23, 20]])
    y = resized(x, boxes, (9, 11))
    for n, c in np.ndindex(3, 3):
        assert np.abs(y[n, ..., c].astype(int) - pillow(x[n, ..., c], boxes[:, n], (9, 11))).max() <= 1


def test_a_window_of_all_is_the_resizing_of_datasets():
    ours = window_matrices(9, np.array([0]), np.array([9]), 4)[0]
    np.testing.assert_allclose(ours, interpolation_matrix(9, 4), rtol=1e-15)


@given(st.integers(0, 99))
def test_the_whole_transform_is_drawn_boxes_resized(seed):
    transform = RandomResizedCrop((5, 6), (0.2, 0.7), (0.5, 1.5))
    x = np.random.default_rng(seed).random((6, 2, 11, 13)).astype(np.float32)
    boxes = transform.draw(6, 11, 13, np.random.default_rng(seed))
    y = transform(x, np.random.default_rng(seed))
    for n, c in np.ndindex(6, 2):
        np.testing.assert_allclose(y[n, c], pillow(x[n, c], boxes[:, n], (5, 6)), rtol=0, atol=1e-5)


def test_windows_have_the_area_and_shape_asked_for():
    top, left, bottom, right = RandomResizedCrop(8).draw(5000, 200, 240, np.random.default_rng(0))
    h, w = bottom - top, right - left
    area, shape = h * w / 48000, w / h
    assert 0.078 < area.min() < 0.1
    assert 0.95 < area.max() <= 1
    assert 0.74 < shape.min() < 0.77
    assert 1.3 < shape.max() < 1.35


@pytest.mark.parametrize(
    ("size", "ratio", "box"),
    [
        ((40, 100), (3 / 4, 4 / 3), [0, 23, 40, 76]),  # too wide: 40·4/3 = 53 wide
        ((100, 40), (3 / 4, 4 / 3), [23, 0, 76, 40]),
        ((30, 30), (3 / 4, 4 / 3), [0, 0, 30, 30]),
        ((30, 39), (3 / 4, 4 / 3), [0, 0, 30, 39]),
        ((1, 50), (1e-3, 1e-3), [0, 24, 1, 25]),
    ],
)
def test_what_no_window_fits_gives_its_middle(size, ratio, box):
    assert central_box(*size, ratio).tolist() == box


def test_the_middle_is_taken_when_nothing_fits():
    boxes = RandomResizedCrop(4, scale=(1, 1), ratio=(1, 1)).draw(3, 10, 20, np.random.default_rng(0))
    assert boxes.T.tolist() == [[0, 5, 10, 15]] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "size must be a whole number from 1 on"),
        ((4, (0.5, 1.5)), r"scale must be \(a, b\) with 0 ≤ a ≤ b ≤ 1, got \(0\.5, 1\.5\)"),
        ((4, (0.5, 1), (2, 1)), r"ratio must be .*, got \(2, 1\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"RandomResizedCrop: {message}"):
        RandomResizedCrop(*arguments)
