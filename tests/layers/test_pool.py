"""Pooling layers against plain loops and against PyTorch."""

import itertools

import numpy as np
import pytest
import torch
from helpers import is_channels_last, poisoned, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, GlobalAvgPool, GlobalAvgPool2d, MaxPool2d


def out_size(size, k, s, p, d, ceil_mode):
    """How many positions a window has along one axis, counted one by one."""
    reach = d * (k - 1) + 1
    starts = range(-p, size, s)
    return len([a for a in starts if a + reach <= size + p or (ceil_mode and a + reach - s < size + p)])


def window_cells(H, W, kernel, stride, padding, dilation, ceil_mode):
    """(oh, ow) -> all cells of the window there, padding included, in reading order."""
    (KH, KW), (SH, SW), (PH, PW), (DH, DW) = kernel, stride, padding, dilation
    OH, OW = out_size(H, KH, SH, PH, DH, ceil_mode), out_size(W, KW, SW, PW, DW, ceil_mode)
    return {
        (oh, ow): [(oh * SH - PH + kh * DH, ow * SW - PW + kw * DW) for kh in range(KH) for kw in range(KW)]
        for oh in range(OH)
        for ow in range(OW)
    }


def max_pool_loops(x, dy_of, **geometry):
    """y and dx; the first of several largest values takes the gradient."""
    N, C, H, W = x.shape
    cells = window_cells(H, W, **geometry)
    OH, OW = max(cells)[0] + 1, max(cells)[1] + 1
    y, dx = np.full((N, C, OH, OW), -np.inf), np.zeros(x.shape)
    dy = dy_of(y.shape)
    for n, c, (oh, ow) in itertools.product(range(N), range(C), cells):
        winner = None
        for h, w in cells[oh, ow]:
            if 0 <= h < H and 0 <= w < W and (winner is None or x[n, c, h, w] > y[n, c, oh, ow]):
                winner, y[n, c, oh, ow] = (h, w), x[n, c, h, w]
        dx[n, c, winner[0], winner[1]] += dy[n, c, oh, ow]
    return y, dx


def avg_pool_loops(x, dy_of, count_include_pad, divisor_override, **geometry):
    N, C, H, W = x.shape
    PH, PW = geometry["padding"]
    cells = window_cells(H, W, **geometry)
    OH, OW = max(cells)[0] + 1, max(cells)[1] + 1
    y, dx = np.zeros((N, C, OH, OW)), np.zeros(x.shape)
    dy = dy_of(y.shape)
    for n, c, (oh, ow) in itertools.product(range(N), range(C), cells):
        inside = [(h, w) for h, w in cells[oh, ow] if 0 <= h < H and 0 <= w < W]
        padded = [(h, w) for h, w in cells[oh, ow] if -PH <= h < H + PH and -PW <= w < W + PW]
        count = divisor_override or len(padded if count_include_pad else inside)
        for h, w in inside:
            y[n, c, oh, ow] += x[n, c, h, w] / count
            dx[n, c, h, w] += dy[n, c, oh, ow] / count
    return y, dx


def adaptive_loops(x, dy_of, OH, OW):
    N, C, H, W = x.shape
    y, dx = np.zeros((N, C, OH, OW)), np.zeros(x.shape)
    dy = dy_of(y.shape)
    for oh, ow in itertools.product(range(OH), range(OW)):
        rows = [h for h in range(H) if (h + 1) * OH > oh * H and h * OH < (oh + 1) * H]
        columns = [w for w in range(W) if (w + 1) * OW > ow * W and w * OW < (ow + 1) * W]
        for h, w in itertools.product(rows, columns):
            y[:, :, oh, ow] += x[:, :, h, w] / (len(rows) * len(columns))
            dx[:, :, h, w] += dy[:, :, oh, ow] / (len(rows) * len(columns))
    return y, dx


def draw(seed, integers=False):
    """A function from a shape to numbers; integers of a small range have many ties."""
    rng = np.random.default_rng(seed)
    return lambda shape: rng.integers(-3, 4, shape).astype(float) if integers else rng.standard_normal(shape)


def both(layer, module, x, dy_of):
    """Output and input gradient, ours and PyTorch's."""
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y_torch = module(x_torch)
    y = layer(x)
    assert y.shape == tuple(y_torch.shape) == layer.output_shape(x.shape)
    dy = dy_of(y.shape).astype(x.dtype)
    y_torch.backward(torch.from_numpy(dy))
    return (y, layer.backward(dy)), (y_torch.detach().numpy(), x_torch.grad.numpy())


def sizes(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def geometries(draw, most_dilated=1):
    kernel = draw(sizes(1, 4))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    return {"kernel": kernel, "stride": draw(sizes(1, 4)), "padding": padding, "dilation": draw(sizes(1, most_dilated))}


CHANNELS = st.sampled_from([1, 2, 3, 5, 17])  # 17 in float64 are a wide pixel, whose phases are views
SHAPE = st.tuples(st.integers(1, 3), CHANNELS, st.integers(10, 13), st.integers(10, 14))


def arguments(geometry):
    """Our and PyTorch's keyword arguments for a geometry."""
    return {"kernel_size": geometry["kernel"], "stride": geometry["stride"], "padding": geometry["padding"]}


@given(geometries(2), st.booleans(), SHAPE, st.integers(0, 99))
def test_max_pool_is_its_loops_ties_included(geometry, ceil_mode, shape, seed):
    x = draw(seed, integers=True)(shape)
    layer = MaxPool2d(**arguments(geometry), dilation=geometry["dilation"], ceil_mode=ceil_mode)
    y_wanted, dx_wanted = max_pool_loops(x, draw(seed + 1, integers=True), **geometry, ceil_mode=ceil_mode)
    np.testing.assert_array_equal(layer.eval()(x), y_wanted)
    y = layer.train()(x)
    np.testing.assert_array_equal(y, y_wanted)
    np.testing.assert_array_equal(layer.backward(draw(seed + 1, integers=True)(y.shape)), dx_wanted)


@settings(max_examples=120)
@given(geometries(3), st.booleans(), SHAPE, st.booleans(), st.integers(0, 99))
def test_max_pool_is_pytorchs(geometry, ceil_mode, shape, ties, seed):
    options = {**arguments(geometry), "dilation": geometry["dilation"], "ceil_mode": ceil_mode}
    ours, theirs = both(
        MaxPool2d(**options), torch.nn.MaxPool2d(**options), draw(seed, ties)(shape), draw(seed + 1, integers=ties)
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert relative_error(ours[1], theirs[1]) < 1e-15


AVG = {
    "ceil_mode": st.booleans(),
    "count_include_pad": st.booleans(),
    "divisor_override": st.sampled_from([None, None, 1, 3, -2]),
}


@given(geometries(), st.fixed_dictionaries(AVG), SHAPE, st.integers(0, 99))
def test_avg_pool_is_its_loops(geometry, options, shape, seed):
    x = draw(seed)(shape)
    layer = AvgPool2d(**arguments(geometry), **options)
    y_wanted, dx_wanted = avg_pool_loops(x, draw(seed + 1), **geometry, **options)
    y = layer(x)
    assert relative_error(y, y_wanted) < 1e-14
    assert relative_error(layer.backward(draw(seed + 1)(y.shape)), dx_wanted) < 1e-14


@settings(max_examples=80)
@given(geometries(), st.fixed_dictionaries(AVG), SHAPE, st.integers(0, 99))
def test_avg_pool_is_pytorchs(geometry, options, shape, seed):
    options = {**arguments(geometry), **options}
    ours, theirs = both(AvgPool2d(**options), torch.nn.AvgPool2d(**options), draw(seed)(shape), draw(seed + 1))
    assert relative_error(ours[0], theirs[0]) < 1e-14
    assert relative_error(ours[1], theirs[1]) < 1e-14


@given(SHAPE, st.one_of(st.none(), st.integers(1, 13)), st.one_of(st.none(), st.integers(1, 13)), st.integers(0, 99))
def test_adaptive_pool_is_its_loops_and_pytorchs(shape, OH, OW, seed):
    layer, module = AdaptiveAvgPool2d((OH, OW)), torch.nn.AdaptiveAvgPool2d((OH, OW))
    x = draw(seed)(shape)
    ours, theirs = both(layer, module, x, draw(seed + 1))
    for a, b, c in zip(ours, theirs, adaptive_loops(x, draw(seed + 1), OH or shape[2], OW or shape[3]), strict=True):
        assert relative_error(a, b) < 1e-14
        assert relative_error(a, c) < 1e-14


@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 1, 1, 1), (40, 8, 16, 16)])
def test_global_pool_is_the_mean_over_the_image(shape):
    assert GlobalAvgPool is GlobalAvgPool2d
    layer, x, dy = GlobalAvgPool2d(), draw(0)(shape), draw(1)((*shape[:2], 1, 1))
    np.testing.assert_allclose(layer(x), x.mean((2, 3), keepdims=True), rtol=0, atol=1e-15)
    np.testing.assert_allclose(layer.backward(dy), np.broadcast_to(dy / (shape[2] * shape[3]), shape), rtol=1e-14)
    adaptive = AdaptiveAvgPool2d(1)
    np.testing.assert_array_equal(adaptive(x), layer(x))


@given(geometries(), st.fixed_dictionaries(AVG), st.integers(0, 99))
def test_avg_pool_backward_is_the_adjoint_exactly_on_integers(geometry, options, seed):
    options["divisor_override"] = 1  # division would round
    layer, x = AvgPool2d(**arguments(geometry), **options), draw(seed, integers=True)((2, 3, 9, 8))
    y = layer(x)
    dy = draw(seed + 1, integers=True)(y.shape)
    assert (y * dy).sum() == (x * layer.backward(dy)).sum()


@pytest.mark.parametrize("output_size", [(3, 5), 1, (None, 4), 11])
def test_adaptive_pool_backward_is_the_adjoint_exactly_on_integers(output_size):
    """Multiples of 5040, which every area of a bin here divides: all divisions are exact."""
    layer, x = AdaptiveAvgPool2d(output_size), 5040 * draw(0, integers=True)((2, 3, 9, 10))
    y = layer(x)
    dy = 5040 * draw(1, integers=True)(y.shape)
    assert (y * dy).sum() == (x * layer.backward(dy)).sum()


# ---- the contract ------------------------------------------------------------------------------------------

LAYERS = {
    "max": lambda: MaxPool2d(2),
    "max overlapping": lambda: MaxPool2d((3, 2), (2, 1), (1, 1), ceil_mode=True),
    "max large": lambda: MaxPool2d(17, 3, 8),  # more cells than a byte can tell apart
    "avg": lambda: AvgPool2d((3, 2), (2, 1), (1, 0), ceil_mode=True, count_include_pad=False),
    "adaptive": lambda: AdaptiveAvgPool2d((5, 3)),
    "global": GlobalAvgPool2d,
}
EACH = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def run(make, dtype=np.float32, shape=(64, 8, 18, 17)):
    layer, x = make(), draw(0)(shape).astype(dtype)
    y = layer(x)
    return y, layer.backward(draw(1)(y.shape).astype(dtype))


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order(make, dtype):
    for result in run(make, dtype):
        assert result.dtype == dtype
        assert is_channels_last(result)


@EACH
def test_the_number_of_threads_changes_no_bit(make):
    parallel.set_num_threads(1)
    one = run(make)
    parallel.set_num_threads(2)
    two = run(make)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_uninitialised_memory_is_not_read(make, monkeypatch):
    clean = run(make)
    with poisoned(monkeypatch):
        dirty = run(make)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_kernel_of_more_cells_than_a_byte_counts_is_pytorchs():
    ours, theirs = both(
        MaxPool2d(17, 3, 8), torch.nn.MaxPool2d(17, 3, 8), draw(0, integers=True)((2, 3, 20, 19)), draw(1)
    )
    np.testing.assert_array_equal(ours[0], theirs[0])
    assert relative_error(ours[1], theirs[1]) < 1e-14


def test_branches_are_the_winners_and_stay_until_backward():
    layer = MaxPool2d(2)
    assert layer.branches() == []
    x = draw(0)((2, 3, 4, 6))
    layer(x)
    (before,) = layer.branches()
    assert before.shape == (2, 2, 3, 3)
    layer(x + 1e-9)
    np.testing.assert_array_equal(layer.branches()[0], before)
    layer(-x)
    assert (layer.branches()[0] != before).any()
    layer.backward(np.ones((2, 3, 2, 3)))
    assert layer.branches() == []


# ---- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxPool2d(0), r"MaxPool2d\(0\): kernel_size must be at least 1, got 0"),
        (lambda: MaxPool2d(2, stride=0), "stride must be at least 1, got 0"),
        (lambda: MaxPool2d(2, dilation=(1, 0)), r"dilation must be at least 1, got \(1, 0\)"),
        (lambda: MaxPool2d(2, padding=-1), "padding must be at least 0, got -1"),
        (lambda: MaxPool2d((4, 2), padding=2), "padding must be at most half of the kernel, got 2"),
        (lambda: AvgPool2d(3, padding=(1, 2)), r"AvgPool2d\(3\): padding must be at most half of the kernel"),
        (lambda: AvgPool2d("3"), "kernel_size must be an integer or a pair of them, got '3'"),
        (lambda: AvgPool2d(2, divisor_override=0), "divisor_override must not be 0"),
        (lambda: AdaptiveAvgPool2d(0), "AdaptiveAvgPool2d: output_size must be at least 1"),
        (lambda: AdaptiveAvgPool2d((1, 2, 3)), "output_size must be an integer or a pair of them"),
        (
            lambda: MaxPool2d(5)(np.ones((1, 1, 4, 9))),
            r"MaxPool2d\(5\): the window covers 5×5, the padded input only 4×9",
        ),
        (lambda: AvgPool2d(2)(np.ones((1, 4, 4))), r"expected an input of shape \(N, C, H, W\), got \(1, 4, 4\)"),
        (lambda: MaxPool2d(2)(np.ones((1, 1, 4, 4), int)), "expected a float32 or float64 array, got int64"),
        (lambda: AdaptiveAvgPool2d(1)(np.ones((1, 1, 0, 4))), "an image without pixels has no mean"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(LayerError, match=message):
        make()


@EACH
def test_backward_wants_the_outputs_shape(make):
    layer = make()
    layer(np.ones((1, 2, 20, 20)))
    with pytest.raises(LayerError, match="backward needs dL/dy of the output's shape"):
        layer.backward(np.ones((1, 2, 20, 20)))


def test_repr_leaves_defaults_out():
    assert repr(MaxPool2d(2)) == "MaxPool2d(2)"
    assert repr(MaxPool2d((3, 2), 2, 1, (1, 2), True)) == (
        "MaxPool2d((3, 2), stride=2, padding=1, dilation=(1, 2), ceil_mode=True)"
    )
    assert repr(AvgPool2d(3, 3, (1, 0), count_include_pad=False, divisor_override=4)) == (
        "AvgPool2d(3, padding=(1, 0), count_include_pad=False, divisor_override=4)"
    )
    assert repr(AdaptiveAvgPool2d((None, 3))) == "AdaptiveAvgPool2d((None, 3))"
    assert repr(AdaptiveAvgPool2d(2)) == "AdaptiveAvgPool2d(2)"
    assert repr(GlobalAvgPool2d()) == "GlobalAvgPool2d()"


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": (5, 2), "stride": (1, 3), "padding": (2, 0), "ceil_mode": True},
        {"kernel_size": 3, "stride": 2, "dilation": (4, 1), "ceil_mode": True},
    ],
    ids=str,
)
def test_a_single_image_is_cut_into_bands(options, monkeypatch):
    pieces, run = [], parallel._run
    monkeypatch.setattr(parallel, "_run", lambda tasks: (pieces.append(len(tasks)), run(tasks)))
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 64)
    x = np.random.default_rng(0).standard_normal((1, 3, 31, 17))
    y = MaxPool2d(**options).eval()(x)
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x), **options).numpy()
    np.testing.assert_array_equal(y, wanted)
    assert max(pieces) > 8
