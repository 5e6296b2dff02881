"""The geometry of a sliding window."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.window import Window, pad, positions

WINDOWS = st.builds(
    Window,
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
    st.tuples(st.tuples(st.integers(0, 2), st.integers(0, 3)), st.tuples(st.integers(0, 1), st.integers(0, 2))),
    st.tuples(st.integers(1, 2), st.integers(1, 3)),
)


@given(WINDOWS, st.integers(1, 12), st.integers(1, 12))
def test_the_number_of_positions_is_counted_right(window, H, W):
    padded = window.padded_size(H, W)
    counted = tuple(
        len([start for start in range(0, size, s) if start + d * (k - 1) < size])
        for size, k, s, d in zip(padded, window.kernel, window.stride, window.dilation, strict=True)
    )
    assert window.out_size(H, W) == counted


@given(WINDOWS, st.integers(0, 9))
def test_taps_and_positions_see_the_same_cells(window, seed):
    x = np.random.default_rng(seed).standard_normal((2, 9, 10, 3))
    padded = pad(x, window)
    OH, OW = window.out_size(9, 10)
    view = positions(padded, window, OH, OW)
    for kh, kw, rows, columns in window.taps(OH, OW):
        np.testing.assert_array_equal(view[:, :, :, kh, kw], padded[:, rows, columns])


@given(WINDOWS, st.floats(-3, 3))
def test_padding_surrounds_the_image(window, value):
    x = np.random.default_rng(0).standard_normal((2, 4, 5, 3))
    (top, bottom), (left, right) = window.padding
    wanted = torch.nn.functional.pad(torch.from_numpy(x), (0, 0, left, right, top, bottom), value=value).numpy()
    padded = pad(x, window, value)
    np.testing.assert_array_equal(padded, wanted)
    np.testing.assert_array_equal(padded[window.interior(4, 5)], x)
