"""What layers refuse, and what they say."""

import numpy as np
import pytest

from tinycnn.layers.check import LayerError, check_array, pair, refuse_empty


def test_pair():
    assert pair(3, "size", 1, "X") == (3, 3)
    assert pair([1, 2], "size", 1, "X") == (1, 2)
    with pytest.raises(LayerError, match="X: size must be at least 1, got 0"):
        pair(0, "size", 1, "X")
    for bad in (2.5, (1, 2, 3), "3"):
        with pytest.raises(LayerError, match="X: size must be an integer or a pair"):
            pair(bad, "size", 1, "X")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0]], "X: expected a float32 or float64 array, got list"),
        (np.ones((1, 3, 2, 2), np.float16), r"got float16 \(which only GPUs compute with\): convert it with astype"),
        (np.ones((1, 3, 2, 2), int), "got int64"),
        (np.ones((3, 2)), r"expected an input of shape \(N, C, H, W\), got \(3, 2\)"),
        (np.ones((1, 2, 4, 4)), r"expected 3 channels on axis 1, got 2 in shape \(1, 2, 4, 4\)"),
    ],
)
def test_arrays_that_do_not_fit(x, message):
    with pytest.raises(LayerError, match=message):
        check_array("X", x, (4,), 3)


def test_nothing_to_take_statistics_of():
    refuse_empty("X", np.ones((1, 2)))
    with pytest.raises(LayerError, match=r"X: the input is empty, of shape \(0, 3, 4, 4\)"):
        refuse_empty("X", np.ones((0, 3, 4, 4)))


def test_an_array_that_fits():
    check_array("X", np.ones((1, 3, 2, 2), np.float32), (4,), 3)
    check_array("X", np.ones((5,)), None, None)
