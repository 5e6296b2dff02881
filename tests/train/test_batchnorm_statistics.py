"""Exact statistics: against NumPy over all batches at once, and PyTorch's own layers; and what is left alone."""

import numpy as np
import pytest
import torch

from tinycnn import data, models, optim
from tinycnn.backend import to_device, to_numpy
from tinycnn.layers import BatchNorm2d, BatchNormReLU2d, Conv2d, Dropout, Flatten, Linear, ReLU, Sequential
from tinycnn.train import recompute_statistics
from tinycnn.train.batchnorm_statistics import Population


def batches(sizes=(6, 6, 3), channels=2, dtype=np.float64, scale=1.0, offset=0.0):
    rng = np.random.default_rng(0)
    x = [(offset + scale * (i + rng.normal(size=(n, channels, 5, 4)))).astype(dtype) for i, n in enumerate(sizes)]
    return [(one, np.zeros(len(one), np.int64)) for one in x]


def population(values):
    """(C,) mean and unbiased variance of a list of (n, C, H, W), by their definition."""
    rows = np.concatenate([v.transpose(0, 2, 3, 1).reshape(-1, v.shape[1]) for v in values]).astype(np.float64)
    return rows.mean(axis=0), rows.var(axis=0, ddof=1)


def normalized(x, norm):
    mean, var = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    shape = (1, -1, 1, 1)
    return (x - mean) / np.sqrt(var + norm.eps) * norm.weight.data.reshape(shape) + norm.bias.data.reshape(shape)


def test_one_layer_is_the_variance_of_all_not_the_mean_of_variances():
    norm = BatchNorm2d(2, dtype=np.float64)
    recompute_statistics(norm, batches())
    mean, var = population([x for x, _ in batches()])
    np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-13)
    np.testing.assert_allclose(norm.running_var, var, rtol=1e-13)
    averaged = np.mean([x.var(axis=(0, 2, 3)) for x, _ in batches()], axis=0)
    assert (np.abs(averaged / var - 1) > 0.3).all()


def network(dtype=np.float64):
    rng = np.random.default_rng(1)
    return Sequential(
        Conv2d(2, 3, 3, padding=1, rng=rng),
        BatchNormReLU2d(3),
        Dropout(0.5, rng=rng),
        Conv2d(3, 4, 3, padding=1, rng=rng),
        BatchNorm2d(4),
        Flatten(),
        Linear(80, 3, rng=rng),
    ).astype(dtype)


def test_deeper_layers_see_what_batch_statistics_before_them_give():
    model = network()
    for norm in (model[1], model[4]):
        norm.weight.data[...], norm.bias.data[...] = 1.5, 0.25
    recompute_statistics(model, batches())
    model.eval()
    first = [model[0](x) for x, _ in batches()]
    second = [model[3](np.maximum(normalized(x, model[1]), 0)) for x in first]  # without dropout
    for norm, seen in ((model[1], first), (model[4], second)):
        mean, var = population(seen)
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(norm.running_var, var, rtol=1e-11)


def test_one_batch_is_pytorchs_with_momentum_one():
    norm, twin = BatchNorm2d(2, dtype=np.float64), torch.nn.BatchNorm2d(2, momentum=1.0).double()
    (pair,) = batches((9,))
    recompute_statistics(norm, [pair])
    twin(torch.tensor(pair[0]))
    np.testing.assert_allclose(norm.running_mean, twin.running_mean.numpy(), rtol=1e-13)
    np.testing.assert_allclose(norm.running_var, twin.running_var.numpy(), rtol=1e-13)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_float32_is_exact_to_its_rounding_even_far_from_zero(device, request):
    if device == "cuda":
        request.getfixturevalue("gpu")
    norm = BatchNorm2d(2).to(device)
    pairs = batches((40,) * 12, dtype=np.float32, offset=1000.0)
    recompute_statistics(norm, [(to_device(x, device), y) for x, y in pairs])
    mean, var = population([x for x, _ in pairs])
    np.testing.assert_allclose(to_numpy(norm.running_mean), mean, rtol=6e-8)
    np.testing.assert_allclose(to_numpy(norm.running_var), var, rtol=6e-8)
    assert norm.running_var.dtype == np.float32


def test_all_else_is_left_as_it_was():
    model = network()
    model.train()
    model[4].momentum = 0.3
    model[1].num_batches_tracked += 7
    for i in range(3):
        model(batches()[i][0])
    before, streams = model.state_dict(), model.random_state()
    recompute_statistics(model, batches())
    after = model.state_dict()
    changed = {name for name in after if not np.array_equal(after[name], before[name])}
    assert changed == {f"{i}.running_{what}" for i in (1, 4) for what in ("mean", "var")}
    assert (model[4].momentum, model[1].momentum) == (0.3, 0.1)
    assert model.random_state() == streams
    assert all(layer.training and layer.saving for layer in model.layers())


def test_the_same_numbers_every_time():
    model = network()
    recompute_statistics(model, batches())
    first = model.state_dict()
    recompute_statistics(model, batches())
    np.testing.assert_equal(model.state_dict(), first)


def test_frozen_layers_keep_theirs_and_are_used_with_them():
    model = network()
    model.freeze("1")
    kept = model.state_dict()
    recompute_statistics(model, batches())
    np.testing.assert_array_equal(model[1].running_mean, kept["1.running_mean"])
    model.eval()
    second = [model[3](np.asarray(model[1](model[0](x)))) for x, _ in batches()]
    np.testing.assert_allclose(model[4].running_mean, population(second)[0], rtol=1e-11, atol=1e-13)


def test_every_normalisation_of_a_residual_network_is_reached():
    rng = np.random.default_rng(0)
    model = models.create("resnet20")
    loader = data.Loader(rng.integers(0, 256, (12, 3, 16, 16)).astype(np.uint8), rng.integers(0, 10, 12), 6)
    norms = [layer for layer in model.layers() if isinstance(layer, BatchNorm2d)]
    recompute_statistics(model, loader)
    assert len(norms) >= 19
    assert all((norm.running_mean != 0).all() for norm in norms)


def test_of_the_averaged_network():
    model = network()
    ema = optim.EMA(model, 0.5)
    for p in model.parameters():
        p.data *= 2
    ema.update()
    for p in model.parameters():
        p.data *= 3
    with ema.averaged():
        recompute_statistics(model, batches())
        expected = population([model.eval()[0](x) for x, _ in batches()])
    np.testing.assert_allclose(model[1].running_mean, expected[0], rtol=1e-11)


def test_what_cannot_be_measured():
    with pytest.raises(ValueError, match="there was no batch"):
        recompute_statistics(network(), [])
    recompute_statistics(Sequential(Conv2d(2, 3, 3), ReLU()), [])
    model = network()
    before = model.state_dict()
    pairs = batches()
    pairs[1][0][0, 0, 0, 0] = np.inf
    with (
        np.errstate(invalid="ignore"),
        pytest.raises(ValueError, match=r"the statistics of 1 \(BatchNormReLU2d.* not fin"),
    ):
        recompute_statistics(model, pairs)
    np.testing.assert_equal(model.state_dict(), before)


def test_a_population_that_comes_in_any_parts():
    values = np.random.default_rng(3).normal(1e6, 1, (50, 3))
    for cuts in ([], [1], [10, 11, 40], range(1, 50)):
        found = Population(np.zeros(3))
        for part in np.split(values, list(cuts)):
            found.add(part.mean(axis=0), part.var(axis=0), len(part))
        np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-14)
        np.testing.assert_allclose(found.unbiased, values.var(axis=0, ddof=1), rtol=1e-9)
