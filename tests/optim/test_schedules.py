import copy
import json
import math
import re

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as reference

from tinycnn import optim
from tinycnn.parameter import Parameter

STEPS = 60
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # PyTorch wants an optimizer step first


def ours():
    groups = [{"params": [Parameter(np.zeros(2), "a")]}, {"params": [Parameter(np.zeros(2), "b")], "lr": 0.02}]
    return optim.SGD(groups, lr=0.3)


def theirs():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}, {"params": [torch.nn.Parameter(torch.zeros(2))]}]
    groups[1]["lr"] = 0.02
    return torch.optim.SGD(groups, lr=0.3)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def assert_close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-18)


def words(arguments):
    """Them as the name of a test, which must be the same in every process."""
    return re.sub(r"<function <lambda> at \w+>", "λ", str(arguments))


SCHEDULES = [
    ("ConstantLR", {}),
    ("ConstantLR", {"factor": 0.2, "total_iters": 20}),
    ("LinearLR", {}),
    ("LinearLR", {"start_factor": 0.01, "total_iters": 30}),
    ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 20}),
    ("StepLR", {"step_size": 7}),
    ("StepLR", {"step_size": 1, "gamma": 0.9}),
    ("MultiStepLR", {"milestones": [10, 30, 31]}),
    ("MultiStepLR", {"milestones": (30, 30, 5), "gamma": 0.5}),
    ("ExponentialLR", {"gamma": 0.93}),
    ("ExponentialLR", {"gamma": 1.02}),
    ("PolynomialLR", {}),
    ("PolynomialLR", {"total_iters": 40, "power": 2.5}),
    ("PolynomialLR", {"total_iters": 80, "power": 0.9}),
    ("CosineAnnealingLR", {"T_max": 60}),
    ("CosineAnnealingLR", {"T_max": 60, "eta_min": 0.01}),
    ("CosineAnnealingLR", {"T_max": 9, "eta_min": 1e-3}),
    ("CosineAnnealingLR", {"T_max": 1}),
    ("CosineAnnealingWarmRestarts", {"T_0": 11}),
    ("CosineAnnealingWarmRestarts", {"T_0": 1, "T_mult": 3, "eta_min": 0.001}),
    ("CosineAnnealingWarmRestarts", {"T_0": 7, "T_mult": 2}),
    ("LambdaLR", {"lr_lambda": lambda t: 1 / (1 + t) ** 0.5}),
    ("LambdaLR", {"lr_lambda": [lambda t: 0.95**t, lambda t: 2 + math.cos(t)]}),
]


@pytest.mark.parametrize(("name", "kwargs"), SCHEDULES, ids=words)
def test_sixty_steps_are_pytorchs(name, kwargs):
    a, b = ours(), theirs()
    schedule, twin = getattr(optim, name)(a, **kwargs), getattr(reference, name)(b, **kwargs)
    for t in range(STEPS):
        assert schedule.last_epoch == twin.last_epoch == t
        assert_close(rates(a), rates(b))
        assert schedule.get_last_lr() == rates(a)
        schedule.step()
        twin.step()
    assert_close(schedule.get_last_lr(), twin.get_last_lr())
    assert [g["initial_lr"] for g in a.param_groups] == [0.3, 0.02]


def test_inverse_time_decay():
    a = ours()
    schedule = optim.InverseTimeDecay(a, decay=0.25)
    for t in range(STEPS):
        assert_close(rates(a), [0.3 / (1 + 0.25 * t), 0.02 / (1 + 0.25 * t)])
        schedule.step()


@pytest.mark.parametrize(
    "pair",
    [
        [("ExponentialLR", {"gamma": 0.95}), ("StepLR", {"step_size": 10})],
        [("LinearLR", {"total_iters": 8}), ("MultiStepLR", {"milestones": [20, 40]})],
        [("CosineAnnealingLR", {"T_max": 20, "eta_min": 0.01}), ("ExponentialLR", {"gamma": 0.99})],
        [("ConstantLR", {}), ("PolynomialLR", {"total_iters": 50, "power": 2.0})],
        [("LambdaLR", {"lr_lambda": lambda t: 0.9**t}), ("LinearLR", {"total_iters": 20})],
    ],
    ids=words,
)
def test_two_schedules_on_one_optimizer_are_pytorchs(pair):
    a, b = ours(), theirs()
    both = [(getattr(optim, name)(a, **kwargs), getattr(reference, name)(b, **kwargs)) for name, kwargs in pair]
    for _ in range(STEPS):
        assert_close(rates(a), rates(b))
        for schedule, twin in both:
            schedule.step()
            twin.step()
            assert_close(schedule.get_last_lr(), twin.get_last_lr())


def test_a_change_of_lr_by_hand_is_respected_as_pytorch_does():
    a, b = ours(), theirs()
    schedule, twin = optim.ExponentialLR(a, 0.9), reference.ExponentialLR(b, 0.9)
    for t in range(20):
        if t == 5:
            a.param_groups[0]["lr"] = b.param_groups[0]["lr"] = 1.0
        schedule.step()
        twin.step()
        assert_close(rates(a), rates(b))


@pytest.mark.parametrize(("name", "kwargs"), SCHEDULES, ids=words)
def test_state_resumes_exactly_through_json(name, kwargs):
    whole, first, second = ours(), ours(), ours()
    schedule = getattr(optim, name)(whole, **kwargs)
    expected = []
    for _ in range(STEPS):
        schedule.step()
        expected.append(rates(whole))

    schedule = getattr(optim, name)(first, **kwargs)
    for _ in range(23):
        schedule.step()
    saved = json.loads(json.dumps([first.state_dict(), schedule.state_dict()], allow_nan=False))
    schedule = getattr(optim, name)(second, **kwargs)
    second.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    got = []
    for _ in range(23, STEPS):
        schedule.step()
        got.append(rates(second))
    assert got == expected[23:]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("ExponentialLR", {"gamma": 0.9}),
        ("LinearLR", {"total_iters": 30}),
        ("CosineAnnealingLR", {"T_max": 40}),
        ("PolynomialLR", {"total_iters": 40}),
        ("StepLR", {"step_size": 5}),
        ("LambdaLR", {"lr_lambda": lambda t: 1 / (1 + t)}),
        ("CosineAnnealingWarmRestarts", {"T_0": 6}),
    ],
)
def test_last_epoch_resumes(name, kwargs):
    """Twelve steps, then a new schedule on the same optimizer, are the same as going on."""
    a, b = ours(), theirs()
    schedule, twin = getattr(optim, name)(a, **kwargs), getattr(reference, name)(b, **kwargs)
    for _ in range(12):
        schedule.step()
        twin.step()
    schedule = getattr(optim, name)(a, **kwargs, last_epoch=11)
    twin = getattr(reference, name)(b, **kwargs, last_epoch=11)
    for t in range(12, 40):
        assert schedule.last_epoch == twin.last_epoch == t
        assert_close(rates(a), rates(b))
        schedule.step()
        twin.step()


def test_warm_restarts_take_fractions_of_an_epoch():
    a, b = ours(), theirs()
    schedule = optim.CosineAnnealingWarmRestarts(a, 5, 2)
    twin = reference.CosineAnnealingWarmRestarts(b, 5, 2)
    for i in range(160):
        schedule.step(i / 8)
        twin.step(i / 8)
        assert schedule.last_epoch == twin.last_epoch
        assert_close(rates(a), rates(b))


def test_restart_begins_again():
    a = ours()
    schedule = optim.LinearLR(a, 0.5, total_iters=3)
    first = [rates(a)]
    for _ in range(5):
        schedule.step()
        first.append(rates(a))
    schedule.restart()
    for expected in first:
        assert rates(a) == expected
        schedule.step()


def test_lr_stays_0_once_it_is_0():
    a = ours()
    for schedule in (optim.PolynomialLR(a, 2), optim.ExponentialLR(ours(), 1e-200)):
        for _ in range(5):
            schedule.step()
        assert schedule.get_last_lr() == [0.0, 0.0]


def test_schedules_write_python_floats():
    a = ours()
    optim.LambdaLR(a, lambda t: np.float64(0.5))
    assert all(type(lr) is float for lr in rates(a))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.StepLR(o, 0), "StepLR: step_size must be a whole number of at least 1, got 0"),
        (lambda o: optim.StepLR(o, 2.5), "step_size must be a whole number"),
        (lambda o: optim.StepLR(o, 5, gamma=0), "gamma must be greater than 0"),
        (lambda o: optim.MultiStepLR(o, [3], gamma=-1), "MultiStepLR: gamma"),
        (lambda o: optim.ExponentialLR(o, math.nan), "gamma must be greater than 0, got nan"),
        (lambda o: optim.InverseTimeDecay(o, -1), "decay must be at least 0"),
        (lambda o: optim.ConstantLR(o, 0), "factor must be greater than 0 and at most 1, got 0"),
        (lambda o: optim.ConstantLR(o, total_iters=0), "total_iters"),
        (lambda o: optim.LinearLR(o, 0), "start_factor must be greater than 0 and at most 1, got 0"),
        (lambda o: optim.LinearLR(o, 0.5, 2), "end_factor must lie between 0 and 1, got 2"),
        (lambda o: optim.PolynomialLR(o, 0), "total_iters"),
        (lambda o: optim.PolynomialLR(o, 5, -1), "power must be at least 0"),
        (lambda o: optim.CosineAnnealingLR(o, 0), "T_max"),
        (lambda o: optim.CosineAnnealingWarmRestarts(o, 0), "T_0"),
        (lambda o: optim.CosineAnnealingWarmRestarts(o, 1, 0), "T_mult"),
        (lambda o: optim.CosineAnnealingWarmRestarts(o, 1).step(-1), "epoch must be at least 0, got -1"),
        (lambda o: optim.LambdaLR(o, [abs]), "lr_lambda must have one entry for each of the 2 groups"),
        (lambda o: optim.ExponentialLR(o, 0.9, last_epoch=3), "group 0 has no 'initial_lr'"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(ours())


def test_a_schedule_needs_an_optimizer():
    with pytest.raises(TypeError, match="StepLR: expected an optimizer first, got a list"):
        optim.StepLR([], 5)
    with pytest.raises(TypeError, match="LRScheduler must define factor or get_lr"):
        optim.LRScheduler(ours())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {}, "no schedule saved it"),
        (lambda s: {**s, "schedule": "StepLR"}, "StepLR saved it"),
        (lambda s: {k: v for k, v in s.items() if k != "gamma"}, "'gamma' is missing"),
        (lambda s: {**s, "optimizer": 1}, "'optimizer' is unknown"),
        (lambda s: {**s, "base_lrs": [0.1]}, "for 1 groups, not 2"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    schedule = optim.ExponentialLR(ours(), 0.9)
    before = copy.deepcopy(schedule.state_dict())
    with pytest.raises(ValueError, match=f"ExponentialLR: the state does not fit: .*{message}"):
        schedule.load_state_dict(spoil(schedule.state_dict()))
    assert schedule.state_dict() == before
