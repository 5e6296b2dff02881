"""The geometry of a sliding window."""

import numpy as np
import torch
from hypothesis import assume, given
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


@given(WINDOWS, st.integers(1, 9), st.integers(1, 9))
def test_visits_are_the_taps_that_lie_on_the_image(window, H, W):
    x = np.arange(1.0, H * W + 1).reshape(1, H, W, 1)
    OH, OW = window.out_size(H, W)
    padded = pad(x, window).copy()
    taps, visits = list(window.taps(OH, OW)), list(window.visits(H, W))
    assert len(taps) == len(visits)
    for (_, _, rows, columns), (pixels, cells) in zip(taps, visits, strict=True):
        if OH and OW:
            met = np.zeros((1, OH, OW, 1))
            met[cells] = x[pixels]
            np.testing.assert_array_equal(met, padded[:, rows, columns])


@given(WINDOWS, st.integers(1, 12), st.integers(1, 12))
def test_rounding_up_visits_the_last_rows_unless_the_window_starts_beyond_them(window, H, W):
    up = window.ceiled(H, W)
    for axis, size in enumerate((H, W)):
        k, s, d, (before, after) = window.kernel[axis], window.stride[axis], window.dilation[axis], window.padding[axis]
        reach = d * (k - 1) + 1
        assume(after < reach)  # or the window is on padding alone even when rounding down
        ends = [start + reach for start in range(-before, size, s)]
        counted = len([end for end in ends if end - s < size + after or end <= size + after])
        assert up.out_size(H, W)[axis] == counted
        assert up.padding[axis][0] == before
        assert up.padding[axis][1] >= after


@given(WINDOWS)
def test_disjoint_windows_see_no_pixel_twice(window):
    OH, OW = window.out_size(9, 10)
    seen = np.zeros(window.padded_size(9, 10), int)
    for _, _, rows, columns in window.taps(OH, OW):
        seen[rows, columns] += OH > 0 and OW > 0
    if window.is_disjoint:
        assert seen.max() <= 1


@given(WINDOWS, st.integers(1, 12), st.data())
def test_a_band_of_positions_sees_what_it_saw_in_the_whole_image(window, H, data):
    OH, OW = window.out_size(H, 9)
    assume(OH and OW)
    start = data.draw(st.integers(0, OH - 1))
    stop = data.draw(st.integers(start + 1, OH))
    x = np.random.default_rng(0).standard_normal((2, H, 9, 3))
    seen, inner = window.band(start, stop, H)
    assert inner.out_size(seen.stop - seen.start, 9) == (stop - start, OW)
    whole = positions(pad(x, window, name="whole"), window, OH, OW)
    np.testing.assert_array_equal(positions(pad(x[:, seen], inner), inner, stop - start, OW), whole[:, start:stop])
