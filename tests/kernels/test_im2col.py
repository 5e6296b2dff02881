"""im2col against its loops, col2im against im2col."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import col2im, im2col, im2col_naive

GEOMETRY = st.fixed_dictionaries(
    {
        "kernel_size": st.tuples(st.integers(1, 4), st.integers(1, 3)),
        "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "padding": st.tuples(st.integers(0, 2), st.integers(0, 3)),
        "dilation": st.tuples(st.integers(1, 2), st.integers(1, 3)),
    }
)
SHAPE = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(7, 10), st.integers(7, 11))


@given(GEOMETRY, SHAPE, st.integers(0, 99))
def test_im2col_is_its_loops(geometry, shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    np.testing.assert_array_equal(im2col(x, **geometry), im2col_naive(x, **geometry))


@given(GEOMETRY, SHAPE, st.integers(0, 99))
def test_im2col_is_torchs_unfold_in_another_order(geometry, shape, seed):
    x = np.random.default_rng(seed).standard_normal(shape)
    KH, KW = geometry["kernel_size"]
    unfolded = torch.nn.functional.unfold(torch.from_numpy(x), **geometry).numpy()  # (N, C·KH·KW, OH·OW)
    N, C, M = shape[0], shape[1], unfolded.shape[2]
    wanted = unfolded.reshape(N, C, KH, KW, M).transpose(0, 4, 2, 3, 1).reshape(N * M, KH * KW * C)
    np.testing.assert_array_equal(im2col(x, **geometry), wanted)


@given(GEOMETRY, SHAPE, st.integers(0, 99))
def test_col2im_is_the_adjoint_exactly(geometry, shape, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 10, shape).astype(np.float64)
    cols = im2col(x, **geometry)
    y = rng.integers(-9, 10, cols.shape).astype(np.float64)
    assert (cols * y).sum() == (x * col2im(y, shape, **geometry)).sum()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_the_dtype_stays(dtype):
    x = np.ones((1, 2, 4, 4), dtype)
    assert im2col(x, 3).dtype == dtype
    assert col2im(im2col(x, 3), x.shape, 3).dtype == dtype


def test_the_result_is_the_callers_own():
    first = im2col(np.ones((1, 1, 4, 4)), 2)
    im2col(np.zeros((1, 1, 4, 4)), 2)
    assert (first == 1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 5}, "does not fit"),
        ({"kernel_size": 2, "stride": 0}, "at least 1"),
        ({"kernel_size": 2, "padding": -1}, "padding at least 0"),
    ],
)
def test_sizes_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        im2col(np.ones((1, 1, 3, 3)), **arguments)


def test_any_integer_and_any_memory_order_will_do():
    x = np.asfortranarray(np.random.default_rng(0).standard_normal((2, 3, 5, 6)))[:, :, ::-1]
    np.testing.assert_array_equal(im2col(x, np.int64(2)), im2col_naive(np.ascontiguousarray(x), 2))
