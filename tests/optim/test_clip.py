import math

import numpy as np
import pytest
import torch

from tinycnn import parallel
from tinycnn.optim import SGD, clip_grad_norm_, clip_grad_value_, grad_norm
from tinycnn.parameter import Parameter


@pytest.fixture
def both(parameters, gradients):
    twins = []
    for p, g in zip(parameters, next(iter(gradients(1))), strict=True):
        p.grad[...] = g
        twin = torch.nn.Parameter(torch.zeros(p.shape))
        twin.grad = torch.tensor(g)
        twins.append(twin)
    return parameters, twins


def assert_gradients_match(parameters, twins):
    for p, twin in zip(parameters, twins, strict=True):
        np.testing.assert_allclose(p.grad, twin.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("norm_type", [1, 1.5, 2, 3, math.inf])
@pytest.mark.parametrize("max_norm", [0, 1e-3, 0.5, 1e3, math.inf])
def test_clipping_the_norm_is_pytorchs(both, norm_type, max_norm):
    parameters, twins = both
    expected = torch.nn.utils.clip_grad_norm_(twins, max_norm, norm_type)
    norm = clip_grad_norm_(parameters, max_norm, norm_type)
    assert type(norm) is float
    np.testing.assert_allclose(norm, expected.item(), rtol=1e-13)
    assert_gradients_match(parameters, twins)


@pytest.mark.parametrize("value", [0, 1e-3, 0.1, 10])
def test_clipping_values_is_pytorchs(both, value):
    parameters, twins = both
    torch.nn.utils.clip_grad_value_(twins, value)
    clip_grad_value_(iter(parameters), value)
    assert_gradients_match(parameters, twins)


def test_frozen_parameters_count_for_nothing(both):
    parameters, twins = both
    parameters[0].requires_grad = False
    untouched = parameters[0].grad.copy()
    expected = torch.nn.utils.clip_grad_norm_(twins[1:], 0.01)
    np.testing.assert_allclose(clip_grad_norm_(parameters, 0.01), expected.item(), rtol=1e-13)
    clip_grad_value_(parameters, 1e-4)
    np.testing.assert_array_equal(parameters[0].grad, untouched)


@pytest.mark.parametrize("frozen", [[], [1], [0, 3]])
def test_an_optimizers_flat_buffer_will_do(both, frozen):
    parameters, twins = both
    for i in frozen:
        parameters[i].requires_grad = False
    flat = SGD(parameters).flat
    trained = [t for i, t in enumerate(twins) if i not in frozen]
    expected = torch.nn.utils.clip_grad_norm_(trained, 0.05).item()
    np.testing.assert_allclose(clip_grad_norm_(flat, 0.05), expected, rtol=1e-13)
    assert_gradients_match(parameters, twins)
    clip_grad_value_(flat, 1e-3)
    torch.nn.utils.clip_grad_value_(trained, 1e-3)
    assert_gradients_match(parameters, twins)


def test_by_hand():
    a, b = Parameter(np.zeros(2)), Parameter(np.zeros((1, 1)))
    a.grad[:] = [2.0, 3.0]
    b.grad[:] = -6.0
    assert grad_norm([a, b]) == 7.0
    assert grad_norm([a, b], 1) == 11.0
    assert grad_norm([a, b], math.inf) == 6.0
    assert grad_norm(b) == 6.0
    assert clip_grad_norm_([a, b], 0.7) == 7.0
    np.testing.assert_allclose([*a.grad, b.grad[0, 0]], [0.2, 0.3, -0.6], rtol=1e-6)


def test_float32_is_summed_in_float64_and_stays_float32():
    p = Parameter(np.zeros((300, 70, 5, 10), np.float32))
    rng = np.random.default_rng(0)
    p.grad[...] = rng.normal(size=p.shape)
    expected = math.sqrt(math.fsum((p.grad.astype(np.float64) ** 2).ravel()))
    assert abs(grad_norm([p]) / expected - 1) < 1e-14
    clip_grad_norm_([p], 1.0)
    assert p.grad.dtype == np.float32
    assert abs(grad_norm([p]) - 1) < 1e-6


def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(parallel, "_num_threads", None)
    results = []
    for threads in (1, 2):
        parallel.set_num_threads(threads)
        p = Parameter(np.zeros((300, 70, 5, 10), np.float32))
        p.grad[...] = np.random.default_rng(0).normal(size=p.shape)
        results.append((clip_grad_norm_([p], 1.0), p.grad))
    assert results[0][0] == results[1][0]
    np.testing.assert_array_equal(results[0][1], results[1][1])


def test_no_gradient_no_norm():
    assert clip_grad_norm_([], 1.0) == 0.0
    assert grad_norm([Parameter(np.zeros((0, 3)))]) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_norm_that_is_not_finite_can_be_an_error(both, bad):
    parameters, twins = both
    parameters[1].grad[0] = bad
    twins[1].grad[0] = bad
    with pytest.raises(RuntimeError, match=f"norm of the gradients is {bad}"):
        clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
    clip_grad_norm_(parameters, 1.0)
    torch.nn.utils.clip_grad_norm_(twins, 1.0)
    assert_gradients_match(parameters, twins)


def test_bad_arguments_are_named(parameters):
    with pytest.raises(ValueError, match="max_norm must be at least 0, got -1"):
        clip_grad_norm_(parameters, -1)
    with pytest.raises(ValueError, match="norm_type must be greater than 0, got 0"):
        clip_grad_norm_(parameters, 1, 0)
    with pytest.raises(ValueError, match="clip_value must be at least 0, got nan"):
        clip_grad_value_(parameters, math.nan)
    with pytest.raises(TypeError, match="clipping: expected Parameters, got a ndarray"):
        clip_grad_norm_([p.grad for p in parameters], 1.0)
