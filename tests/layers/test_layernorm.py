"""Layer normalisation against plain loops and against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, is_channels_last, like_torch, poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.layernorm import LayerNorm

# (shape of the input, sizes that are normalised over): every rank, also all axes, and primes
SHAPES = [
    ((4, 5), (5,)),
    ((1, 7), (7,)),
    ((7,), (7,)),
    ((3, 2, 6), (6,)),
    ((3, 2, 6), (2, 6)),
    ((3, 2, 6), (3, 2, 6)),
    ((2, 3, 5, 4), (4,)),
    ((2, 3, 5, 4), (5, 4)),
    ((2, 3, 5, 4), (3, 5, 4)),
    ((2, 3, 5, 4), (2, 3, 5, 4)),
    ((2, 2, 3, 5, 4), (3, 5, 4)),
    ((2, 1009), (1009,)),
    ((200, 640), (640,)),
]


def examples(seed, shape, sizes, mean=0.0):
    """Examples that differ among themselves in mean and scale."""
    rng = np.random.default_rng(seed)
    lead = shape[: len(shape) - len(sizes)]
    scale, offset = rng.uniform(0.3, 3, (2, *lead, *[1] * len(sizes)))
    return mean + offset + scale * rng.standard_normal(shape)


@pytest.mark.parametrize(("shape", "sizes"), SHAPES[:11])
def test_it_is_the_loops(shape, sizes):
    layer = LayerNorm(sizes, dtype=np.float64)
    rng = np.random.default_rng(0)
    for p in layer.parameters():
        p.data[...] = rng.uniform(0.5, 2, p.shape)
    x, dy = examples(1, shape, sizes), rng.standard_normal(shape)
    M = int(np.prod(sizes))
    w, b = layer.weight.data.ravel(), layer.bias.data.ravel()
    y, dx, dw, db = [], [], np.zeros(M), np.zeros(M)
    for values, gradient in zip(x.reshape(-1, M), dy.reshape(-1, M), strict=True):
        std = np.sqrt(values.var() + 1e-5)
        x_hat = (values - values.mean()) / std
        jacobian = (np.eye(M) - 1 / M - np.outer(x_hat, x_hat) / M) / std * w[:, None]
        y.append(w * x_hat + b)
        dx.append(jacobian.T @ gradient)
        dw += gradient * x_hat
        db += gradient
    assert relative_error(layer(x), np.reshape(y, shape)) < 1e-13
    assert relative_error(layer.backward(dy), np.reshape(dx, shape)) < 1e-12
    assert relative_error(layer.weight.grad, dw.reshape(sizes)) < 1e-13
    assert relative_error(layer.bias.grad, db.reshape(sizes)) < 1e-13


@pytest.mark.parametrize(("shape", "sizes"), SHAPES)
@pytest.mark.parametrize("affine", [{}, {"bias": False}, {"elementwise_affine": False}, {"eps": 1e-2}])
def test_it_is_pytorchs(shape, sizes, affine):
    ours, theirs = like_torch(LayerNorm(sizes, **affine), torch.nn.LayerNorm(sizes, **affine))
    assert_step_is_torchs(ours, theirs, examples(0, shape, sizes))
    assert_step_is_torchs(ours.eval(backward=True), theirs.eval(), examples(1, shape, sizes))


@given(st.integers(1, 40), st.integers(4, 70), st.integers(0, 99))
def test_any_number_of_examples_and_features_is_pytorchs(N, M, seed):
    ours, theirs = like_torch(LayerNorm(M), torch.nn.LayerNorm(M), seed)
    assert_step_is_torchs(ours, theirs, examples(seed, (N, M), (M,)), seed, 1e-11)


def test_an_int_means_the_last_axis():
    assert LayerNorm(3).normalized_shape == (3,)
    assert LayerNorm(3).weight.shape == (3,)


@pytest.mark.parametrize("mean", [0, 1e3, -1e3, 1e6])
@pytest.mark.parametrize(("shape", "sizes"), [((64, 512), (512,)), ((3, 8, 32, 30), (8, 32, 30))])
def test_float32_is_accurate_with_a_mean_of_a_thousand_deviations(shape, sizes, mean):
    rng = np.random.default_rng(0)
    x, dy = (mean + rng.standard_normal(shape)).astype(np.float32), rng.standard_normal(shape).astype(np.float32)
    layer, exact = LayerNorm(sizes), LayerNorm(sizes, dtype=np.float64)
    np.testing.assert_allclose(layer(x), exact(x.astype(np.float64)), rtol=0, atol=3e-6)
    np.testing.assert_allclose(layer.backward(dy), exact.backward(dy.astype(np.float64)), rtol=0, atol=3e-6)
    np.testing.assert_allclose(layer.weight.grad, exact.weight.grad, rtol=0, atol=5e-5)


LARGE = pytest.mark.parametrize(("shape", "sizes"), [((64, 6, 24, 20), (6, 24, 20)), ((2000, 300), (300,))])


def run(shape, sizes, dtype=np.float32):
    layer = LayerNorm(sizes, dtype=dtype)
    layer.weight.data[...] = np.random.default_rng(0).uniform(0.5, 2, sizes)
    y = layer(examples(0, shape, sizes).astype(dtype))
    return y, layer.backward(examples(1, shape, sizes).astype(dtype)), layer.weight.grad, layer.bias.grad


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "sizes"), SHAPES)
def test_dtype_and_memory_order(shape, sizes, dtype):
    results = run(shape, sizes, dtype)
    assert all(result.dtype == dtype for result in results)
    assert all(is_channels_last(result) for result in results[:2])


@LARGE
def test_the_number_of_threads_changes_no_bit(shape, sizes):
    parallel.set_num_threads(1)
    one = run(shape, sizes)
    parallel.set_num_threads(2)
    for a, b in zip(one, run(shape, sizes), strict=True):
        np.testing.assert_array_equal(a, b)


@LARGE
def test_uninitialised_memory_is_not_read(shape, sizes, monkeypatch):
    clean = run(shape, sizes)
    with poisoned(monkeypatch):
        dirty = run(shape, sizes)
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_parameters_and_an_input_that_needs_no_gradient():
    x, dy = examples(0, (4, 6), (6,)), examples(1, (4, 6), (6,))
    free, layer = LayerNorm(6, dtype=np.float64), LayerNorm(6, dtype=np.float64)
    free(x)
    wanted = free.backward(dy)
    layer.weight.requires_grad = False
    layer(x)
    np.testing.assert_array_equal(layer.backward(dy), wanted)
    assert not layer.weight.grad.any()
    np.testing.assert_array_equal(layer.bias.grad, free.bias.grad)
    layer.require_dx(False)
    layer(x)
    assert layer.backward(dy) is None
    np.testing.assert_array_equal(layer.bias.grad, 2 * free.bias.grad)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerNorm(()), "normalized_shape must hold one or more sizes of at least 1"),
        (lambda: LayerNorm((3, 0)), r"sizes of at least 1, got \(3, 0\)"),
        (
            lambda: LayerNorm(4)(np.ones((2, 5), "f")),
            r"LayerNorm\(4\): the last axes .* must be \(4,\), got .* \(2, 5\)",
        ),
        (lambda: LayerNorm((2, 4))(np.ones((4,), "f")), r"must be \(2, 4\), got shape \(4,\)"),
        (lambda: LayerNorm(4)(np.ones((2, 4))), "input is float64, parameters are float32"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_repr_leaves_defaults_out():
    assert repr(LayerNorm(4)) == "LayerNorm(4)"
    assert repr(LayerNorm((2, 3, 4), 1e-3, bias=False)) == "LayerNorm((2, 3, 4), eps=0.001, bias=False)"
    assert repr(LayerNorm(4, elementwise_affine=False)) == "LayerNorm(4, elementwise_affine=False)"
