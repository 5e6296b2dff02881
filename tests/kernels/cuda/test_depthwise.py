"""Convolution in groups of few channels on a GPU against PyTorch in float64."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels.cuda import depthwise, grouped
from tinycnn.kernels.window import Window

ERROR = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Relative to the largest result: the last two are two units in the last place of a number of 11 and of 8 bits."""


def numpy_dtype(name):
    return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name)) if name == "bfloat16" else np.dtype(name)


@st.composite
def windows(draw, sizes, strides, dilations):
    kernel = draw(sizes)
    padding = tuple((draw(st.integers(0, k)), draw(st.integers(0, k))) for k in kernel)
    return Window(kernel, draw(strides), padding, draw(dilations))


def pairs(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def images(draw, window, most=12):
    """Height and width of an image that the window fits into."""
    sides = zip(window.kernel, window.dilation, window.padding, strict=True)
    return tuple(draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), most)) for k, d, p in sides)


@st.composite
def depthwise_cases(draw, choice, V=4):
    """(shape of x (N, H, W, C), OC, window, G) with a window (size, stride) that depthwise.cu has kernels for."""
    size, stride = draw(st.sampled_from(choice))
    window = draw(windows(st.just((size, size)), st.just((stride, stride)), st.just((1, 1))))
    C = V * draw(st.sampled_from([1, 2, 3, 9, 40]))
    return (draw(st.integers(1, 3)), *draw(images(window)), C), C, window, C


@st.composite
def grouped_cases(draw):
    """The same of any kind."""
    window = draw(windows(pairs(1, 3), pairs(1, 3), pairs(1, 3)))
    G, CG, OCG = draw(st.sampled_from([2, 3, 12, 40])), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return (draw(st.integers(1, 3)), *draw(images(window, 9)), G * CG), G * OCG, window, G


def theirs(x, w, b, dy, window, G):
    """y, dx and dw by PyTorch, from and to channels-last arrays."""
    xs, ws = (torch.from_numpy(a.transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_() for a in (x, w))
    (top, bottom), (left, right) = window.padding
    padded = torch.nn.functional.pad(xs, (left, right, top, bottom))
    args = {"stride": window.stride, "dilation": window.dilation, "groups": G}
    y = torch.nn.functional.conv2d(padded, ws, torch.from_numpy(b.astype(np.float64)), **args)
    y.backward(torch.from_numpy(dy.transpose(0, 3, 1, 2).astype(np.float64)))
    return [t.detach().numpy().transpose(0, 2, 3, 1) for t in (y, xs.grad, ws.grad)]


def poisoned(gpu, monkeypatch):
    """What is allocated without being written holds NaN."""
    empty = gpu.empty
    monkeypatch.setattr(gpu, "empty", lambda shape, dtype=float: fill(empty(shape, dtype)))

    def fill(x):
        x.fill(np.nan)
        return x


def check(gpu, case, dtype):
    """All three passes of one convolution."""
    x_shape, OC, window, G = case
    rng, (KH, KW), own = np.random.default_rng(0), window.kernel, numpy_dtype(dtype)
    shapes = x_shape, (OC, KH, KW, x_shape[3] // G), (OC,), (x_shape[0], *window.out_size(*x_shape[1:3]), OC)
    x, w, b, dy = (rng.standard_normal(shape).astype(own) for shape in shapes)
    wanted = theirs(x, w, b, dy, window, G)
    xs, ws, bs, dys = map(gpu.asarray, (x, w, b, dy))
    dw = depthwise.backward_weight(dys, xs, w.shape, window, G)
    twice = gpu.asarray(dw.get())
    depthwise.backward_weight(dys, xs, w.shape, window, G, twice, add=True)
    results = depthwise.forward(xs, ws, bs, window, G), depthwise.backward_input(dys, x_shape, ws, window, G), dw
    for mine, right in zip((*results, twice), (*wanted, 2 * wanted[2]), strict=True):
        assert mine.dtype == own
        scale = max(1, np.abs(right).max(initial=0))
        np.testing.assert_allclose(mine.get().astype(np.float64), right, rtol=0, atol=ERROR[dtype] * scale)


@pytest.mark.parametrize("dtype", ERROR)
def test_depthwise_windows(gpu, monkeypatch, dtype):
    poisoned(gpu, monkeypatch)
    monkeypatch.setattr(grouped, "forward", None)
    monkeypatch.setattr(grouped, "backward_input", None)
    monkeypatch.setattr(grouped, "backward_weight", None)

    wide = dtype in ("float32", "float64")  # every window is compiled by itself, which takes its time

    @settings(max_examples=12 if wide else 4)
    @given(depthwise_cases(depthwise.WINDOWS if wide else depthwise.WINDOWS[1:2]))
    def run(case):
        assert depthwise.supports(*case)
        check(gpu, case, dtype)

    run()


@pytest.mark.parametrize("dtype", ERROR)
def test_groups_of_any_kind(gpu, monkeypatch, dtype):
    poisoned(gpu, monkeypatch)

    @settings(max_examples=15 if dtype == "float32" else 6)
    @given(grouped_cases())
    def run(case):
        assert depthwise.supports(*case)
        check(gpu, case, dtype)

    run()


CASES = [
    ((2, 9, 10, 12), 12, Window((3, 3), (2, 2), ((1, 1), (1, 1))), 12),
    ((2, 9, 10, 6), 9, Window((3, 2), (2, 1), ((1, 1), (1, 0)), (1, 2)), 3),
]


@pytest.mark.parametrize("case", CASES)
def test_the_order_of_threads_does_not_matter(gpu, monkeypatch, case):
    x_shape, OC, window, G = case
    rng = np.random.default_rng(0)
    y_shape, w_shape = (x_shape[0], *window.out_size(*x_shape[1:3]), OC), (OC, *window.kernel, x_shape[3] // G)
    x, w, dy = (gpu.asarray(rng.standard_normal(s).astype(np.float32)) for s in (x_shape, w_shape, y_shape))
    passes = [
        functools.partial(depthwise.forward, x, w, None, window, G),
        functools.partial(depthwise.backward_input, dy, x_shape, w, window, G),
        functools.partial(depthwise.backward_weight, dy, x, w_shape, window, G),
    ]
    first = [run().get() for run in passes]
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", "1")
    for run, wanted in zip(passes, first, strict=True):
        np.testing.assert_array_equal(run().get(), wanted)


@pytest.mark.parametrize("case", CASES)
def test_many_chunks_of_dw(gpu, monkeypatch, case):
    monkeypatch.setattr(depthwise, "FEWEST_TILES", 3)
    monkeypatch.setattr(grouped, "FEWEST_POSITIONS", 7)
    check(gpu, case, "float64")


@pytest.mark.parametrize("case", CASES)
def test_dw_in_the_type_of_sums(gpu, case):
    """As mixed precision has it: images of 16 bits, gradients of 32."""
    x_shape, OC, window, G = case
    rng, w_shape = np.random.default_rng(0), (OC, *window.kernel, x_shape[3] // G)
    x = rng.standard_normal(x_shape).astype(np.float16)
    dy = rng.standard_normal((x_shape[0], *window.out_size(*x_shape[1:3]), OC)).astype(np.float16)
    out = gpu.ones(w_shape, np.float32)
    depthwise.backward_weight(gpu.asarray(dy), gpu.asarray(x), w_shape, window, G, out, add=True)
    wanted = theirs(x, np.ones(w_shape), np.ones(OC), dy, window, G)[2] + 1
    np.testing.assert_allclose(out.get(), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", CASES)
def test_an_empty_batch(gpu, case):
    (_, *sides), OC, window, G = case
    check(gpu, ((0, *sides), OC, window, G), "float32")


def test_memory_that_lies_askew_or_has_gaps(gpu):
    (N, H, W, C), _, window, G = CASES[0]
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((N, H, W, C)).astype(np.float32), gpu.ones((C, 3, 3, 1), np.float32)
    wanted = depthwise.forward(gpu.asarray(x), w, None, window, G).get()
    wide = gpu.zeros(x.size + 1, np.float32)
    wide[1:] = gpu.asarray(x.ravel())
    for view in (wide[1:].reshape(x.shape), gpu.asarray(np.stack([x, x], -1))[..., 0]):
        own = depthwise.forward(view, w, None, window, G).get()
        np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=1e-6)
    out = gpu.zeros((C, 3, 3, 2), np.float32)[..., :1]  # dw where there are gaps
    dy = gpu.ones(wanted.shape, np.float32)
    dw = depthwise.backward_weight(dy, gpu.asarray(x), w.shape, window, G)
    depthwise.backward_weight(dy, gpu.asarray(x), w.shape, window, G, out)
    depthwise.backward_weight(dy, gpu.asarray(x), w.shape, window, G, out, add=True)
    np.testing.assert_allclose(out.get(), 2 * dw.get(), rtol=1e-6)


def test_which_convolutions_are_for_these_kernels():
    window, shape = Window((3, 3)), (8, 56, 56, 128)
    taken = {(G, OC): depthwise.supports(shape, OC, window, G) for G, OC in [(1, 8), (128, 128), (32, 128), (32, 256)]}
    assert taken == {(1, 8): False, (128, 128): True, (32, 128): True, (32, 256): True}
    assert not depthwise.supports(shape, 128, window, 4)
    assert not depthwise.supports(shape, 128, Window((31, 31)), 128), "filters that shared memory does not hold"
