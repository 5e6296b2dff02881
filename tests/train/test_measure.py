"""Measuring a network leaves it as it was."""

import numpy as np
import pytest
from small_trainers import loader, network

from tinycnn.layers import Linear
from tinycnn.losses import CrossEntropyLoss, MSELoss
from tinycnn.train import NonFiniteError, evaluate


def test_evaluate_restores_the_mode_and_keeps_statistics():
    model = network().train()
    model[3].eval()
    before = model.state_dict()
    means = evaluate(model, loader(shuffle=False))
    assert set(means) == {"loss", "accuracy"}
    assert [layer.training for layer in model] == [True, True, True, False, True, True]
    assert [layer.saving for layer in model] == [True, True, True, False, True, True]
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    assert means == evaluate(model.eval(), loader(shuffle=False))


def test_evaluate_without_labels_has_no_accuracy():
    class Same:
        def epoch(self, epoch, start=0):
            yield np.ones((2, 3)), np.zeros((2, 2))

        def __len__(self):
            return 1

    assert set(evaluate(Linear(3, 2).astype(np.float64), Same(), MSELoss())) == {"loss"}


def test_evaluate_raises_rather_than_returning_nan():
    model = network()
    model[1].running_var = np.full(3, np.nan, np.float32)
    with pytest.raises(NonFiniteError, match=r"first non-finite value in the output of 1 \(BatchNorm2d"):
        evaluate(model, loader(shuffle=False))


def test_a_list_of_batches_will_do():
    model, batches = network(), loader(shuffle=False)
    assert evaluate(model, list(batches.epoch(0)), CrossEntropyLoss()) == evaluate(model, batches)
