"""What the page is told of a layer."""

import numpy as np
import pytest

from tinycnn import contract
from tinycnn.explain import record
from tinycnn.explain.layers import geometry, is_drawn, kind_of, own_numbers, ways
from tinycnn.layers import AvgPool2d, Concat, Conv2d, MaxPool2d, Residual, Sequential, Tanh


def visited(layer, shape=(1, 2, 5, 5)):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    return record(layer, x, np.ones_like)


def test_a_window_is_told_as_it_is_on_these_images():
    layer = MaxPool2d(2, ceil_mode=True)
    told = geometry(layer, visited(layer)[layer])
    assert told == {"kernel": (2, 2), "stride": (2, 2), "padding": ((0, 1), (0, 1)), "dilation": (1, 1)}


def test_divisors_of_a_mean():
    layer = AvgPool2d(2, 1, 1, count_include_pad=False)
    divisors = np.array(geometry(layer, visited(layer)[layer])["divisors"])
    assert divisors.shape == (6, 6)
    assert (divisors[0, 0], divisors[0, 1], divisors[1, 1]) == (1, 2, 4)


def test_ways_are_the_branches():
    conv = Conv2d(2, 2, 1)
    layer = Residual(conv)
    visits = visited(layer)
    (main, of_main), (shortcut, of_shortcut) = ways(layer, visits)
    assert (main, shortcut) == ("main", "identity")
    assert of_main is visits[conv]
    np.testing.assert_array_equal(of_shortcut.dx, np.ones((1, 2, 5, 5)))
    assert ways(conv, visits) == []


def test_own_numbers_are_the_parameters_of_the_layer_alone():
    conv = Conv2d(2, 3, 1)
    assert set(own_numbers(conv)) == {"weight", "bias"}
    assert own_numbers(Sequential(conv)) == {}
    assert not is_drawn(Sequential(conv))
    assert is_drawn(conv)


@pytest.mark.parametrize("name", contract.CASES)
def test_every_layer_has_a_kind(name):
    kind = kind_of(contract.CASES[name].build(np.random.default_rng(0)))
    assert kind != "other" or not name.startswith(
        ("Conv2d", "Linear", "MaxPool", "Avg", "BatchNorm", "ReLU", "Dropout")
    )


def test_kinds():
    assert kind_of(Concat(Tanh())) == "concat"  # and not "residual", although it is an Add
    assert kind_of(Residual(Tanh())) == "residual"
