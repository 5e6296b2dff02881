"""Flatten, ZeroPad2d, Identity and PadShortcut against PyTorch; as linear maps, exactly."""

import numpy as np
import pytest
import torch
from helpers import is_channels_last, poisoned
from torch.nn import functional as F

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.shape import Flatten, Identity, PadShortcut, ZeroPad2d


def option_a(x, OC, stride=(2, 2), front=None):
    new = OC - x.shape[1]
    front = new // 2 if front is None else front
    return F.pad(x[:, :, :: stride[0], :: stride[1]], (0, 0, 0, 0, front, new - front))


PAIRS = {
    "Identity": (Identity(), lambda x: x + 0),
    "Flatten": (Flatten(), torch.nn.Flatten()),
    "Flatten 0": (Flatten(0), torch.nn.Flatten(0)),
    "Flatten 2": (Flatten(start_dim=2), torch.nn.Flatten(2)),
    "Flatten 3": (Flatten(start_dim=3), torch.nn.Flatten(3)),
    "ZeroPad2d 0": (ZeroPad2d(0), torch.nn.ZeroPad2d(0)),
    "ZeroPad2d 2": (ZeroPad2d(2), torch.nn.ZeroPad2d(2)),
    "ZeroPad2d sides": (ZeroPad2d((1, 2, 3, 4)), torch.nn.ZeroPad2d((1, 2, 3, 4))),
    "ZeroPad2d left": (ZeroPad2d([1, 0, 0, 0]), torch.nn.ZeroPad2d((1, 0, 0, 0))),
    "ZeroPad2d bottom": (ZeroPad2d((0, 0, 0, 1)), torch.nn.ZeroPad2d((0, 0, 0, 1))),
    "PadShortcut": (PadShortcut(4, 8), lambda x: option_a(x, 8)),
    "PadShortcut odd": (PadShortcut(4, 9), lambda x: option_a(x, 9)),
    "PadShortcut end": (PadShortcut(4, 8, where="end"), lambda x: option_a(x, 8, front=0)),
    "PadShortcut stride 1": (PadShortcut(4, 6, 1), lambda x: option_a(x, 6, (1, 1))),
    "PadShortcut stride (3, 2)": (PadShortcut(4, 6, (3, 2)), lambda x: option_a(x, 6, (3, 2))),
    "PadShortcut same width": (PadShortcut(4, 4), lambda x: option_a(x, 4)),
}
ROWS = pytest.mark.parametrize(("layer", "theirs"), PAIRS.values(), ids=PAIRS.keys())


@ROWS
@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (1, 4, 1, 1), (2, 4, 6, 2), (0, 4, 3, 3)])
@pytest.mark.parametrize("layout", ["C", "channels_last"])
def test_value_and_gradient_are_pytorchs_exactly(layer, theirs, shape, layout):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    if layout == "channels_last":
        x = x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    x_torch = torch.from_numpy(np.ascontiguousarray(x)).requires_grad_()
    y_torch = theirs(x_torch)
    dy = rng.standard_normal(tuple(y_torch.shape))
    y_torch.backward(torch.from_numpy(dy))
    assert layer.output_shape(shape) == tuple(y_torch.shape)
    y = layer(x)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(y, y_torch.detach().numpy())
    np.testing.assert_array_equal(dx, x_torch.grad.numpy())
    assert is_channels_last(y)
    assert is_channels_last(dx)


@ROWS
def test_backward_is_the_adjoint_exactly_on_integers(layer, theirs):
    rng = np.random.default_rng(1)
    x = rng.integers(-9, 10, (5, 4, 7, 6)).astype(np.float64)
    y = layer(x)
    dy = rng.integers(-9, 10, y.shape).astype(np.float64)
    assert (y * dy).sum() == (x * layer.backward(dy)).sum()


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slices_change_nothing(layer, theirs, dtype, monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((65, 4, 33, 31)).astype(dtype)
    assert len(parallel.slice_batch(65, 2 * x[0].nbytes)) > 1
    parallel.set_num_threads(2)
    y = layer(x)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(y, theirs(torch.from_numpy(x)).numpy())
    parallel.set_num_threads(1)
    with poisoned(monkeypatch):
        np.testing.assert_array_equal(layer(x), y)
        np.testing.assert_array_equal(layer.backward(dy), dx)
    assert y.dtype == dx.dtype == dtype


def test_the_published_option_a_puts_a_quarter_on_each_side():
    y = PadShortcut(2, 4)(np.ones((1, 2, 3, 3)))
    assert y.sum(axis=(0, 2, 3)).tolist() == [0, 4, 4, 0]
    y = PadShortcut(2, 4, where="end")(np.ones((1, 2, 3, 3)))
    assert y.sum(axis=(0, 2, 3)).tolist() == [4, 4, 0, 0]


def test_flatten_of_other_ranks():
    assert Flatten()(np.ones((2, 3))).shape == (2, 3)
    assert Flatten(3)(np.ones((2, 3, 4, 5, 6))).shape == (2, 3, 4, 30)
    assert is_channels_last(Flatten(3)(np.ones((2, 3, 4, 5, 6))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flatten(-1), "Flatten: start_dim must be at least 0, got -1"),
        (lambda: Flatten(2)(np.ones((2, 3))), r"shape \(2, 3\) has no axis 2"),
        (lambda: ZeroPad2d(-1), "ZeroPad2d: padding must not be negative, got -1: cut with"),
        (lambda: ZeroPad2d((1, 2)), r"\(left, right, top, bottom\), got \(1, 2\)"),
        (lambda: ZeroPad2d(1.5), r"\(left, right, top, bottom\), got 1.5"),
        (lambda: ZeroPad2d(1)(np.ones((2, 3))), r"expected an input of shape \(N, C, H, W\), got \(2, 3\)"),
        (lambda: PadShortcut(8, 4), r"PadShortcut\(8, 4\).*in_channels ≤ out_channels"),
        (lambda: PadShortcut(0, 4), "1 ≤ in_channels"),
        (lambda: PadShortcut(4, 8, 0), "stride must be at least 1, got 0"),
        (lambda: PadShortcut(4, 8, where="middle"), "where must be 'both' or 'end', got 'middle'"),
        (lambda: PadShortcut(4, 8)(np.ones((2, 3, 4, 4))), "expected 4 channels on axis 1, got 3"),
        (lambda: Identity()(np.ones(3, int)), "expected a float32 or float64 array"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(LayerError, match=message):
        make()


@ROWS
def test_a_gradient_of_another_shape_is_refused(layer, theirs):
    layer(np.ones((2, 4, 3, 3)))
    with pytest.raises(LayerError, match="output's shape"):
        layer.backward(np.ones((2, 4, 3, 99)))


def test_repr():
    assert repr(Flatten()) == "Flatten()"
    assert repr(Flatten(2)) == "Flatten(start_dim=2)"
    assert repr(ZeroPad2d((1, 0, 0, 2))) == "ZeroPad2d((1, 0, 0, 2))"
    assert repr(PadShortcut(4, 8)) == "PadShortcut(4, 8)"
    assert repr(PadShortcut(4, 8, 1, "end")) == "PadShortcut(4, 8, stride=1, where='end')"
    assert repr(PadShortcut(4, 8, (2, 1))) == "PadShortcut(4, 8, stride=(2, 1))"
