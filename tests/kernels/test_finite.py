import numpy as np
import pytest

from tinycnn.kernels.finite import all_finite


@pytest.mark.parametrize("value", [0.0, 1e38, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (6, 10)])
def test_one_value_is_enough(value, place):
    x = np.zeros((7, 11), np.float32)
    x[place] = value
    assert bool(all_finite(x)) == np.isfinite(value)


def test_nothing_and_integers_are_finite():
    assert all_finite(np.empty((0, 3)))
    assert all_finite(np.arange(5))
