"""What layers with running statistics share."""

import numpy as np

from tinycnn import BatchNorm2d
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


def test_a_subclass_with_other_arguments_has_a_name_of_its_own():
    class Bare(BatchNorm2d):
        def __init__(self, channels, **others):
            super().__init__(channels, eps=1e-3)

    class Momentum(Bare):
        def __init__(self, momentum=0.5):
            super().__init__(4)
            self.momentum = momentum

    assert repr(BatchNorm2d(3)) == "BatchNorm2d(3)"
    assert repr(BatchNorm2d(3, eps=1e-3, momentum=None)) == "BatchNorm2d(3, eps=0.001, momentum=None)"
    assert repr(Bare(3)) == "Bare(3, eps=0.001)"
    assert repr(Momentum()) == "Momentum(4, eps=0.001, momentum=0.5)"


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
