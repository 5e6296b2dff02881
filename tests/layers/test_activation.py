"""Activations against PyTorch, at ordinary numbers and at extreme ones."""

import numpy as np
import pytest
import torch
from helpers import is_channels_last, poisoned, relative_error
from torch.nn import functional as F

from tinycnn import parallel
from tinycnn.layers.activation import GELU, LeakyReLU, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from tinycnn.layers.base import LayerError

PAIRS = {
    "ReLU": (ReLU(), F.relu),
    "LeakyReLU": (LeakyReLU(), F.leaky_relu),
    "LeakyReLU 0": (LeakyReLU(0.0), lambda x: F.leaky_relu(x, 0.0)),
    "LeakyReLU 0.3": (LeakyReLU(0.3), lambda x: F.leaky_relu(x, 0.3)),
    "LeakyReLU 1": (LeakyReLU(1.0), lambda x: F.leaky_relu(x, 1.0)),
    "LeakyReLU 1.5": (LeakyReLU(1.5), lambda x: F.leaky_relu(x, 1.5)),
    "LeakyReLU -0.5": (LeakyReLU(-0.5), lambda x: F.leaky_relu(x, -0.5)),
    "Sigmoid": (Sigmoid(), torch.sigmoid),
    "Tanh": (Tanh(), torch.tanh),
    "Softplus": (Softplus(), F.softplus),
    "Softplus beta 3": (Softplus(beta=3.0), lambda x: F.softplus(x, 3.0)),
    "Softplus beta -0.5": (Softplus(beta=-0.5), lambda x: F.softplus(x, -0.5)),
    "Softplus threshold 1": (Softplus(2.0, 1.0), lambda x: F.softplus(x, 2.0, 1.0)),
    "Softplus threshold -1": (Softplus(threshold=-1.0), lambda x: F.softplus(x, 1.0, -1.0)),
    "GELU": (GELU(), F.gelu),
    "GELU tanh": (GELU(approximate="tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "SiLU": (SiLU(), F.silu),
    "Softmax": (Softmax(), lambda x: F.softmax(x, 1)),
    "Softmax 0": (Softmax(0), lambda x: F.softmax(x, 0)),
    "Softmax -1": (Softmax(dim=-1), lambda x: F.softmax(x, -1)),
    "Softmax -2": (Softmax(dim=-2), lambda x: F.softmax(x, -2)),
}
ROWS = pytest.mark.parametrize(("layer", "theirs"), PAIRS.values(), ids=PAIRS.keys())


def torch_run(function, x, dy):
    x = torch.from_numpy(np.array(x)).requires_grad_()
    y = function(x)
    y.backward(torch.from_numpy(np.array(dy)))
    return y.detach().numpy(), x.grad.numpy()


def run(layer, x, dy):
    y = layer(x)
    return y, layer.backward(dy)


@ROWS
@pytest.mark.parametrize("shape", [(6, 5), (3, 4, 5, 7), (2, 3, 4), (1, 2, 1, 3), (2, 3, 2, 2, 2)])
def test_value_and_gradient_are_pytorchs(layer, theirs, shape):
    rng = np.random.default_rng(len(shape))
    x, dy = 3 * rng.standard_normal(shape), rng.standard_normal(shape)
    y, dx = run(layer, x, dy)
    wanted_y, wanted_dx = torch_run(theirs, x, dy)
    assert relative_error(y, wanted_y) < 1e-14
    assert relative_error(dx, wanted_dx) < 1e-13
    assert is_channels_last(y)
    assert is_channels_last(dx)


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_numbers(layer, theirs, dtype):
    huge = [0.0, -0.0, 1e-30, 1e-6, 0.5, 4.0, 10.0, 15.0, 19.99, 20.01, 30.0, 80.0, 100.0, 800.0, 1e4]
    x = np.array([huge, [-v for v in huge]], dtype).T.copy()
    y, dx = run(layer, x, np.full_like(x, 0.5))
    wanted_y, wanted_dx = torch_run(theirs, x, np.full_like(x, 0.5))
    assert y.dtype == dx.dtype == dtype
    tolerance = {"rtol": 2e-6, "atol": 5e-7} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    np.testing.assert_allclose(y, wanted_y, **tolerance)
    np.testing.assert_allclose(dx, wanted_dx, **tolerance)


@ROWS
def test_nan_goes_through(layer, theirs):
    x = np.array([[1.0, np.nan, -1.0]])
    y = layer(x)
    np.testing.assert_array_equal(np.isnan(y), torch.isnan(theirs(torch.from_numpy(x))).numpy())


@pytest.mark.parametrize("shape", [(3,), (4, 1, 1, 1), (0, 3), (0, 2, 3, 4)])
@pytest.mark.parametrize("layer", [ReLU(), LeakyReLU(), Sigmoid(), Tanh(), Softplus(), GELU(), SiLU(), Softmax(-1)])
def test_any_rank_and_any_batch(layer, shape):
    y, dx = run(layer, np.zeros(shape), np.ones(shape))
    assert y.shape == dx.shape == shape


def test_the_slope_at_the_kink_is_that_of_the_left():
    zeros = np.array([0.0, -0.0])
    assert run(ReLU(), zeros, np.ones(2))[1].tolist() == [0, 0]
    assert run(LeakyReLU(0.25), zeros, np.ones(2))[1].tolist() == [0.25, 0.25]


def test_branches_tell_the_side_and_release_nothing():
    x = np.array([[-1.0, 0.0, 2.0]])
    for layer in (ReLU(), LeakyReLU(), LeakyReLU(-1.0)):
        assert layer.branches() == []
        layer(x)
        for _ in range(2):
            (branch,) = layer.branches()
            assert branch.tolist() == [[False, False, True]]
        layer.backward(x)
    smooth = SiLU()
    smooth(x)
    assert smooth.branches() == []


def test_what_is_saved_is_what_the_docstring_says():
    x = np.linspace(-2, 2, 6).reshape(2, 3)
    for layer in (ReLU(), Sigmoid(), Tanh(), Softmax()):
        y = layer(x)
        assert layer._saved[0] is y
    for layer in (LeakyReLU(), Softplus()):
        layer(x)
        assert layer._saved[0] is x
    for layer in (SiLU(), GELU(), GELU("tanh")):
        layer(x)
        (slope,) = layer._saved
        np.testing.assert_array_equal(layer.backward(np.ones_like(x)), slope)


@pytest.mark.parametrize("dim", range(-4, 4))
def test_softmax_adds_up_to_one_along_any_axis(dim):
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((2, 3, 4, 5))
    y, dx = run(Softmax(dim), x, dy)
    wanted_y, wanted_dx = torch_run(lambda t: F.softmax(t, dim), x, dy)
    np.testing.assert_allclose(y.sum(dim), 1)
    assert relative_error(y, wanted_y) < 1e-14
    assert relative_error(dx, wanted_dx) < 1e-14
    np.testing.assert_allclose(run(Softmax(dim), x + 1e4, dy)[0], y, rtol=1e-10)


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_slices_change_nothing(layer, theirs, dtype, monkeypatch):
    rng = np.random.default_rng(1)
    x, dy = (3 * rng.standard_normal((97, 3, 20, 21)).astype(dtype) for _ in range(2))
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1 << 16)
    assert len(parallel.slice_batch(97, x[0].nbytes)) > 1
    parallel.set_num_threads(2)
    y, dx = run(layer, x, dy)
    parallel.set_num_threads(1)
    with poisoned(monkeypatch):
        y_one, dx_one = run(layer, x, dy)
    np.testing.assert_array_equal(y, y_one)
    np.testing.assert_array_equal(dx, dx_one)
    wanted_y, wanted_dx = torch_run(theirs, x, dy)
    assert y.dtype == dx.dtype == dtype
    assert is_channels_last(y)
    assert is_channels_last(dx)
    precision = 1e-12 if dtype == np.float64 else 3e-6
    assert relative_error(y, wanted_y) < precision
    assert relative_error(dx, wanted_dx) < precision


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Softplus(beta=0), "Softplus: beta must not be 0"),
        (lambda: GELU("erf"), "GELU: approximate must be 'none' or 'tanh', got 'erf'"),
        (lambda: Softmax(2)(np.ones((2, 3))), r"Softmax\(dim=2\): an input of shape \(2, 3\) has no axis 2"),
        (lambda: Softmax(-3)(np.ones((2, 3))), "has no axis -3"),
        (lambda: ReLU()(np.ones((2, 3), int)), "expected a float32 or float64 array, got int64"),
        (lambda: Tanh()([1.0]), "got list"),
        (lambda: run(ReLU(), np.ones((2, 3)), np.ones((3, 2))), r"output's shape \(2, 3\), got \(3, 2\)"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_repr():
    assert repr(LeakyReLU()) == "LeakyReLU()"
    assert repr(LeakyReLU(0.2)) == "LeakyReLU(negative_slope=0.2)"
    assert repr(Softplus(beta=2.0)) == "Softplus(beta=2.0, threshold=20.0)"
    assert repr(GELU("tanh")) == "GELU(approximate='tanh')"
    assert repr(Softmax()) == "Softmax(dim=1)"


def test_a_single_image_is_cut_too(monkeypatch):
    pieces, run = [], parallel._run
    monkeypatch.setattr(parallel, "_run", lambda tasks: (pieces.append(len(tasks)), run(tasks)))
    x = np.random.default_rng(0).standard_normal((1, 64, 112, 112), np.float32)
    np.testing.assert_array_equal(ReLU()(x), np.maximum(x, 0))
    assert min(pieces) >= 2
