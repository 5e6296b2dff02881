"""Patches and strips of patches against PyTorch, with every width of strip; and their adjoints."""

import numpy as np
import pytest
import torch
from helpers import poisoned
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.kernels.conv import patches
from tinycnn.kernels.conv.patches import Reach, Strips
from tinycnn.kernels.window import Window, pad

PAIR = st.tuples(st.integers(1, 3), st.integers(1, 3))
WINDOWS = st.builds(Window, PAIR, PAIR, st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2), PAIR)


def divisors(n):
    return [B for B in range(1, n + 1) if n % B == 0]


@given(WINDOWS, st.integers(0, 99))
def test_every_width_of_strip_gives_pytorchs_convolution(window, seed):
    rng = np.random.default_rng(seed)
    x, w = rng.integers(-4, 5, (2, 8, 11, 3)).astype(float), rng.integers(-4, 5, (4, *window.kernel, 3)).astype(float)
    (top, bottom), (left, right) = window.padding
    # (N, H, W, C) -> (N, C, H, W)
    padded = torch.nn.functional.pad(torch.from_numpy(x).permute(0, 3, 1, 2), (left, right, top, bottom))
    wanted = torch.nn.functional.conv2d(
        padded, torch.from_numpy(w).permute(0, 3, 1, 2), stride=window.stride, dilation=window.dilation
    )
    rows, columns = patches.reaches(window, *window.out_size(8, 11))
    for B in divisors(columns.count):
        how = Strips(rows, columns, B, 1)
        y = np.full((2, rows.count, columns.count, 4), np.nan)
        how.multiply(how.gather(pad(x, window)), how.expand(w), y)
        np.testing.assert_array_equal(y, wanted.permute(0, 2, 3, 1).numpy())


@given(WINDOWS, st.integers(0, 99))
def test_fold_is_the_adjoint_of_expand(window, seed):
    rng = np.random.default_rng(seed)
    w = rng.integers(-4, 5, (4, *window.kernel, 3)).astype(float)
    rows, columns = patches.reaches(window, *window.out_size(8, 11))
    for B in divisors(columns.count):
        how = Strips(rows, columns, B, 1)
        e = how.expand(w)
        de = rng.integers(-4, 5, e.shape).astype(float)
        dw = np.full(w.shape, np.nan)
        how.fold(de, dw)
        assert (e * de).sum() == (w * dw).sum()


@pytest.mark.parametrize("G", [2, 4])
def test_groups_are_convolutions_of_their_own(G, monkeypatch):
    rng = np.random.default_rng(0)
    window = Window((3, 2), (2, 1), ((1, 0), (0, 2)), (1, 2))
    x, w = rng.integers(-4, 5, (3, 7, 8, 4)).astype(float), rng.integers(-4, 5, (8, 3, 2, 4 // G)).astype(float)
    with poisoned(monkeypatch):
        y = patches.forward(x, w, None, window, G)
        dw = patches.backward_weight(y, x, w, window, G)
        for g in range(G):
            xs, ws = slice(g * 4 // G, (g + 1) * 4 // G), slice(g * 8 // G, (g + 1) * 8 // G)
            own = np.ascontiguousarray(x[..., xs])
            np.testing.assert_array_equal(y[..., ws], patches.forward(own, w[ws], None, window))
            dy = np.ascontiguousarray(y[..., ws])
            np.testing.assert_array_equal(dw[ws], patches.backward_weight(dy, own, w[ws], window))


@pytest.mark.parametrize("strips", [False, True])
def test_the_weight_gradient_is_the_adjoint_on_any_number_of_threads(strips, monkeypatch):
    rng = np.random.default_rng(0)
    window = Window((5, 5), padding=((2, 1), (0, 2)))
    x, w = rng.integers(-4, 5, (40, 16, 18, 2)).astype(np.float32), rng.integers(-4, 5, (5, 5, 5, 2)).astype(np.float32)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1 << 16)
    y = patches.forward(x, w, np.ones(5, np.float32), window, strips=strips) - 1
    dy = rng.integers(-4, 5, y.shape).astype(np.float32)
    dw = patches.backward_weight(dy, x, w, window, strips=strips)
    assert (y.astype(float) * dy).sum() == (w.astype(float) * dw).sum()
    x, dy = rng.standard_normal(x.shape, np.float32), rng.standard_normal(dy.shape, np.float32)
    results = []
    for threads in (1, 2, 5):
        parallel.set_num_threads(threads)
        results.append(patches.backward_weight(dy, x, w, window, strips=strips))
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_a_single_pixel_is_seen_in_place():
    x = np.arange(24.0).reshape(2, 2, 2, 3)
    whole = Strips(Reach(0, 2, 1, 1, 1), Reach(0, 2, 1, 1, 1), 1, 1)
    assert np.shares_memory(whole.gather(x), x)
    half = Strips(Reach(0, 1, 2, 1, 1), Reach(0, 1, 2, 1, 1), 1, 1)
    np.testing.assert_array_equal(half.gather(x)[0], x[:, 0, 0])


def test_a_two_by_two_window_of_stride_two_is_no_view_though_as_large_as_the_image():
    x = np.arange(16.0).reshape(1, 4, 4, 1)
    cols = Strips(Reach(0, 2, 2, 2, 1), Reach(0, 2, 2, 2, 1), 1, 1).gather(x)
    np.testing.assert_array_equal(cols[0], [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]])


def test_strips_are_taken_where_channels_are_few_only():
    window = Window((3, 3), padding=((1, 1), (1, 1)))
    few = patches.forward_strips((64, 32, 32, 3), 16, window, 1, True)
    many = patches.forward_strips((64, 32, 32, 128), 128, window, 1, True)
    assert few.B > 1
    assert many.B == 1
    assert patches.forward_strips((64, 32, 32, 3), 16, window, 1, False).B == 1


def test_what_is_left_out_of_a_strip_is_not_read():
    """A strip of one patch skips the columns between dilated cells: a NaN there has no part in it."""
    x = np.array([1.0, np.nan, 2.0]).reshape(1, 1, 3, 1)
    y = patches.forward(x, np.ones((1, 1, 2, 1)), None, Window((1, 2), dilation=(1, 2)))
    assert y.ravel() == [3.0]


@pytest.mark.parametrize("strips", [False, True])
def test_a_large_image_is_worked_in_bands_of_rows(strips, monkeypatch):
    rng = np.random.default_rng(0)
    window = Window((5, 3), (2, 1), ((2, 1), (0, 2)), (1, 2))
    x, w = rng.integers(-4, 5, (3, 61, 40, 3)).astype(float), rng.integers(-4, 5, (8, 5, 3, 3)).astype(float)
    y = patches.forward(x, w, np.ones(8), window, strips=strips)
    dy = rng.integers(-4, 5, y.shape).astype(float)
    dw = patches.backward_weight(dy, x, w, window, strips=strips)
    how = patches.forward_strips(x.shape, 8, window, 1, strips)
    assert len(how.bands(pad(x[:1], window), 8)) == 1
    monkeypatch.setattr(patches, "SLICE_BYTES", 1 << 14)
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1 << 14)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1 << 14)
    assert len(how.bands(pad(x[:1], window), 8)) > 5
    with poisoned(monkeypatch):
        np.testing.assert_array_equal(patches.forward(x, w, np.ones(8), window, strips=strips), y)
        np.testing.assert_array_equal(patches.backward_weight(dy, x, w, window, strips=strips), dw)
