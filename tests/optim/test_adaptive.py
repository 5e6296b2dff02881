import numpy as np
import pytest
import torch

from tinycnn.optim import Adadelta, Adagrad, RMSprop
from tinycnn.parameter import Parameter

OPTIONS = [
    (Adagrad, {}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.05}),
    (Adagrad, {"lr": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3, "eps": 1e-3}),
    (RMSprop, {}),
    (RMSprop, {"lr": 0.02, "alpha": 0.9, "eps": 1e-3, "weight_decay": 0.1}),
    (RMSprop, {"momentum": 0.9}),
    (RMSprop, {"centered": True}),
    (RMSprop, {"centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    (Adadelta, {}),
    (Adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-4, "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("ours", "kwargs"), OPTIONS, ids=str)
@pytest.mark.parametrize("group", [None, {"lr": 0.03, "weight_decay": 0.2}], ids=["one group", "two groups"])
def test_fifty_steps_are_pytorchs(compare, ours, kwargs, group):
    assert compare(ours, getattr(torch.optim, ours.__name__), kwargs, group) <= 1e-12


def test_groups_may_differ_in_every_option(compare):
    group = {"centered": True, "momentum": 0.9, "alpha": 0.8, "eps": 1e-5}
    assert compare(RMSprop, torch.optim.RMSprop, {}, group) <= 1e-12


def test_adagrad_fills_each_groups_sum(compare):
    theirs = torch.optim.Adagrad
    # PyTorch fills the sums with the default alone, so the default is what can be compared; the group's own by hand.
    assert compare(Adagrad, theirs, {"initial_accumulator_value": 0.5}, {"lr": 0.1}) <= 1e-12
    p, q = Parameter(np.array([0.0])), Parameter(np.array([0.0]))
    optimizer = Adagrad([{"params": [p]}, {"params": [q], "initial_accumulator_value": 15.0}], lr=1.0)
    p.grad[:] = q.grad[:] = 1.0
    optimizer.step()
    np.testing.assert_allclose([p.data[0], q.data[0]], [-1.0, -0.25], rtol=1e-9)


@pytest.mark.parametrize("ours", [Adagrad, RMSprop, Adadelta])
def test_float32_stays_float32(compare, ours):
    theirs = getattr(torch.optim, ours.__name__)
    assert compare(ours, theirs, {"weight_decay": 0.1}, dtype="float32") <= 1e-5


@pytest.mark.parametrize(
    ("ours", "kwargs"), [(Adagrad, {"lr_decay": 0.1}), (RMSprop, {"momentum": 0.9}), (Adadelta, {})]
)
def test_parameters_frozen_now_and_then_are_pytorchs(compare, ours, kwargs):
    theirs = getattr(torch.optim, ours.__name__)
    assert compare(ours, theirs, kwargs, frozen=lambda step, i: (step + i) % 5 < 2) <= 1e-12


def test_first_steps_by_hand():
    for make, expected in [
        (lambda p: Adagrad(p, lr=0.5), -0.5),  # g/√g²
        (lambda p: RMSprop(p, lr=0.5, alpha=0.75), -1.0),  # g/√(g²/4)
        (lambda p: Adadelta(p, rho=0.75, eps=12.0), -np.sqrt(12 / 16) * 4),  # √(12/(16/4 + 12))·g
    ]:
        p = Parameter(np.array([0.0]))
        optimizer = make([p])
        p.grad[:] = 4.0
        optimizer.step()
        np.testing.assert_allclose(p.data, [expected], rtol=1e-8)


def test_a_constant_gradient_has_no_negative_variance():
    p = Parameter(np.full(1000, 0.0, np.float32))
    optimizer = RMSprop([p], centered=True, lr=1e-12, alpha=0.5)
    p.grad[:] = np.linspace(0.1, 1.0, 1000, dtype=np.float32)
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(p.data).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: Adagrad(p, lr_decay=-1), "Adagrad: lr_decay must be a number of at least 0, got -1"),
        (lambda p: Adagrad(p, initial_accumulator_value=-1), "initial_accumulator_value"),
        (lambda p: Adagrad(p, eps=0), "eps must be a number greater than 0, got 0"),
        (lambda p: RMSprop(p, alpha=1.5), "RMSprop: alpha must lie between 0 and 1, got 1.5"),
        (lambda p: RMSprop(p, momentum=-0.1), "momentum"),
        (lambda p: RMSprop(p, centered="yes"), "centered must be True or False"),
        (lambda p: Adadelta(p, rho=-0.1), "Adadelta: rho must lie between 0 and 1, got -0.1"),
    ],
)
def test_bad_values_are_named(parameters, make, message):
    with pytest.raises(ValueError, match=message):
        make(parameters)
