"""Linear against loops and against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import poisoned, relative_error

from tinycnn import initializers, parallel
from tinycnn.layers import linear
from tinycnn.layers.base import LayerError
from tinycnn.layers.linear import Linear


def three_loops(x, w, b):
    """The definition, and nothing of tinycnn."""
    y = np.zeros((len(x), len(w)))
    for n in range(len(x)):
        for o in range(len(w)):
            y[n, o] = b[o]
            for i in range(x.shape[1]):
                y[n, o] += w[o, i] * x[n, i]
    return y


def integers(rng, *shape):
    return rng.integers(-4, 5, shape).astype(np.float64)


def test_forward_is_the_three_loops_exactly_on_integers():
    rng = np.random.default_rng(0)
    layer = Linear(7, 5, dtype=np.float64)
    layer.weight.data[...], layer.bias.data[...] = integers(rng, 5, 7), integers(rng, 5)
    x = integers(rng, 6, 7)
    np.testing.assert_array_equal(layer(x), three_loops(x, layer.weight.data, layer.bias.data))


def test_each_gradient_is_an_adjoint_exactly_on_integers():
    rng = np.random.default_rng(1)
    layer = Linear(300, 200, bias=False, dtype=np.float64)
    layer.weight.data[...] = integers(rng, 200, 300)
    x, dy = integers(rng, 9, 300), integers(rng, 9, 200)
    y = layer(x)
    dx = layer.backward(dy)
    assert (y * dy).sum() == (x * dx).sum() == (layer.weight.data * layer.weight.grad).sum()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 7, 3), (0, 3, 2), (64, 400, 300), (33, 1000, 1), (700, 300, 40)])
def test_forward_and_all_gradients_are_pytorchs(sizes, bias):
    N, IN, OUT = sizes
    rng = np.random.default_rng(2)
    ours = Linear(IN, OUT, bias, rng=rng, dtype=np.float64)
    theirs = torch.nn.Linear(IN, OUT, bias, dtype=torch.float64)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    x, dy = rng.standard_normal((N, IN)), rng.standard_normal((N, OUT))
    x_torch = torch.from_numpy(x).requires_grad_()
    y_torch = theirs(x_torch)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(ours(x), y_torch.detach().numpy()) < 1e-12
    assert relative_error(ours.backward(dy), x_torch.grad.numpy()) < 1e-12
    for name, p in theirs.named_parameters():
        assert relative_error(dict(ours.named_parameters())[name].grad, p.grad.numpy()) < 1e-12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(17, 1003, 301), (3001, 103, 31), (230, 201, 190)])
def test_slices_of_the_weight_or_of_the_batch_change_nothing(sizes, dtype, monkeypatch):
    N, IN, OUT = sizes
    assert len(parallel.slice_batch(max(N, OUT), linear._item_bytes(np.empty((max(N, OUT), IN), dtype), 40_000))) > 1

    def results():
        rng = np.random.default_rng(3)
        layer = Linear(IN, OUT, rng=rng, dtype=dtype)
        x, dy = rng.standard_normal((N, IN)).astype(dtype), rng.standard_normal((N, OUT)).astype(dtype)
        return x, dy, layer, layer(x), layer.backward(dy)

    parallel.set_num_threads(2)
    x, dy, layer, y, dx = results()
    parallel.set_num_threads(1)
    with poisoned(monkeypatch):
        *_, other, y_one, dx_one = results()
    for a, b in [(y, y_one), (dx, dx_one), (layer.weight.grad, other.weight.grad), (layer.bias.grad, other.bias.grad)]:
        assert a.dtype == b.dtype == dtype
        np.testing.assert_array_equal(a, b)
    w = layer.weight.data.astype(np.float64)
    precision = 1e-5 if dtype == np.float32 else 1e-12
    assert relative_error(y, x @ w.T + layer.bias.data) < precision
    assert relative_error(dx, dy @ w) < precision
    assert relative_error(layer.weight.grad, dy.T.astype(np.float64) @ x) < precision


def test_initial_values():
    layer = Linear(100, 400, rng=np.random.default_rng(4))
    assert layer.weight.data.dtype == np.float32
    for p in layer.parameters():
        assert 0.09 < np.abs(p.data).max() <= np.float32(0.1)
    he = Linear(100, 400, init=initializers.he_normal, rng=np.random.default_rng(4))
    assert abs(he.weight.data.std() / np.sqrt(2 / 100) - 1) < 0.02
    assert not he.bias.data.any()
    again = Linear(100, 400, rng=np.random.default_rng(4), dtype=np.float64)
    np.testing.assert_array_equal(again.weight.data.astype(np.float32), layer.weight.data)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_gets_no_gradient(frozen):
    layer = Linear(3, 2, dtype=np.float64)
    getattr(layer, frozen).requires_grad = False
    layer(np.ones((4, 3)))
    layer.backward(np.ones((4, 2)))
    assert {name: p.grad.any() for name, p in layer.named_parameters()} == {
        name: name != frozen for name in ("weight", "bias")
    }


def test_no_dx_where_none_is_needed():
    layer = Linear(3, 2, dtype=np.float64)
    layer.require_dx(False)
    layer(np.ones((4, 3)))
    assert layer.backward(np.ones((4, 2))) is None
    assert layer.weight.grad.any()


def test_sizes_told_beforehand():
    layer = Linear(300, 20)
    assert layer.output_shape((8, 300)) == (8, 20)
    assert layer.macs((8, 300)) == 8 * 300 * 20
    assert repr(layer) == "Linear(300, 20)"
    assert repr(Linear(3, 2, bias=False)) == "Linear(3, 2, bias=False)"


def test_mistakes_are_named():
    layer = Linear(12, 2)
    with pytest.raises(LayerError, match=r"got \(2, 3, 2, 2\): put Flatten\(\) before it"):
        layer(np.ones((2, 3, 2, 2), np.float32))
    with pytest.raises(LayerError, match=r"expected 12 features on axis 1, got 5 in shape \(2, 5\)"):
        layer(np.ones((2, 5), np.float32))
    with pytest.raises(LayerError, match="input is float64, parameters are float32"):
        layer(np.ones((2, 12)))
    with pytest.raises(LayerError, match=r"Linear\(0, 2\): in_features must be an integer of at least 1, got 0"):
        Linear(0, 2)
    layer(np.ones((2, 12), np.float32))
    with pytest.raises(LayerError, match=r"output's shape \(2, 2\), got \(2, 3\)"):
        layer.backward(np.ones((2, 3), np.float32))


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_that_nobody_needs_are_not_computed(frozen, monkeypatch):
    layer = Linear(4, 3)
    for p in layer.parameters():
        p.requires_grad = not frozen
    layer.require_dx(frozen)
    unneeded = "linear_backward_weight" if frozen else "linear_backward_input"
    monkeypatch.setattr(linear, unneeded, lambda *_: pytest.fail("computed in vain"))
    layer.backward(layer(np.ones((2, 4), np.float32)))
