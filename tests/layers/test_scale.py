"""Multiplication by a constant, and the residual block that needs it."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, is_channels_last, like_torch

from tinycnn import Conv2d, Residual, Scale, Sequential
from tinycnn.layers.base import LayerError


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (4, 7), (1, 2, 1, 1)])
@pytest.mark.parametrize("factor", [0.17, -2, np.float32(0.5), 0.0])
def test_by_hand(shape, factor):
    layer = Scale(factor)
    x, dy = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    y = layer(x)
    np.testing.assert_array_equal(y, np.float32(factor) * x)
    assert is_channels_last(y)
    np.testing.assert_array_equal(layer.backward(dy), np.float32(factor) * dy)


def test_a_scaled_residual_is_pytorchs():
    class Theirs(torch.nn.Conv2d):
        def forward(self, x):
            return x + 0.1 * super().forward(x)

    ours = Residual(Sequential({"": Conv2d(3, 3, 3, padding=1), "scale": Scale(0.1)}))
    layer, module = like_torch(ours, Theirs(3, 3, 3, padding=1))
    assert_step_is_torchs(layer, module, np.random.default_rng(0).standard_normal((2, 3, 5, 4)))


def test_the_input_is_not_kept():
    layer = Scale(0.5)
    layer(np.ones((2, 3, 4, 5)))
    assert layer._saved == ((2, 3, 4, 5),)


@pytest.mark.parametrize("bad", [np.nan, np.inf, "0.1", None])
def test_bad_factors_are_named(bad):
    with pytest.raises(LayerError, match="factor must be a finite number, got"):
        Scale(bad)


def test_its_repr_says_the_factor():
    assert repr(Scale(0.17)) == "Scale(0.17)"
