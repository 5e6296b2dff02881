"""Batch normalisation with ReLU, and with a shortcut, against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, images, is_channels_last, like_torch, poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.batchnorm import BatchNormReLU2d

SHAPE = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(2, 7))
OPTIONS = st.fixed_dictionaries(
    {
        "eps": st.sampled_from([1e-5, 1e-2]),
        "momentum": st.sampled_from([0.1, 0.7, None]),
        "affine": st.booleans(),
        "track_running_stats": st.booleans(),
    }
)


class TorchNormReLU(torch.nn.BatchNorm2d):
    def forward(self, x, shortcut=None):
        y = super().forward(x)
        return torch.relu(y if shortcut is None else y + shortcut)


def assert_two_inputs_are_torchs(ours, theirs, x, shortcut, dy, tolerance=1e-10):
    """As `assert_step_is_torchs`, of a layer with a second input."""
    theirs.zero_grad()
    ours.zero_grad()
    tx, ts = (torch.from_numpy(v.copy()).requires_grad_() for v in (x, shortcut))
    y_torch = theirs(tx, ts)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(ours(x, shortcut), y_torch.detach().numpy()) < tolerance
    dx, ds = ours.backward(dy)
    assert relative_error(dx, tx.grad.numpy()) < tolerance
    assert relative_error(ds, ts.grad.numpy()) < tolerance
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert relative_error(p.grad, q.grad.numpy()) < tolerance
    for value, other in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert relative_error(value, other.numpy()) < tolerance


@given(OPTIONS, SHAPE, st.integers(0, 99))
def test_training_then_evaluation_is_pytorchs(options, shape, seed):
    shape = (shape[0] + 1, *shape[1:])
    ours, theirs = like_torch(BatchNormReLU2d(shape[1], **options), TorchNormReLU(shape[1], **options), seed)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    for evaluate in (False, True):
        if evaluate:
            theirs.eval()
            ours.eval(backward=True)
        assert_step_is_torchs(ours, theirs, images(seed, shape), seed, 1e-10)
        x, shortcut, dy = (images(seed + i, shape, mean=-0.5) for i in range(3))
        assert_two_inputs_are_torchs(ours, theirs, x, shortcut, dy)


EACH = pytest.mark.parametrize("evaluate", [False, True], ids=["training", "evaluation"])
BOTH = pytest.mark.parametrize("with_shortcut", [False, True], ids=["alone", "with shortcut"])


def run(with_shortcut, evaluate=False, dtype=np.float32, shape=(64, 6, 24, 20), mean=0.0):
    layer = BatchNormReLU2d(shape[1], dtype=dtype)
    layer.weight.data[...] = np.random.default_rng(0).uniform(0.5, 2, shape[1])
    if evaluate:
        layer.eval(backward=True)
    more = (images(2, shape).astype(dtype),) if with_shortcut else ()
    y = layer(images(0, shape, mean).astype(dtype), *more)
    dxs = layer.backward(images(1, shape).astype(dtype))
    return [y, *(dxs if with_shortcut else (dxs,)), layer.weight.grad, layer.bias.grad, layer.running_var]


@EACH
@BOTH
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_memory_order_threads_and_uninitialised_memory(with_shortcut, evaluate, dtype, monkeypatch):
    parallel.set_num_threads(1)
    one = run(with_shortcut, evaluate, dtype)
    assert all(result.dtype == dtype for result in one)
    assert all(is_channels_last(result) for result in one[:-3])
    parallel.set_num_threads(2)
    with poisoned(monkeypatch):
        two = run(with_shortcut, evaluate, dtype)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@BOTH
def test_float32_is_accurate_with_a_mean_of_a_thousand_deviations(with_shortcut):
    shape = (32, 16, 32, 32)
    rng = np.random.default_rng(0)
    x = (1000 + rng.standard_normal(shape)).astype(np.float32)
    inputs = [x, rng.standard_normal(shape).astype(np.float32)][: 1 + with_shortcut]
    dy = rng.standard_normal(shape).astype(np.float32)
    single, double = BatchNormReLU2d(16), TorchNormReLU(16).double()
    tensors = [torch.from_numpy(v.astype(np.float64)).requires_grad_() for v in inputs]
    y = double(*tensors)
    got = single(*inputs)
    np.testing.assert_allclose(got, y.detach().numpy(), rtol=0, atol=3e-6)
    dy *= (got > 0) == (y.detach().numpy() > 0)  # within rounding of the kink either gate is right
    y.backward(torch.from_numpy(dy.astype(np.float64)))
    dxs = single.backward(dy)
    for dx, tensor in zip(dxs if with_shortcut else (dxs,), tensors, strict=True):
        np.testing.assert_allclose(dx, tensor.grad.numpy(), rtol=0, atol=3e-6)
    np.testing.assert_allclose(single.weight.grad, double.weight.grad.numpy(), rtol=0, atol=2e-6 * np.sqrt(x.size))


@BOTH
@EACH
def test_neither_inputs_nor_outputs_nor_gradients_are_touched(with_shortcut, evaluate):
    shape = (3, 2, 4, 5)
    arrays = [images(i, shape) for i in range(3)]
    before = [a.copy() for a in arrays]
    layer = BatchNormReLU2d(2, dtype=np.float64)
    if evaluate:
        layer.eval(backward=True)
    x, shortcut, dy = arrays
    y = layer(x, shortcut) if with_shortcut else layer(x)
    y_before = y.copy()
    dxs = layer.backward(dy)
    if with_shortcut:
        assert not np.shares_memory(*dxs)
    for a, b in zip([*arrays, y], [*before, y_before], strict=True):
        np.testing.assert_array_equal(a, b)


@EACH
@BOTH
def test_what_nobody_needs_is_not_returned(with_shortcut, evaluate):
    x, shortcut, dy = (images(i, (3, 2, 4, 5)) for i in range(3))
    free, first, frozen = (BatchNormReLU2d(2, dtype=np.float64) for _ in range(3))
    for p in frozen.parameters():
        p.requires_grad = False
    results = []
    for layer in (free, first, frozen):
        if evaluate:
            layer.eval(backward=True)
        layer.require_dx(layer is not first)
        layer(x, *[shortcut][: int(with_shortcut)])
        results.append(layer.backward(dy))
    np.testing.assert_array_equal(results[0], results[2])
    assert not any(p.grad.any() for p in frozen.parameters())
    assert results[1] == ((None, None) if with_shortcut else None)
    for p, q in zip(free.parameters(), first.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad)


def test_at_the_kink_the_gradient_is_that_of_the_left_side():
    layer = BatchNormReLU2d(1, eps=0.0, dtype=np.float64).eval(backward=True)
    np.testing.assert_array_equal(layer(np.array([-1.0, 0, 2]).reshape(3, 1, 1, 1)).ravel(), [0, 0, 2])
    np.testing.assert_array_equal(layer.branches()[0].ravel(), [False, False, True])
    np.testing.assert_array_equal(layer.backward(np.full((3, 1, 1, 1), 5.0)).ravel(), [0, 0, 5])
    assert layer.branches() == []


@pytest.mark.parametrize(
    ("shortcut", "message"),
    [
        (np.ones((3, 2, 4, 4), "f"), r"input and shortcut must have one shape, got \(3, 2, 4, 5\) and \(3, 2, 4, 4\)"),
        (np.ones((3, 2, 4, 5)), "input is float64, parameters are float32"),
    ],
)
def test_a_shortcut_that_does_not_fit_is_refused_before_anything_moves(shortcut, message):
    layer = BatchNormReLU2d(2)
    with pytest.raises(LayerError, match=message):
        layer.forward(np.ones((3, 2, 4, 5), "f"), shortcut)
    assert layer.num_batches_tracked == 0


def test_without_parameters_a_shortcut_of_another_precision_is_refused_too():
    with pytest.raises(LayerError, match="the shortcut is float32, the input float64"):
        BatchNormReLU2d(2, affine=False).forward(np.ones((3, 2, 4, 5)), np.ones((3, 2, 4, 5), "f"))
