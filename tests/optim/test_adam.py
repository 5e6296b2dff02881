import numpy as np
import pytest
import torch

from tinycnn.optim import Adam, Adamax, AdamW, NAdam, RAdam
from tinycnn.parameter import Parameter

FAMILY = [Adam, AdamW, Adamax, NAdam, RAdam]
OPTIONS = [
    (Adam, {}),
    (Adam, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (Adam, {"amsgrad": True}),
    (Adam, {"amsgrad": True, "betas": (0.0, 0.5), "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (AdamW, {}),
    (AdamW, {"lr": 0.05, "weight_decay": 0.3}),
    (AdamW, {"amsgrad": True, "eps": 1e-4}),
    (Adamax, {}),
    (Adamax, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (NAdam, {}),
    (NAdam, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1, "momentum_decay": 0.1}),
    (NAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    (RAdam, {}),
    (RAdam, {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (RAdam, {"betas": (0.9, 0.5)}),
    (RAdam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
]


@pytest.mark.parametrize(("ours", "kwargs"), OPTIONS, ids=str)
@pytest.mark.parametrize("group", [None, {"lr": 0.03, "weight_decay": 0.2}], ids=["one group", "two groups"])
def test_fifty_steps_are_pytorchs(compare, ours, kwargs, group):
    assert compare(ours, getattr(torch.optim, ours.__name__), kwargs, group) <= 1e-12


def test_groups_may_differ_in_every_option(compare):
    group = {"amsgrad": True, "betas": (0.5, 0.7), "eps": 1e-5}
    assert compare(Adam, torch.optim.Adam, {}, group) <= 1e-12


@pytest.mark.parametrize("ours", FAMILY)
def test_float32_stays_float32(compare, ours):
    theirs = getattr(torch.optim, ours.__name__)
    assert compare(ours, theirs, {"weight_decay": 0.1}, dtype="float32") <= 1e-5


@pytest.mark.parametrize("ours", FAMILY)
def test_a_thawed_parameter_starts_with_its_own_t(compare, ours):
    def frozen(step, i):
        return (i == 0 and step < 20) or (i in (2, 3) and 5 <= step < 12) or (i == 4 and step % 2 == 1)

    theirs = getattr(torch.optim, ours.__name__)
    assert compare(ours, theirs, {"weight_decay": 0.1}, frozen=frozen) <= 1e-12


@pytest.mark.parametrize("ours", [Adam, AdamW, Adamax])
def test_the_first_step_is_lr_whatever_the_gradient(ours):
    p = Parameter(np.array([1.0, 1.0, 1.0]))
    optimizer = ours([p], lr=0.25, eps=1e-12, weight_decay=0)
    p.grad[:] = [3.0, -1e-3, 1e4]
    optimizer.step()
    np.testing.assert_allclose(p.data, [0.75, 1.25, 0.75], rtol=1e-8)


def test_adamw_decays_apart_from_the_gradient():
    p = Parameter(np.array([2.0]))
    AdamW([p], lr=0.1, weight_decay=0.5).step()
    np.testing.assert_array_equal(p.data, [2.0 * (1 - 0.1 * 0.5)])


def test_radam_starts_with_five_plain_steps():
    p = Parameter(np.array([0.0]))
    optimizer = RAdam([p], lr=1.0)
    moves = []
    for _ in range(6):
        before = p.data[0]
        p.grad[:] = 100.0
        optimizer.step()
        moves.append(before - p.data[0])
    np.testing.assert_allclose(moves[:5], 100.0)
    assert 0 < moves[5] < 1


@pytest.mark.parametrize("ours", FAMILY)
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers, each at least 0 and less than 1, got \(0.9, 1.0\)"),
        ({"betas": (-0.1, 0.9)}, "betas must"),
        ({"betas": 0.9}, "betas must"),
        ({"betas": (0.9,)}, "betas must"),
        ({"eps": 0.0}, "eps must be a number greater than 0, got 0.0"),
        ({"lr": -1.0}, "lr must"),
        ({"weight_decay": -1.0}, "weight_decay must"),
    ],
)
def test_bad_values_are_named(parameters, ours, kwargs, message):
    with pytest.raises(ValueError, match=f"{ours.__name__}: {message}"):
        ours(parameters, **kwargs)


def test_bad_values_of_one_optimizer_alone(parameters):
    with pytest.raises(ValueError, match="NAdam: momentum_decay"):
        NAdam(parameters, momentum_decay=-1)
    with pytest.raises(ValueError, match="Adam: amsgrad must be True or False"):
        Adam(parameters, amsgrad=0)
