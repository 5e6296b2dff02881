"""im2col and col2im on a GPU against their specifications, and the convolution made of them against PyTorch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import col2im, im2col, im2col_naive
from tinycnn.kernels import im2col as specification
from tinycnn.kernels.cuda import im2col as kernels
from tinycnn.kernels.window import Window

small = st.integers(1, 3)


@st.composite
def cases(draw):
    """(shape of x (N, H, W, C), window, G) with at least one position."""
    kernel, stride, dilation = (tuple(draw(st.tuples(small, small))) for _ in range(3))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(2))
    H, W = (draw(st.integers(d * (k - 1) + 1, 9)) for k, d in zip(kernel, dilation, strict=True))
    G, CG = draw(small), draw(st.sampled_from([1, 2, 3, 4, 8, 16, 40]))
    return (draw(small), H, W, G * CG), Window(kernel, stride, padding, dilation), G


def integers(shape, dtype, seed=0):
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_both_are_their_specifications(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=15)
    @given(cases())
    def check(case):
        shape, window, G = case
        x = integers(shape, dtype)
        cols = specification.gather(x, window, G)
        own = specification.gather(gpu.asarray(x), window, G)
        np.testing.assert_array_equal(own.get(), cols)
        y = integers(cols.shape, dtype, 1)
        own = specification.scatter(gpu.asarray(y), window, shape, G)
        np.testing.assert_array_equal(own.get(), specification.scatter(y, window, shape, G))

    check()


def test_sums_are_taken_in_the_order_of_cells(gpu):
    window, shape = Window((3, 3), (1, 1), ((1, 1), (1, 1))), (2, 6, 5, 4)
    cols = np.random.default_rng(0).standard_normal((60, 36)).astype(np.float32)
    own = specification.scatter(gpu.asarray(cols), window, shape)
    np.testing.assert_array_equal(own.get(), specification.scatter(cols, window, shape))


def test_as_users_call_them(gpu):
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7))
    cols = im2col(gpu.asarray(x), (3, 2), stride=2, padding=1)
    np.testing.assert_array_equal(cols.get(), im2col_naive(x, (3, 2), stride=2, padding=1))
    own = col2im(cols, x.shape, (3, 2), stride=2, padding=1)
    np.testing.assert_array_equal(own.get(), col2im(cols.get(), x.shape, (3, 2), stride=2, padding=1))


def test_memory_that_lies_askew_or_has_gaps(gpu):
    x, window = integers((2, 5, 5, 16), "float32"), Window((2, 2))
    wide = gpu.zeros(801, np.float32)
    wide[1:] = gpu.asarray(x.ravel())
    for view in (wide[1:].reshape(x.shape), gpu.asarray(np.stack([x, x], -1))[..., 0]):
        np.testing.assert_array_equal(kernels.gather(view, window).get(), specification.gather(x, window))


def test_an_empty_batch(gpu):
    window = Window((2, 2))
    assert kernels.gather(gpu.empty((0, 3, 3, 2)), window).shape == (0, 8)
    assert kernels.scatter(gpu.empty((0, 8)), window, (0, 3, 3, 2)).shape == (0, 3, 3, 2)


@pytest.mark.parametrize("G", [1, 2])
def test_the_convolution_made_of_them(gpu, G):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((2, 4, 7, 6)), rng.standard_normal((6, 4 // G, 3, 2)), rng.standard_normal(6)
    args = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": G}
    xs, ws = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    y = torch.nn.functional.conv2d(xs, ws, torch.from_numpy(b), **args)
    dy = rng.standard_normal(y.shape)
    y.backward(torch.from_numpy(dy))

    # (N, C, H, W) -> (N, H, W, C), and back
    x, w, dy = (gpu.asarray(np.ascontiguousarray(a.transpose(0, 2, 3, 1))) for a in (x, w, dy))
    window = Window((3, 2), (2, 1), ((1, 1), (2, 2)), (1, 2))
    close = {"rtol": 1e-12, "atol": 1e-12}
    own = kernels.forward(x, w, gpu.asarray(b), window, G)
    np.testing.assert_allclose(own.get().transpose(0, 3, 1, 2), y.detach().numpy(), **close)
    own = kernels.backward_input(dy, x.shape, w, window, G)
    np.testing.assert_allclose(own.get().transpose(0, 3, 1, 2), xs.grad.numpy(), **close)
    own = kernels.backward_weight(dy, x, w.shape, window, G)
    np.testing.assert_allclose(own.get().transpose(0, 3, 1, 2), ws.grad.numpy(), **close)
    kernels.backward_weight(dy, x, w.shape, window, G, own, add=True)
    np.testing.assert_allclose(own.get().transpose(0, 3, 1, 2), 2 * ws.grad.numpy(), **close)
