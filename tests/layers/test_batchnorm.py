"""Batch normalisation against plain loops and against PyTorch."""

import math

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, images, is_channels_last, like_torch, poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.kernels import norm
from tinycnn.layers import batchnorm
from tinycnn.layers.base import LayerError
from tinycnn.layers.batchnorm import BatchNorm2d, measure_channels

SHAPE = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(2, 7))
OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-5, 1e-2]),
        "momentum": st.sampled_from([0.1, 0.7, None]),
        "affine": st.booleans(),
        "track_running_stats": st.booleans(),
    }
)


def loops(x, dy, w, b, eps):
    """y, dx, dw and db, channel by channel, from the chain rule written out and nothing simplified."""
    y, dx, dw, db = np.zeros(x.shape), np.zeros(x.shape), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for c in range(x.shape[1]):
        values, gradient = x[:, c].ravel(), dy[:, c].ravel()
        M = len(values)
        mean = math.fsum(values) / M
        var = math.fsum((v - mean) ** 2 for v in values) / M
        std = math.sqrt(var + eps)
        y[:, c] = ((values - mean) / std * w[c] + b[c]).reshape(y[:, c].shape)
        dw[c], db[c] = math.fsum(gradient * (values - mean) / std), math.fsum(gradient)
        d_hat = gradient * w[c]
        d_var = math.fsum(d_hat * (values - mean)) * -0.5 * std**-3
        d_mean = -math.fsum(d_hat) / std + d_var * -2 * math.fsum(values - mean) / M
        dx[:, c] = (d_hat / std + d_var * 2 * (values - mean) / M + d_mean / M).reshape(dx[:, c].shape)
    return y, dx, dw, db


@given(SHAPE, st.integers(0, 99))
def test_forward_and_backward_are_the_loops(shape, seed):
    rng = np.random.default_rng(seed)
    layer = BatchNorm2d(shape[1], dtype=np.float64)
    for p in layer.parameters():
        p.data[...] = rng.uniform(0.5, 2, p.shape)
    x, dy = images(seed, shape), rng.standard_normal(shape)
    y, dx, dw, db = loops(x, dy, layer.weight.data, layer.bias.data, 1e-5)
    assert relative_error(layer(x), y) < 1e-13
    # where hardly any values share a mean, dx is a small difference of large terms
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=0, atol=1e-11 * max(np.abs(dx).max(), 1))
    assert relative_error(layer.weight.grad, dw) < 1e-11
    assert relative_error(layer.bias.grad, db) < 1e-13


@given(OPTIONS, SHAPE, st.integers(0, 99))
def test_training_then_evaluation_is_pytorchs(options, shape, seed):
    C = shape[1]
    ours, theirs = like_torch(BatchNorm2d(C, **options), torch.nn.BatchNorm2d(C, **options), seed)
    for step in range(3):
        assert_step_is_torchs(ours, theirs, images(seed + step, (shape[0] + 1, *shape[1:])), step, 1e-11)
    theirs.eval()
    assert_step_is_torchs(ours.eval(backward=True), theirs, images(seed, (shape[0] + 1, *shape[1:])), 9, 1e-11)


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0, None])
def test_running_statistics_over_ten_steps_are_pytorchs(momentum):
    ours, theirs = BatchNorm2d(3, momentum=momentum, dtype=np.float64), torch.nn.BatchNorm2d(3, momentum=momentum)
    theirs.double()
    for step in range(10):
        x = images(step, (2 + step, 3, 4, 5), mean=step)
        ours(x)
        theirs(torch.from_numpy(x))
        for name, value in theirs.named_buffers():
            np.testing.assert_allclose(dict(ours.named_buffers())[name], value.numpy(), rtol=1e-13, err_msg=name)
    assert ours.num_batches_tracked == 10
    assert ours.num_batches_tracked.dtype == np.int64
    assert ours.num_batches_tracked.shape == ()


def test_state_has_pytorchs_names_and_goes_both_ways():
    ours, theirs = BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    theirs(torch.from_numpy(images(0, (4, 3, 5, 6)).astype(np.float32)))
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    np.testing.assert_array_equal(ours.running_var, theirs.running_var.numpy())
    assert ours.num_batches_tracked == 1
    assert BatchNorm2d(3, track_running_stats=False).state_dict().keys() == {"weight", "bias"}
    assert not BatchNorm2d(3, affine=False, track_running_stats=False).state_dict()


def test_a_batch_of_one_image_is_enough_pixels():
    ours, theirs = like_torch(BatchNorm2d(2), torch.nn.BatchNorm2d(2))
    assert_step_is_torchs(ours, theirs, images(1, (1, 2, 5, 3)))


# ---- the mistakes others made ------------------------------------------------------------------------------


def test_the_running_variance_is_unbiased():
    layer = BatchNorm2d(1, momentum=1.0, dtype=np.float64)
    layer(np.array([1.0, 2, 3, 4]).reshape(4, 1, 1, 1))
    np.testing.assert_allclose(layer.running_var, [5 / 3])


def test_backward_in_evaluation_uses_the_running_statistics():
    layer = BatchNorm2d(1, eps=0.0, dtype=np.float64)
    layer.running_mean[...], layer.running_var[...], layer.weight.data[...] = 1, 4, 3
    layer.eval(backward=True)
    np.testing.assert_array_equal(layer(np.full((1, 1, 1, 2), 3.0)), np.full((1, 1, 1, 2), 3.0))
    np.testing.assert_array_equal(layer.backward(np.ones((1, 1, 1, 2))), np.full((1, 1, 1, 2), 1.5))
    assert (layer.weight.grad, layer.bias.grad) == (2, 2)


def test_evaluation_does_not_move_the_running_statistics():
    layer = BatchNorm2d(2).eval()
    layer(images(0, (3, 2, 4, 5)).astype(np.float32))
    assert layer.num_batches_tracked == 0
    assert (layer.running_mean == 0).all()


def test_without_running_statistics_evaluation_measures_the_batch():
    layer, x = BatchNorm2d(2, track_running_stats=False, dtype=np.float64), images(0, (3, 2, 4, 5))
    np.testing.assert_array_equal(layer(x), layer.eval()(x))


# ---- accuracy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [0, 1e3, -1e3])
@pytest.mark.parametrize("shape", [(32, 16, 32, 32), (3, 2, 5, 7)])
def test_float32_is_accurate_with_a_mean_of_a_thousand_deviations(mean, shape):
    rng = np.random.default_rng(0)
    x, dy = (mean + rng.standard_normal(shape)).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    layer = BatchNorm2d(shape[1])
    exact = x.astype(np.float64)
    y, dx, dw, db = loops(exact, dy.astype(np.float64), np.ones(shape[1]), np.zeros(shape[1]), 1e-5)
    np.testing.assert_allclose(layer(x), y, rtol=0, atol=3e-6)
    np.testing.assert_allclose(layer.backward(dy), dx, rtol=0, atol=3e-6)
    np.testing.assert_allclose(layer.weight.grad, dw, rtol=0, atol=2e-6 * np.sqrt(x.size))
    np.testing.assert_allclose(layer.bias.grad, db, rtol=0, atol=2e-6 * np.sqrt(x.size))
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * exact.var(axis=(0, 2, 3), ddof=1), rtol=1e-6)


def test_slices_whose_means_differ_are_joined_right():
    x = images(0, (64, 16, 48, 40)) + np.arange(64.0).reshape(-1, 1, 1, 1) ** 2
    assert len(parallel.slice_batch(64, x[0].nbytes)) > 2
    _, (_, mean, var) = measure_channels(x.astype(np.float32))
    np.testing.assert_allclose(mean, x.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(axis=(0, 2, 3)), rtol=1e-6)


def test_the_order_in_which_slices_finish_changes_no_bit(monkeypatch):
    x = images(0, (64, 16, 48, 40))  # sums of float32 numbers in float64 are often exact
    assert len(parallel.slice_batch(64, 2 * x[0].nbytes)) > 2
    wanted = measure_channels(x)

    def last_to_first(task, x):
        for s in reversed(parallel.slice_batch(len(x), 2 * x[0].nbytes)):
            task(s)

    monkeypatch.setattr(norm, "each_slice", last_to_first)
    monkeypatch.setattr(batchnorm, "each_slice", last_to_first)
    d, statistics = measure_channels(x)
    for a, b in zip([d, *statistics], [wanted[0], *wanted[1]], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("far", [slice(None, None, batchnorm.SAMPLE), slice(1), slice(9), slice(-9, None)])
def test_the_number_deviations_are_taken_from_is_near_the_mean_whatever_the_order_of_the_batch(far):
    """Every eighth row is all that is looked at: let these, or some at an end, lie as far off as they can."""
    rng = np.random.default_rng(0)
    rows = norm.Rows((64, 4, 16, 24))
    x = rng.standard_normal((64 * 16 * 24 // rows.k, rows.k * 4)) * 0.01 + 50
    x[far] += 1000
    x = rows.images(x.astype(np.float32))
    _, (m, mean, var) = measure_channels(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(axis=(0, 2, 3)), rtol=2e-6)
    assert ((m - mean) ** 2 < 7.01 * var).all()


# ---- the contract ------------------------------------------------------------------------------------------


def run(evaluate=False, dtype=np.float32, shape=(64, 6, 24, 20)):
    rng = np.random.default_rng(0)
    layer = BatchNorm2d(shape[1], dtype=dtype)
    layer.weight.data[...] = rng.uniform(0.5, 2, shape[1])
    if evaluate:
        layer.eval(backward=True)
    y = layer(images(0, shape).astype(dtype))
    dx = layer.backward(images(1, shape).astype(dtype))
    return y, dx, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var


EACH = pytest.mark.parametrize("evaluate", [False, True], ids=["training", "evaluation"])


@EACH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order(evaluate, dtype):
    results = run(evaluate, dtype)
    assert all(result.dtype == dtype for result in results)
    assert all(is_channels_last(result) for result in results[:2])


@EACH
def test_the_number_of_threads_changes_no_bit(evaluate):
    parallel.set_num_threads(1)
    one = run(evaluate)
    parallel.set_num_threads(2)
    for a, b in zip(one, run(evaluate), strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
def test_uninitialised_memory_is_not_read(evaluate, monkeypatch):
    clean = run(evaluate)
    with poisoned(monkeypatch):
        dirty = run(evaluate)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
@pytest.mark.parametrize("frozen", [["weight"], ["bias"], ["weight", "bias"]])
def test_frozen_parameters_get_no_gradient_and_change_no_other(evaluate, frozen):
    x, dy = images(0, (3, 2, 4, 5)), images(1, (3, 2, 4, 5))
    free, layer = (BatchNorm2d(2, dtype=np.float64) for _ in range(2))
    for name in frozen:
        getattr(layer, name).requires_grad = False
    results = []
    for one in (free, layer):
        if evaluate:
            one.eval(backward=True)
        one(x)
        results.append(one.backward(dy))
    np.testing.assert_array_equal(*results)
    for name in ("weight", "bias"):
        wanted = np.zeros(2) if name in frozen else getattr(free, name).grad
        np.testing.assert_array_equal(getattr(layer, name).grad, wanted)


@EACH
def test_no_dx_where_none_is_needed(evaluate):
    layer = BatchNorm2d(2, dtype=np.float64)
    if evaluate:
        layer.eval(backward=True)
    layer.require_dx(False)
    layer(images(0, (3, 2, 4, 5)))
    assert layer.backward(images(1, (3, 2, 4, 5))) is None
    assert layer.weight.grad.any()


# ---- words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BatchNorm2d(0), "BatchNorm2d: num_features must be at least 1, got 0"),
        (lambda: BatchNorm2d(2)(np.ones((1, 2, 1, 1), "f")), r"needs more than one value, got .* \(1, 2, 1, 1\)"),
        (lambda: BatchNorm2d(2)(np.ones((0, 2, 4, 4), "f")), "the input is empty"),
        (lambda: BatchNorm2d(2, track_running_stats=False).eval()(np.ones((1, 2, 1, 1), "f")), "more than one value"),
        (lambda: BatchNorm2d(2)(np.ones((4, 3, 2, 2), "f")), r"BatchNorm2d\(2\): expected 2 channels on axis 1, got 3"),
        (lambda: BatchNorm2d(2)(np.ones((4, 2), "f")), r"expected an input of shape \(N, C, H, W\)"),
        (lambda: BatchNorm2d(2)(np.ones((4, 2, 3, 3))), "input is float64, parameters are float32"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_one_value_per_channel_is_fine_in_evaluation():
    assert BatchNorm2d(2).eval()(np.ones((1, 2, 1, 1), "f")).shape == (1, 2, 1, 1)


def test_a_rejected_batch_leaves_the_running_statistics_alone():
    layer = BatchNorm2d(2)
    with pytest.raises(LayerError):
        layer(np.ones((1, 2, 1, 1), "f"))
    assert layer.num_batches_tracked == 0


def test_repr_leaves_defaults_out():
    assert repr(BatchNorm2d(4)) == "BatchNorm2d(4)"
    assert repr(BatchNorm2d(4, 1e-3, None, False, False)) == (
        "BatchNorm2d(4, eps=0.001, momentum=None, affine=False, track_running_stats=False)"
    )
