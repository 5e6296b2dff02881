"""The formulas of the activations against PyTorch, values and gradients."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tinycnn.kernels import activation

# name: (numbers, what forward saves, PyTorch's function)
FUNCTIONS = {
    "relu": ((), "y", torch.relu),
    "leaky_relu": ((0.2,), "x", lambda x: F.leaky_relu(x, 0.2)),
    "sigmoid": ((), "y", torch.sigmoid),
    "tanh": ((), "y", torch.tanh),
    "softplus": ((2.0, 3.0), "x", lambda x: F.softplus(x, 2.0, 3.0)),
    "softmax": ((1,), "y", lambda x: F.softmax(x, 1)),
}
SELF_GATED = {"silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh")}


def theirs(function, x, dy):
    """y and dx by PyTorch."""
    x = torch.from_numpy(x).requires_grad_()
    y = function(x)
    y.backward(torch.from_numpy(dy))
    return y.detach().numpy(), x.grad.numpy()


@pytest.fixture
def pair():
    return np.random.default_rng(0).standard_normal((2, 5, 7)) * 3


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_gradients(name, pair):
    numbers, saves, function = FUNCTIONS[name]
    x, dy = pair
    y, dx = np.empty_like(x), np.empty_like(x)
    getattr(activation, name)(x, *numbers, y)
    getattr(activation, f"{name}_backward")(dy, y if saves == "y" else x, *numbers, dx)
    wanted = theirs(function, x, dy)
    np.testing.assert_allclose(y, wanted[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dx, wanted[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", SELF_GATED)
def test_self_gated_functions_write_their_slope(name, pair):
    x, dy = pair
    y, slope, dx = (np.empty_like(x) for _ in range(3))
    getattr(activation, name)(x, y, slope)
    activation.multiply(dy, slope, dx)
    wanted = theirs(SELF_GATED[name], x, dy)
    np.testing.assert_allclose(y, wanted[0], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(dx, wanted[1], rtol=1e-12, atol=1e-14)


def test_a_scaled_array_may_take_its_place(pair):
    x, y = pair
    wanted = x * 0.17
    activation.scale(x, 0.17, y)
    np.testing.assert_array_equal(y, wanted)
    activation.scale(x, 0.17, x)
    np.testing.assert_array_equal(x, wanted)


def test_sums_may_take_a_place(pair):
    x, y = pair
    wanted = x + y
    activation.add(x, y, x)
    np.testing.assert_array_equal(x, wanted)
