"""Boxes within images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.data.boxes import draw_around, draw_boxes, inside


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99))
def test_boxes_lie_within_their_images(H, W, seed):
    boxes, found = draw_boxes(50, H, W, (0.02, 0.9), (0.2, 5), np.random.default_rng(seed))
    top, left, bottom, right = boxes
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top < bottom).all()
    assert (left < right).all()
    assert (bottom <= H).all()
    assert (right <= W).all()
    np.testing.assert_array_equal(boxes[:, ~found], np.tile([[0], [0], [H], [W]], (~found).sum()))


def test_area_shape_and_place_are_spread_evenly():
    top, left, bottom, right = draw_boxes(20000, 400, 300, (0.1, 0.3), (0.5, 2), np.random.default_rng(0))[0]
    h, w = bottom - top, right - left
    area, shape = h * w / 120000, np.log2(w / h)
    for values, least, most in ((area, 0.1, 0.3), (shape, -1, 1)):
        counts, _ = np.histogram(values, 4, (least, most))
        assert np.abs(counts - 5000).max() < 5 * np.sqrt(5000)
        assert counts.sum() > 19900  # sides are whole numbers, so a few are beyond by rounding
    for place, room in ((top, 400 - h), (left, 300 - w)):
        share = (place + 0.5) / (room + 1)
        assert abs(share.mean() - 0.5) < 5 / np.sqrt(12 * 20000)
        assert share.std() == pytest.approx(12**-0.5, rel=0.02)


def test_what_never_fits_is_said():
    boxes, found = draw_boxes(5, 4, 100, (1, 1), (1, 1), np.random.default_rng(0))
    assert not found.any()
    assert boxes[:, 0].tolist() == [0, 0, 4, 100]


def test_the_first_that_fits_is_taken():
    """Half of those drawn are too wide or too tall: ten in a row for one image of 1024."""
    boxes, found = draw_boxes(20480, 20, 20, (0.5, 0.5), (0.25, 4), np.random.default_rng(0))
    h, w = (boxes[2:] - boxes[:2])[:, found]
    assert 3 < (~found).sum() < 50
    assert (np.abs(h * w - 200) <= 0.5 * (h + w) + 0.25).all()


def test_boxes_around_any_pixel_are_cut_off():
    boxes = draw_around(20000, 6, 5, np.array([[4], [3]]), np.random.default_rng(0))
    expected = {(max(h - 2, 0), max(w - 1, 0), min(h + 2, 6), min(w + 2, 5)) for h in range(6) for w in range(5)}
    found, counts = np.unique(boxes, axis=1, return_counts=True)
    assert {tuple(box) for box in found.T.tolist()} == expected
    assert np.abs(counts - 20000 / 30).max() < 5 * np.sqrt(20000 / 30)


def test_which_pixels_are_inside():
    boxes = np.array([[1, 0], [0, 2], [3, 0], [2, 4]])
    mask = inside(boxes, np.zeros((2, 4, 5, 3)))
    assert mask.shape == (2, 4, 5, 1)
    for n, h, w in np.ndindex(2, 4, 5):
        top, left, bottom, right = boxes[:, n]
        assert mask[n, h, w, 0] == (top <= h < bottom and left <= w < right)
