"""What is recorded is what the layers' own forward and backward give, and nothing is left behind."""

import itertools

import numpy as np
import pytest
import torch

from tinycnn import CrossEntropyLoss, models
from tinycnn.explain import record
from tinycnn.layers import Checkpointed, Conv2d, ReLU, Sequential


def chain():
    rng = np.random.default_rng(3)
    return Sequential(Conv2d(2, 3, 3, rng=rng, dtype=np.float64), ReLU(), Conv2d(3, 2, 2, rng=rng, dtype=np.float64))


def test_both_ways_equal_pytorch():
    model, x = chain(), np.random.default_rng(0).standard_normal((1, 2, 6, 5))
    dy = np.random.default_rng(1).standard_normal((1, 2, 3, 2))
    visits = record(model, x, lambda y: dy)

    at = [torch.tensor(x, requires_grad=True)]
    for layer in model:
        if isinstance(layer, Conv2d):
            weights = [torch.tensor(p.data) for p in (layer.weight, layer.bias)]
            at.append(torch.nn.functional.conv2d(at[-1], *weights))
        else:
            at.append(torch.relu(at[-1]))
        at[-1].retain_grad()
    at[-1].backward(torch.tensor(dy))
    for i, layer in enumerate(model):
        visit = visits[layer]
        for got, expected in (
            (visit.x, at[i]),
            (visit.y, at[i + 1]),
            (visit.dx, at[i].grad),
            (visit.dy, at[i + 1].grad),
        ):
            np.testing.assert_allclose(got, expected.detach().numpy(), rtol=1e-10, atol=1e-12)


def test_every_number_is_a_copy_and_the_model_stays_as_it_was(model, examples):
    before = {name: value.copy() for name, value in model.state_dict().items()}
    streams, x = model.random_state(), examples[0].x
    first = record(model, x, lambda y: CrossEntropyLoss()(y, np.array([1]))[1])
    second = record(model, x, lambda y: CrossEntropyLoss()(y, np.array([1]))[1])
    assert model.random_state() == streams
    assert all("forward" not in layer.__dict__ and "backward" not in layer.__dict__ for layer in model.layers())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    for layer, visit in first.items():
        np.testing.assert_array_equal(visit.y, second[layer].y)  # the same mask was drawn
        np.testing.assert_array_equal(visit.dx, second[layer].dx)


def test_what_comes_to_a_layer_is_what_the_next_passed_on(model, examples):
    visits = record(model, examples[0].x, np.ones_like)
    layers = list(model)
    for a, b in itertools.pairwise(layers):
        np.testing.assert_array_equal(visits[a].y, visits[b].x)
        np.testing.assert_array_equal(visits[a].dy, visits[b].dx)


def test_a_block_adds_up_its_ways(model, examples):
    """The identity's gradient is added to in place: what was recorded must be from before that."""
    visits = record(model, examples[0].x, np.ones_like)
    main, norm, shortcut = model.block.children()
    np.testing.assert_array_equal(visits[norm].dshortcut, visits[shortcut].dy)
    np.testing.assert_allclose(visits[main].dx + visits[shortcut].dx, visits[model.block].dx, rtol=1e-6)
    assert not np.array_equal(visits[shortcut].dx, visits[model.block].dx)


def test_a_checkpointed_layer_tells_what_it_chose():
    model = Checkpointed(models.create("lenet5").pool1)
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 4)).astype(np.float32)
    visits = record(model, x, np.ones_like)
    windows = x.reshape(1, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(1, 2, 2, 2, 4)
    np.testing.assert_array_equal(visits[model.layer].facts["winners"], windows.argmax(axis=-1))


@pytest.mark.parametrize("name", ["densenet_40_12", "googlenet"])
def test_networks_whose_layers_work_in_place_or_have_heads(name):
    size = {"densenet_40_12": 16, "googlenet": 64}[name]
    model = models.create(name, 10)
    x = np.random.default_rng(0).standard_normal((1, 3, size, size)).astype(np.float32)
    visits = record(model.eval(backward=True), x, np.ones_like)
    assert visits[model].y.shape == (1, 10)
    assert visits[model].dx.shape == x.shape
