"""What the page is told of a layer."""

import numpy as np
import pytest

from tinycnn import contract
from tinycnn.explain import record
from tinycnn.explain.layers import geometry, is_drawn, kind_of, own_numbers, places, ways
from tinycnn.layers import AvgPool2d, Concat, Conv2d, DenseBlock, GroupNorm, MaxPool2d, Residual, Sequential, Tanh
from tinycnn.models.lenet import TABLE_I, SparseConv2d


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


def test_places_are_in_the_nearest_block_on_the_way_that_leads_there(model, examples):
    visits = record(model, examples[0].x, np.ones_like)
    layers = [layer for layer in visits if is_drawn(layer)]
    number = {layer: i for i, layer in enumerate(layers)}
    found = dict(zip(layers, places(layers), strict=True))
    main, norm, shortcut = model.block.children()
    assert found[model.conv] is found[model.block] is None
    for layer in main.layers():
        assert layer not in found or found[layer] == (number[model.block], 0)
    assert found[norm] == (number[model.block], 0)
    assert found[shortcut] == (number[model.block], 1)
    assert [found[branch] for branch in model.cat.children()] == [(number[model.cat], 0), (number[model.cat], 1)]


def test_blocks_within_blocks():
    inner = Concat(Conv2d(2, 1, 1), Conv2d(2, 1, 1))
    outer = Residual(Sequential(inner, Tanh()))
    layers = [layer for layer in visited(outer) if is_drawn(layer)]
    found = dict(zip(layers, places(layers), strict=True))
    assert [found[branch] for branch in inner.children()] == [(layers.index(inner), 0), (layers.index(inner), 1)]
    assert found[inner] == (layers.index(outer), 0)
    assert found[outer] is None


def test_a_dense_block_has_one_way():
    block = DenseBlock(2, 2, 2)
    layers = [layer for layer in visited(block) if is_drawn(layer)]
    assert {place for layer, place in zip(layers, places(layers), strict=True) if layer is not block} == {
        (layers.index(block), 0)
    }


def test_sparse_filters_are_laid_out():
    layer = SparseConv2d(TABLE_I, 3, rng=np.random.default_rng(0))
    dense = own_numbers(layer)["weight"]
    assert dense.shape == (16, 6, 3, 3)
    for i, (o, c) in enumerate(zip(layer.rows, layer.columns, strict=True)):
        np.testing.assert_array_equal(dense[o, c], layer.weight.data[i])
    connected = np.array([[c in inputs for c in range(6)] for inputs in TABLE_I])
    assert not dense[~connected].any()
    told = geometry(layer, visited(layer, (1, 6, 5, 5))[layer])
    assert np.array_equal(told["connected"], connected)


def test_who_shares_a_mean():
    layer = GroupNorm(2, 4)
    told = geometry(layer, visited(layer, (1, 4, 3, 5))[layer])
    assert (told["shared"], told["by"]) == (2 * 3 * 5, "channel")
