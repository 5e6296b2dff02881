"""What layers with running statistics share."""

import numpy as np

from tinycnn.layers.running import RunningNorm, sinks


def test_running_statistics_are_there_if_tracked():
    layer = RunningNorm(3, 1e-5, 0.1, affine=True, track_running_stats=True, dtype=np.float32)
    running = layer.running
    assert running.mean is layer.running_mean
    assert running.var is layer.running_var
    assert running.count is layer.num_batches_tracked
    assert layer.measures
    assert not layer.eval().measures
    without = RunningNorm(3, 1e-5, 0.1, affine=True, track_running_stats=False, dtype=np.float32).eval()
    assert without.running is None
    assert without.measures


def test_gradients_go_where_the_parameters_say():
    layer = RunningNorm(3, 1e-5, 0.1, affine=True, track_running_stats=False, dtype=np.float32)
    layer.weight.requires_grad = False
    layer.zero_grad()
    nowhere, (grad, add) = sinks(layer.weight, layer.bias)
    assert nowhere is None
    assert grad is layer.bias.grad
    assert not add
    assert sinks(layer.weight, layer.bias)[1][1]
    assert sinks(None, None) == (None, None)
