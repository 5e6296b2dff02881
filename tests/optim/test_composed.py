import copy
import json

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
    return optim.SGD(groups, lr=0.3, momentum=0.9)


def theirs():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))]}, {"params": [torch.nn.Parameter(torch.zeros(2))]}]
    groups[1]["lr"] = 0.02
    return torch.optim.SGD(groups, lr=0.3, momentum=0.9)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def warmup_cosine(o, lib):
    parts = [lib.LinearLR(o, 0.1, total_iters=5), lib.CosineAnnealingLR(o, T_max=50, eta_min=1e-3)]
    return lib.SequentialLR(o, parts, milestones=[5])


def four_parts(o, lib):
    parts = [
        lib.ConstantLR(o, 0.5, total_iters=4),
        lib.ExponentialLR(o, 0.9),
        lib.StepLR(o, 3, 0.5),
        lib.LambdaLR(o, lambda t: 0.8**t),
    ]
    return lib.SequentialLR(o, parts, milestones=[6, 20, 45])


def restarts_last(o, lib):
    parts = [lib.PolynomialLR(o, 10, 2.0), lib.LinearLR(o, 0.25, total_iters=7), lib.MultiStepLR(o, [5, 9])]
    return lib.SequentialLR(o, parts, milestones=[8, 22])


def warm_restarts(o, lib):
    parts = [lib.CosineAnnealingWarmRestarts(o, 4, 2), lib.LinearLR(o), lib.CosineAnnealingWarmRestarts(o, 6)]
    return lib.SequentialLR(o, parts, milestones=[17, 25])


def starts_with_the_second(o, lib):
    return lib.SequentialLR(o, [lib.LinearLR(o, 0.1), lib.LinearLR(o, 0.2)], milestones=[0])


def chain(o, lib):
    return lib.ChainedScheduler([lib.LinearLR(o, 0.1, total_iters=6), lib.ExponentialLR(o, 0.95), lib.StepLR(o, 20)])


def chain_of_sequences(o, lib):
    return lib.ChainedScheduler([warmup_cosine(o, lib), lib.ExponentialLR(o, 0.99)])


COMPOSITIONS = [
    warmup_cosine,
    four_parts,
    restarts_last,
    warm_restarts,
    starts_with_the_second,
    chain,
    chain_of_sequences,
]


@pytest.mark.parametrize("compose", COMPOSITIONS)
def test_sixty_steps_are_pytorchs(compose):
    a, b = ours(), theirs()
    schedule, twin = compose(a, optim), compose(b, reference)
    for _ in range(STEPS):
        np.testing.assert_allclose(rates(a), rates(b), rtol=1e-12)
        np.testing.assert_allclose(schedule.get_last_lr(), twin.get_last_lr(), rtol=1e-12)
        schedule.step()
        twin.step()


def test_warm_up_by_hand():
    a = ours()
    cosine = optim.CosineAnnealingLR(a, 4)
    schedule = optim.SequentialLR(a, [optim.LinearLR(a, 0.5, total_iters=2), cosine], [2])
    got = []
    for _ in range(7):
        got.append(a.param_groups[0]["lr"])
        schedule.step()
    half = np.sqrt(0.5) / 2
    expected = 0.3 * np.array([0.5, 0.75, 1.0, 0.5 + half, 0.5, 0.5 - half, 0.0])
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-16)


def test_a_sequence_in_a_sequence():
    """PyTorch cannot do this one: the inner sequence starts anew at the outer milestone."""
    a = ours()
    inner = optim.SequentialLR(a, [optim.ConstantLR(a, 0.5, 100), optim.ExponentialLR(a, 0.5)], [2])
    outer = optim.SequentialLR(a, [optim.ConstantLR(a, 0.1, 100), inner], [3])
    got = []
    for _ in range(8):
        got.append(a.param_groups[0]["lr"])
        outer.step()
    np.testing.assert_allclose(got, 0.3 * np.array([0.1, 0.1, 0.1, 0.5, 0.5, 1, 0.5, 0.25]), rtol=1e-12)


def test_a_chain_in_a_sequence_restarts_whole():
    a = ours()
    chained = optim.ChainedScheduler([optim.ConstantLR(a, 0.5, 100), optim.ExponentialLR(a, 0.5)])
    schedule = optim.SequentialLR(a, [optim.ConstantLR(a, 0.1, 100), chained], [2])
    got = []
    for _ in range(5):
        got.append(a.param_groups[0]["lr"])
        schedule.step()
    np.testing.assert_allclose(got, 0.3 * np.array([0.1, 0.1, 0.5, 0.25, 0.125]), rtol=1e-12)


@pytest.mark.parametrize("compose", COMPOSITIONS)
@pytest.mark.parametrize("stop", [0, 3, 5, 6, 30])
def test_state_resumes_exactly_through_json(compose, stop):
    whole, first, second = ours(), ours(), ours()
    schedule = compose(whole, optim)
    expected = []
    for _ in range(STEPS):
        schedule.step()
        expected.append(rates(whole))
    schedule = compose(first, optim)
    for _ in range(stop):
        schedule.step()
    saved = json.loads(json.dumps([first.state_dict(), schedule.state_dict()], allow_nan=False))
    schedule = compose(second, optim)
    second.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    for lr in expected[stop:]:
        schedule.step()
        assert rates(second) == lr


def test_a_state_that_does_not_fit_changes_nothing():
    a = ours()
    schedule = warmup_cosine(a, optim)
    before = copy.deepcopy(schedule.state_dict())
    other = ours()
    foreign = optim.SequentialLR(other, [optim.LinearLR(other), optim.StepLR(other, 5)], [5])
    foreign.step()
    for state, message in [
        (foreign.state_dict(), "CosineAnnealingLR: .*StepLR saved it"),
        ({**foreign.state_dict(), "parts": []}, "it has 0 schedules, this one 2"),
        (chain(ours(), optim).state_dict(), "ChainedScheduler saved it"),
    ]:
        with pytest.raises(ValueError, match=message):
            schedule.load_state_dict(state)
    assert schedule.state_dict() == before


def test_parts_that_do_not_belong_together_are_refused():
    a, b = ours(), ours()
    linear, step = optim.LinearLR(a), optim.StepLR(a, 5)
    for make, message in [
        (lambda: optim.SequentialLR(a, [], []), "SequentialLR: schedulers must have at least one entry"),
        (
            lambda: optim.SequentialLR(a, [linear, step], []),
            r"milestones must have 1 entries for 2 schedules, got \[\]",
        ),
        (lambda: optim.SequentialLR(a, [linear, step, step], [5, 3]), "milestones must be in increasing order"),
        (lambda: optim.SequentialLR(b, [linear], []), r"schedule 0 \(LinearLR\) belongs to another optimizer"),
        (lambda: optim.ChainedScheduler([linear, optim.StepLR(b, 5)]), r"schedule 1 \(StepLR\) belongs to another"),
        (lambda: optim.ChainedScheduler([]), "at least one entry"),
        (lambda: optim.ChainedScheduler([linear, optim.ReduceLROnPlateau(a)]), "schedule 1 is a ReduceLROnPlateau"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="schedule 1 is a int, not a schedule"):
        optim.ChainedScheduler([linear, 3])
