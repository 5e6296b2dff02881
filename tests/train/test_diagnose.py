"""Finding where a non-finite value began."""

import numpy as np
import pytest

from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Layer, Linear, ReLU, Residual, Sequential
from tinycnn.train import diagnose, find_non_finite


class Poison(Layer):
    """Multiplies by a number."""

    def __init__(self, factor):
        super().__init__()
        self.factor = np.float32(factor)

    def forward(self, x):
        return x * self.factor

    def backward(self, dy):
        return dy * self.factor


def network(factor, where):
    rng = np.random.default_rng(0)
    inner = Residual(Sequential(Conv2d(2, 2, 1, rng=rng), BatchNorm2d(2), Dropout(0.5, rng=rng)))
    layers = [Conv2d(1, 2, 3, rng=rng), inner, ReLU(), Flatten(), Linear(2 * 16, 3, rng=rng)]
    layers.insert(where, Poison(factor))
    return Sequential(*layers)


X = np.random.default_rng(1).normal(size=(2, 1, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("where", [0, 1, 3, 5])
@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_names_the_first_layer(where, factor):
    assert find_non_finite(network(factor, where), X) == f"the output of {where} (Poison())"
    assert diagnose(network(factor, where), X) == f"the output of {where} (Poison())"


def test_a_layer_inside_a_branch():
    model = network(1, 0)
    model[2].downsample  # noqa: B018 (the shortcut is there)
    model.layers()
    (bn,) = [layer for layer in model.layers() if isinstance(layer, BatchNorm2d)]
    bn.bias.data[1] = np.inf
    assert find_non_finite(model, X) == "the output of 2.1 (BatchNorm2d(2))"


def test_a_sum_that_overflows_belongs_to_the_combinator():
    half = Sequential(Residual(Poison(1.0)))
    x = np.full((1, 1, 2, 2), 3e38, np.float32)
    assert find_non_finite(half, x) == "the output of 0"


def test_all_finite():
    assert find_non_finite(network(1, 0), X) is None
    assert diagnose(network(1, 0), X) == "the loss itself: every layer's output is finite"
    assert diagnose(network(1, 0)) is None


def test_the_network_is_left_as_it_was():
    model = network(np.nan, 4)
    before, streams = model.state_dict(), model.random_state()
    modes = [(layer.training, layer.saving) for layer in model.layers()]
    find_non_finite(model, X)
    assert model.random_state() == streams
    assert [(layer.training, layer.saving) for layer in model.layers()] == modes
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert not any("forward" in vars(layer) for layer in model.layers())


def test_causes_come_before_effects():
    model = network(np.nan, 2)
    x = X.copy()
    x[0, 0, 0, 0] = np.inf
    assert diagnose(model, x) == "the images of this batch"
    model[0].weight.data[0] = np.inf
    assert diagnose(model, X) == "the parameter 0.weight, after the update before"
    model[5].bias.grad[0] = np.nan
    model[0].weight.grad[0] = np.nan
    assert diagnose(model, X) == "the gradient of 5.bias, in the update before", "backward reaches the last layer first"
