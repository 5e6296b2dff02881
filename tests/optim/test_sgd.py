import numpy as np
import pytest
import torch

from tinycnn.optim import SGD
from tinycnn.parameter import Parameter

OPTIONS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.05},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05},
]


@pytest.mark.parametrize("kwargs", OPTIONS, ids=str)
@pytest.mark.parametrize("group", [None, {"lr": 0.02, "weight_decay": 0.2}], ids=["one group", "two groups"])
def test_fifty_steps_are_pytorchs(compare, kwargs, group):
    assert compare(SGD, torch.optim.SGD, kwargs, group) <= 1e-12


def test_groups_may_differ_in_momentum(compare):
    group = {"momentum": 0.5, "dampening": 0.1}
    assert compare(SGD, torch.optim.SGD, {"lr": 0.1}, group) <= 1e-12


def test_float32_stays_float32(compare):
    kwargs = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "dampening": 0.1}
    assert compare(SGD, torch.optim.SGD, kwargs, dtype="float32") <= 1e-5


def test_a_parameter_frozen_now_and_then_is_pytorchs(compare):
    kwargs = {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.05}

    def frozen(step, i):
        return (i == 1 and step < 10) or (i == 3 and step % 7 < 3) or (i == 4 and step > 30)

    assert compare(SGD, torch.optim.SGD, kwargs, frozen=frozen) <= 1e-12


def step(optimizer, p, *gradients):
    for g in gradients:
        p.grad[:] = g
        optimizer.step()


def test_plain_step_by_hand():
    p = Parameter(np.array([1.0, -2.0]))
    step(SGD([p], lr=0.5), p, [2.0, 4.0])
    np.testing.assert_array_equal(p.data, [0.0, -4.0])


def test_weight_decay_by_hand():
    p = Parameter(np.array([4.0]))
    step(SGD([p], lr=0.5, weight_decay=0.25), p, [1.0])
    np.testing.assert_array_equal(p.data, [3.0])  # 4 - 0.5·(1 + 0.25·4)


def test_momentum_by_hand():
    p = Parameter(np.array([0.0]))
    # v = 1, 1.5, -0.25; p = -1, -2.5, -2.25
    step(SGD([p], lr=1.0, momentum=0.5), p, [1.0], [1.0], [-1.0])
    np.testing.assert_array_equal(p.data, [-2.25])


def test_dampening_spares_the_first_push_by_hand():
    p = Parameter(np.array([0.0]))
    # v = 1, 0.5·1 + 0.25·1 = 0.75
    step(SGD([p], lr=1.0, momentum=0.5, dampening=0.75), p, [1.0], [1.0])
    np.testing.assert_array_equal(p.data, [-1.75])


def test_nesterov_by_hand():
    p = Parameter(np.array([0.0]))
    # v = 1, d = 1.5; v = 2.5, d = 2 + 1.25
    step(SGD([p], lr=1.0, momentum=0.5, nesterov=True), p, [1.0], [2.0])
    np.testing.assert_array_equal(p.data, [-4.75])


def test_lr_stands_outside_the_velocity():
    p = Parameter(np.array([0.0]))
    optimizer = SGD([p], lr=1.0, momentum=0.5)
    step(optimizer, p, [1.0])
    optimizer.param_groups[0]["lr"] = 0.0
    step(optimizer, p, [1.0])
    np.testing.assert_array_equal(p.data, [-1.0])  # with lr inside, the velocity would carry on to -1.5


def test_momentum_may_be_switched_on_later():
    p, twin = Parameter(np.array([3.0])), torch.nn.Parameter(torch.tensor([3.0], dtype=torch.float64))
    ours = SGD([p], lr=0.1, dampening=0.25)
    theirs = torch.optim.SGD([twin], lr=0.1, dampening=0.25)
    for i in range(6):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0]["momentum"] = 0.9 * (i >= 3)
        p.grad[:] = i + 1
        twin.grad = torch.full((1,), i + 1.0, dtype=torch.float64)
        ours.step()
        theirs.step()
        np.testing.assert_allclose(p.data, twin.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lr": -0.1}, "lr must be a number of at least 0, got -0.1"),
        ({"lr": float("nan")}, "lr must"),
        ({"lr": "0.1"}, "lr must"),
        ({"momentum": -1}, "momentum must be a number of at least 0, got -1"),
        ({"weight_decay": -1e-4}, "weight_decay must"),
        ({"dampening": float("inf")}, "dampening must be a finite number"),
        ({"nesterov": True}, "nesterov needs momentum > 0 and dampening 0, got momentum 0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening 0.1"),
        ({"nesterov": 1, "momentum": 0.9}, "nesterov must be True or False, got 1"),
    ],
)
def test_bad_values_are_named(parameters, kwargs, message):
    with pytest.raises(ValueError, match=f"SGD: .*{message}"):
        SGD(parameters, **kwargs)


def test_a_group_cannot_ask_for_nesterov_without_momentum(parameters):
    with pytest.raises(ValueError, match="nesterov needs momentum"):
        SGD([{"params": parameters, "nesterov": True}], lr=0.1)
