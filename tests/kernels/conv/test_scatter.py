"""col2im by strips: the adjoint of the forward, exactly, whatever the width of the strips."""

import numpy as np
import pytest
from helpers import poisoned
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels.conv import patches, scatter
from tinycnn.kernels.conv.patches import Strips
from tinycnn.kernels.window import Window

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60)
@given(PAIR, PAIR, PAIR, st.tuples(st.integers(0, 2), st.integers(0, 2)), st.sampled_from([1, 2]), st.integers(0, 99))
def test_both_gradients_are_adjoints_exactly(kernel, stride, dilation, pads, G, seed):
    rng = np.random.default_rng(seed)
    window = Window(kernel, stride, (pads, pads[::-1]), dilation)
    x, w = (rng.integers(-4, 5, shape).astype(float) for shape in ((2, 9, 10, 4), (6, *kernel, 4 // G)))
    y = patches.forward(x, w, None, window, G)
    dy = rng.integers(-4, 5, y.shape).astype(float)
    rows, columns = patches.reaches(window, *y.shape[1:3])
    for B in range(1, columns.count + 1) if G == 1 else [1]:
        if columns.count % B == 0:
            dx, dw = scatter.backward(dy, x, x.shape, w, window, Strips(rows, columns, B, G))
            assert (y * dy).sum() == (x * dx).sum() == (w * dw).sum()


@pytest.mark.parametrize("B", [1, 2, 4])
def test_nothing_uninitialised_gets_in_and_dw_may_be_left_out(B, monkeypatch):
    rng = np.random.default_rng(0)
    window = Window((3, 2), (2, 1), ((1, 0), (0, 1)))
    x, w = rng.standard_normal((3, 7, 8, 2)), rng.standard_normal((4, 3, 2, 2))
    rows, columns = patches.reaches(window, *window.out_size(7, 8))
    dy = rng.standard_normal((3, rows.count, columns.count, 4))
    how = Strips(rows, columns, B, 1)
    wanted = scatter.backward(dy, x, x.shape, w, window, how)
    with poisoned(monkeypatch):
        dx, dw = scatter.backward(dy, x, x.shape, w, window, how)
        alone, nothing = scatter.backward(dy, None, x.shape, w, window, how)
    np.testing.assert_array_equal(dx, wanted[0])
    np.testing.assert_array_equal(dw, wanted[1])
    np.testing.assert_array_equal(alone, dx)
    assert nothing is None
