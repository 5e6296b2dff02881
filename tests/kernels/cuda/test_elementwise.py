"""Activations and sums on a GPU against their specifications."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinycnn import Softmax
from tinycnn.kernels import activation
from tinycnn.kernels.cuda import elementwise
from tinycnn.kernels.cuda.elementwise import channel_sums
from tinycnn.layers.conv import conv2d_backward_bias

# name: (how many arrays it reads, numbers, how many it writes)
FUNCTIONS = {
    "add": (2, (), 1),
    "multiply": (2, (), 1),
    "scale": (1, (0.17,), 1),
    "relu": (1, (), 1),
    "relu_backward": (2, (), 1),
    "leaky_relu": (1, (0.1,), 1),
    "leaky_relu_backward": (2, (0.1,), 1),
    "sigmoid": (1, (), 1),
    "sigmoid_backward": (2, (), 1),
    "tanh": (1, (), 1),
    "tanh_backward": (2, (), 1),
    "softplus": (1, (2.0, 3.0), 1),
    "softplus_backward": (2, (2.0, 3.0), 1),
    "silu": (1, (), 2),
    "gelu": (1, (), 2),
    "gelu_tanh": (1, (), 2),
}
ERROR = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}
"""Relative: the last two are two units in the last place of a number of 11 and of 8 bits."""


def numpy_dtype(name):
    return np.dtype(getattr(pytest.importorskip("ml_dtypes"), name)) if name == "bfloat16" else np.dtype(name)


def drawn(shape, dtype, count, seed=0):
    """Arrays of numbers that ``dtype`` has, in float32 or wider."""
    rng = np.random.default_rng(seed)
    wide = np.promote_types(np.float32, dtype) if dtype != "bfloat16" else np.float32
    return [(rng.standard_normal(shape) * 3).astype(numpy_dtype(dtype)).astype(wide) for _ in range(count)]


def compare(own, wanted, dtype):
    np.testing.assert_allclose(own.get().astype(wanted.dtype), wanted, rtol=ERROR[dtype], atol=ERROR[dtype] / 10)


@pytest.mark.parametrize("n", [1, 3, 1027, 5000])
@pytest.mark.parametrize("dtype", ERROR)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_its_specification(gpu, name, dtype, n):
    reads, numbers, writes = FUNCTIONS[name]
    xs = drawn(n, dtype, reads)
    wanted = [np.empty_like(xs[0]) for _ in range(writes)]
    own = [gpu.full(n, np.nan, numpy_dtype(dtype)) for _ in range(writes)]
    getattr(activation, name)(*xs, *numbers, *wanted)
    getattr(activation, name)(*(gpu.asarray(x.astype(numpy_dtype(dtype))) for x in xs), *numbers, *own)
    for mine, theirs in zip(own, wanted, strict=True):
        compare(mine, theirs, dtype)


def test_memory_that_lies_askew_or_is_written_in_place(gpu):
    (x, y) = drawn(100, "float32", 2)
    ours = gpu.asarray(x)
    activation.add(ours[1:98], gpu.asarray(y)[:97], ours[1:98])
    np.testing.assert_array_equal(ours.get(), np.concatenate([x[:1], x[1:98] + y[:97], x[98:]]))


def test_results_where_there_are_gaps_are_refused(gpu):
    x = gpu.asarray(np.arange(24.0).reshape(4, 6))
    y = gpu.empty((4, 3))
    activation.relu(x[:, ::2], y)
    np.testing.assert_array_equal(y.get(), x.get()[:, ::2])
    for function, arrays in ((activation.relu, (y, x[:, ::2])), (activation.silu, (y, x[:, ::2], y))):
        with pytest.raises(ValueError, match="must be C-contiguous"):
            function(*arrays)


def test_what_is_not_finite_shows_as_in_numpy(gpu):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e4, -1e4])
    for name in ("relu", "sigmoid", "tanh", "softplus", "leaky_relu"):
        numbers, y, own = FUNCTIONS[name][1], np.empty_like(x), gpu.empty(6)
        getattr(activation, name)(x, *numbers, y)
        getattr(activation, name)(gpu.asarray(x), *numbers, own)
        np.testing.assert_allclose(own.get(), y, rtol=1e-12)
    dx = gpu.empty(3)
    activation.relu_backward(gpu.asarray(np.array([np.nan, np.nan, 2])), gpu.asarray(np.array([0.0, 1, 0])), dx)
    np.testing.assert_array_equal(dx.get(), [np.nan, np.nan, 0])


def test_nothing_is_launched_for_nothing(gpu):
    empty = gpu.empty((0, 3))
    activation.relu(empty, empty)
    activation.softmax(empty, 1, empty)
    assert channel_sums(gpu.empty((2, 0, 3))).get().tolist() == [[0, 0, 0]] * 2
    assert conv2d_backward_bias(gpu.empty((0, 2, 3, 4))).get().tolist() == [0, 0]


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ERROR)
def test_softmax_along_any_axis(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=8)
    @given(st.lists(st.integers(1, 6), min_size=1, max_size=3), st.integers(1, 40), st.integers(0, 3))
    def check(shape, D, axis):
        axis = min(axis, len(shape))
        shape = (*shape[:axis], D, *shape[axis:])
        x, dy = drawn(shape, dtype, 2)
        y, dx = np.empty_like(x), np.empty_like(x)
        own = gpu.full(shape, np.nan, numpy_dtype(dtype))
        activation.softmax(x, axis, y)
        activation.softmax(gpu.asarray(x.astype(numpy_dtype(dtype))), axis, own)
        compare(own, y, dtype)
        y = own.get().astype(x.dtype)
        activation.softmax_backward(dy, y, axis, dx)
        activation.softmax_backward(gpu.asarray(dy.astype(numpy_dtype(dtype))), own, axis - len(shape), own)
        compare(own, dx, dtype)

    check()


def test_softmax_layer_across_the_batch(gpu):
    x = np.random.default_rng(0).standard_normal((3, 4, 2, 5))
    for dim in range(4):
        wanted = np.exp(x) / np.exp(x).sum(dim, keepdims=True)
        np.testing.assert_allclose(Softmax(dim)(gpu.asarray(x)).get(), wanted, rtol=1e-12)


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ERROR)
def test_sums_over_pixels(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=8)
    @example(2, 500, 7)
    @example(1, 300, 300)
    @given(st.integers(1, 3), st.integers(1, 700), st.sampled_from([1, 2, 3, 7, 16, 33, 255, 257, 300]))
    def check(B, P, C):
        (x,) = drawn((B, P, C), dtype, 1)
        sums = channel_sums(gpu.asarray(x.astype(numpy_dtype(dtype))))
        assert sums.dtype == np.float64
        error = 1e-13 if dtype == "float64" else 1e-6
        np.testing.assert_allclose(sums.get(), x.astype(np.float64).sum(1), atol=error * np.abs(x).sum(1).max())

    check()


@pytest.mark.parametrize("dtype", ERROR)
def test_the_gradient_of_a_bias_is_rounded_once(gpu, dtype):
    (dy,) = drawn((4, 9, 30, 5), dtype, 1)  # (N, OH, OW, OC)
    own = conv2d_backward_bias(gpu.asarray(dy.astype(numpy_dtype(dtype))).transpose(0, 3, 1, 2))
    assert own.dtype == numpy_dtype(dtype)
    wanted = dy.astype(np.float64).sum((0, 1, 2))
    np.testing.assert_allclose(own.get().astype(np.float64), wanted, rtol=ERROR[dtype] / 4, atol=1e-5)


def test_the_cut_of_a_sum_fills_the_gpu_and_no_more():
    pixels = 128 * 32 * 32
    for B, P, C in [
        (1, 1, 1),
        (1, pixels, 64),
        (1, pixels, 6),
        (256, 3136, 64),
        (1, 49, 2048),
        (3, 1, 5),
    ]:
        cut = elementwise.cut(B, P, C)
        assert cut.lanes * cut.tiles >= C > cut.lanes * (cut.tiles - 1)
        assert cut.length * cut.chunks >= P > cut.length * (cut.chunks - 1)
        assert cut.chunks == 1 or B * cut.tiles * cut.chunks <= elementwise.MOST_CHUNKS
    assert elementwise.cut(1, pixels, 64).chunks == elementwise.MOST_CHUNKS
