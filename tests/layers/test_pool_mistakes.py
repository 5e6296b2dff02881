"""Mistakes that others made in pooling."""

import numpy as np
import pytest
import torch

from tinycnn.layers.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d


def test_padding_never_wins_against_negative_values():
    layer, x = MaxPool2d(3, stride=2, padding=1), -1 - np.random.default_rng(0).standard_normal((2, 3, 7, 9)) ** 2
    assert (layer(x) <= -1).all()
    assert layer.backward(np.ones((2, 3, 4, 5))).sum() == 2 * 3 * 4 * 5


def test_a_window_of_minus_infinity_is_won_by_its_first_pixel_and_not_by_padding():
    x = np.full((1, 1, 4, 4), -np.inf)
    ours, theirs = MaxPool2d(3, 2, 1), torch.from_numpy(x).requires_grad_()
    y = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
    y.sum().backward()
    np.testing.assert_array_equal(ours(x), y.detach().numpy())
    np.testing.assert_array_equal(ours.backward(np.ones(y.shape)), theirs.grad.numpy())


def test_the_first_of_equal_values_takes_the_whole_gradient():
    layer = MaxPool2d(2)
    layer(np.ones((1, 1, 4, 4)))
    wanted = np.zeros((1, 1, 4, 4))
    wanted[0, 0, ::2, ::2] = 7
    np.testing.assert_array_equal(layer.backward(np.full((1, 1, 2, 2), 7.0)), wanted)


def test_a_pixel_that_wins_in_overlapping_windows_collects_from_all():
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1
    layer = MaxPool2d(3, stride=1)
    layer(x)
    dx = layer.backward(np.arange(1.0, 10).reshape(1, 1, 3, 3))
    assert dx[0, 0, 2, 2] == dx.sum() == 45


def test_nan_goes_through_and_stays_in_its_windows():
    x = np.random.default_rng(0).standard_normal((1, 2, 6, 6))
    x[0, 1, 3, 3] = np.nan
    for layer in (MaxPool2d(3, 2, 1), MaxPool2d(3, 2, 1).eval(), AvgPool2d(3, 2, 1), AdaptiveAvgPool2d(3)):
        module = getattr(torch.nn, type(layer).__name__)(*((3,) if "Adaptive" in type(layer).__name__ else (3, 2, 1)))
        np.testing.assert_array_equal(np.isnan(layer(x)), torch.isnan(module(torch.from_numpy(x))).numpy())


@pytest.mark.parametrize("channels", [1, 40])  # narrow pixels and wide ones go different ways
@pytest.mark.parametrize("options", [(2,), (3, 2, 1), (2, 1)])
def test_the_gradient_of_a_window_with_nan_goes_to_its_first_pixel(options, channels):
    layer, x = MaxPool2d(*options), np.random.default_rng(0).standard_normal((1, channels, 6, 6))
    x[:, :, 1, 1] = np.nan
    dy = np.zeros(layer(x).shape)
    dy[:, :, 0, 0] = 1
    dx = layer.backward(dy)
    assert (dx[:, :, 0, 0] == 1).all()
    assert dx.sum() == channels


@pytest.mark.parametrize("stride", [2, 1])
def test_an_infinite_gradient_reaches_the_winner_only(stride):
    layer = MaxPool2d(2, stride=stride)
    y = layer(np.arange(16.0).reshape(1, 1, 4, 4))
    dy = np.zeros(y.shape)
    dy[0, 0, 0, 0] = np.inf
    dx = layer.backward(dy)
    assert dx[0, 0, 1, 1] == np.inf
    assert np.isfinite(dx).sum() == 15


@pytest.mark.parametrize("make", [lambda: AvgPool2d((2, 3)), lambda: AdaptiveAvgPool2d((2, 3))])
def test_the_incoming_gradient_is_not_mutated(make):
    layer = make()
    layer(np.random.default_rng(0).standard_normal((2, 3, 4, 9)))
    dy = np.random.default_rng(1).standard_normal((2, 2, 3, 3))
    dy = dy.transpose(0, 3, 1, 2)  # channels-last: the layer gets this very memory
    before = dy.copy()
    layer.backward(dy)
    np.testing.assert_array_equal(dy, before)
