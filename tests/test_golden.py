"""Golden runs: the same weights and the same batches, here and in PyTorch, for ten steps of training.

Losses and every named gradient agree in float64 at each step.
"""

import numpy as np
import pytest
import reference
import torch
from helpers import relative_error

from tinycnn import CrossEntropyLoss, models, optim

STEPS = 10


def agree(ours, theirs, shape, optimizer, optimizer_torch, steps=STEPS):
    """Train both, and return the largest relative errors of losses and of gradients."""
    rng = np.random.default_rng(0)
    loss_fn = CrossEntropyLoss()
    worst = {"loss": 0.0, "gradient": 0.0}
    for _ in range(steps):
        x = rng.standard_normal(shape)
        labels = rng.integers(0, 10, shape[0])
        ours.zero_grad()
        loss, dlogits = loss_fn(ours(x), labels)
        ours.backward(dlogits)
        optimizer_torch.zero_grad()
        loss_torch = torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(labels))
        loss_torch.backward()
        worst["loss"] = max(worst["loss"], abs(float(loss) - loss_torch.item()) / loss_torch.item())
        wanted = reference.gradients(theirs)
        assert list(wanted) == [name for name, _ in ours.named_parameters()]
        for name, p in ours.named_parameters():
            worst["gradient"] = max(worst["gradient"], relative_error(p.grad, wanted[name]))
        optimizer.step()
        optimizer_torch.step()
    return worst


@pytest.mark.parametrize("name", ["lenet5", "resnet20"])
def test_ten_steps_are_pytorchs(name):
    ours = models.create(name, seed=1).astype(np.float64)
    theirs = reference.load((reference.LeNet5() if name == "lenet5" else reference.ResNetCifar(20)).double(), ours)
    settings = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4}
    worst = agree(
        ours,
        theirs,
        (8, 1, 32, 32) if name == "lenet5" else (8, 3, 32, 32),
        optim.SGD(ours.parameters(), **settings),
        torch.optim.SGD(theirs.parameters(), **settings),
    )
    assert worst["loss"] < 1e-9
    assert worst["gradient"] < 1e-9
