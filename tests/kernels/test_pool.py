"""Pooling of one slice, cell by cell."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.pool import (
    bin_sums,
    bin_sums_backward,
    max_pool,
    max_pool_backward,
    max_pool_winners,
    sum_pool,
    sum_pool_backward,
)
from tinycnn.kernels.window import Window

# more rows below than above, more columns left than right, and gaps where the stride is 3
WINDOWS = st.builds(
    Window,
    st.tuples(st.integers(1, 3), st.integers(1, 4)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([((0, 0), (0, 0)), ((1, 2), (1, 0)), ((0, 3), (1, 1))]),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
H, W = 7, 9


def cells(window, oh, ow):
    """(t, h, w) of the cells of the window at a position that lie on the image, in reading order."""
    (KH, KW), (SH, SW), ((PT, _), (PL, _)), (DH, DW) = window.kernel, window.stride, window.padding, window.dilation
    for t, (kh, kw) in enumerate(itertools.product(range(KH), range(KW))):
        h, w = SH * oh + DH * kh - PT, SW * ow + DW * kw - PL
        if 0 <= h < H and 0 <= w < W:
            yield t, h, w


@given(WINDOWS, st.sampled_from([1, 3, 32]), st.integers(0, 99))  # 32 numbers are a wide pixel: phases are views
def test_maximum_winners_and_the_way_back_are_their_loops(window, C, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-3, 4, (2, H, W, C)).astype(np.float32)
    OH, OW = window.out_size(H, W)
    shape = (2, OH, OW, C)
    dy = rng.integers(-9, 10, shape).astype(np.float32)
    wanted, taps, dx_wanted = np.full(shape, -np.inf), np.zeros(shape, int), np.zeros(x.shape)
    for n, oh, ow, c in np.ndindex(shape):
        seen = [(-x[n, h, w, c], t, h, w) for t, h, w in cells(window, oh, ow)]
        if seen:
            smallest, taps[n, oh, ow, c], h, w = min(seen)
            wanted[n, oh, ow, c] = -smallest
            dx_wanted[n, h, w, c] += dy[n, oh, ow, c]
    y, y_too, winners, dx = np.empty(shape, "f"), np.empty(shape, "f"), np.empty(shape, np.uint8), np.empty_like(x)
    max_pool(x, window, y)
    max_pool_winners(x, window, y_too, winners)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(y_too, wanted)
    on_image = np.isfinite(wanted)
    np.testing.assert_array_equal((winners)[on_image], taps[on_image])
    max_pool_backward(dy, winners, window, dx)
    np.testing.assert_array_equal(dx, dx_wanted)


@given(WINDOWS, st.sampled_from([1, 3, 16]), st.integers(0, 99))
def test_sum_is_its_loops_and_the_way_back_its_adjoint(window, C, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, (2, H, W, C)).astype(float)
    shape = (2, *window.out_size(H, W), C)
    wanted = np.zeros(shape)
    for n, oh, ow, c in np.ndindex(shape):
        wanted[n, oh, ow, c] = sum(x[n, h, w, c] for _, h, w in cells(window, oh, ow))
    y, dy, dx = np.empty(shape), rng.integers(-9, 10, shape).astype(float), np.empty_like(x)
    sum_pool(x, window, y)
    sum_pool_backward(dy, window, dx)
    np.testing.assert_array_equal(y, wanted)
    assert (y * dy).sum() == (x * dx).sum()


@pytest.mark.parametrize(
    ("rows", "columns"),
    [([slice(0, 7)], [slice(0, 9)]), ([slice(0, 3), slice(2, 7)], [slice(0, 1), slice(1, 5), slice(4, 9)])],
)
def test_bin_sums_are_sums_over_bins_and_the_way_back_their_adjoint(rows, columns):
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, H, W, 3)).astype(float)
    y, dx = np.empty((2, len(rows), len(columns), 3)), np.empty_like(x)
    bin_sums(x, rows, columns, y)
    for (i, run), (j, column_run) in itertools.product(enumerate(rows), enumerate(columns)):
        np.testing.assert_array_equal(y[:, i, j], x[:, run, column_run].sum((1, 2)))
    dy = rng.integers(-9, 10, y.shape).astype(float)
    bin_sums_backward(dy, rows, columns, dx)
    assert (y * dy).sum() == (x * dx).sum()
