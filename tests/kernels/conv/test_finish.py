"""What follows a convolution, piece by piece, against the whole at once."""

import itertools

import numpy as np
import pytest

from tinycnn.kernels.conv.finish import Finish

KINDS = [*itertools.product([False, True], repeat=3)]


def draw(has_bias, has_shortcut):
    rng = np.random.default_rng(0)
    y, b, s = rng.standard_normal((3, 4, 5, 6)), rng.standard_normal(6), rng.standard_normal((3, 4, 5, 6))
    return y, b if has_bias else None, s if has_shortcut else None


def wanted(y, b, s, relu):
    y = y + (0 if b is None else b) + (0 if s is None else s)
    return np.where(y > 0, y, 0) if relu else y


@pytest.mark.parametrize(("bias", "shortcut", "relu"), KINDS)
def test_rows_of_images(bias, shortcut, relu):
    y, b, s = draw(bias, shortcut)
    expected = wanted(y, b, s, relu)
    finish = Finish(b, s, relu).rows(y)
    for images, band in itertools.product([slice(0, 2), slice(2, 3)], [slice(0, 3), slice(3, 4)]):
        finish(images, band)
    np.testing.assert_allclose(y, expected, rtol=1e-15)


@pytest.mark.parametrize(("bias", "shortcut", "relu"), KINDS)
def test_some_channels(bias, shortcut, relu):
    y, b, s = draw(bias, shortcut)
    expected = wanted(y, b, s, relu)
    for channels in (slice(0, 2), slice(2, 6)):
        Finish(b, s, relu).of_channels(channels)(y[..., channels])
    np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_a_bias_that_is_there_already_is_not_added_again():
    y, b, s = draw(True, True)
    expected = wanted(y, None, s, True)
    Finish(b, s, True).without_bias(y)(slice(None), slice(None))
    np.testing.assert_allclose(y, expected, rtol=1e-15)


def test_not_a_number_stays_so():
    y = np.array([np.nan, -1.0, 1.0]).reshape(1, 1, 1, 3)
    Finish(relu=True).rows(y)(slice(None), slice(None))
    np.testing.assert_array_equal(y.ravel(), [np.nan, 0, 1])


def test_no_images_are_none_afterwards():
    y = np.zeros((0, 4, 5, 6))
    Finish(np.ones(6), None, True).rows(y)(slice(0, 0), slice(0, 4))
    assert y.shape == (0, 4, 5, 6)
