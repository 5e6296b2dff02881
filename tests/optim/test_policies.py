import copy
import json
import math

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as reference

from tinycnn import optim
from tinycnn.parameter import Parameter

STEPS = 60
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of:UserWarning")  # PyTorch wants an optimizer step first


def pair(name="SGD", **kwargs):
    """Our optimizer and PyTorch's, two groups each."""
    optimizers = []
    for lib, make in ((optim, lambda n: Parameter(np.ones(2), n)), (torch.optim, lambda n: torch.nn.Parameter(ones()))):
        groups = [{"params": [make("a")]}, {"params": [make("b")], "lr": 0.02}]
        optimizers.append(getattr(lib, name)(groups, lr=0.3, **kwargs))
    return optimizers


def ones():
    return torch.ones(2, dtype=torch.float64)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def momenta(optimizer):
    return [group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]


CYCLES = [
    {"max_lr": 0.5, "total_steps": STEPS},
    {"max_lr": [0.5, 0.1], "epochs": 6, "steps_per_epoch": 10, "anneal_strategy": "linear"},
    {"max_lr": 0.5, "total_steps": STEPS, "three_phase": True, "pct_start": 0.25},
    {"max_lr": 0.5, "total_steps": STEPS, "pct_start": 0.01, "div_factor": 10.0, "final_div_factor": 100.0},
    {"max_lr": 0.5, "total_steps": STEPS, "base_momentum": [0.5, 0.6], "max_momentum": [0.9, 0.8]},
    {"max_lr": 0.5, "total_steps": STEPS, "cycle_momentum": False, "three_phase": True, "anneal_strategy": "linear"},
]


@pytest.mark.parametrize("kwargs", CYCLES, ids=str)
@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_one_cycle_is_pytorchs(name, kwargs):
    a, b = pair(name)
    schedule, twin = optim.OneCycleLR(a, **kwargs), reference.OneCycleLR(b, **kwargs)
    for t in range(STEPS + 1):
        np.testing.assert_allclose(rates(a), rates(b), rtol=1e-12)
        np.testing.assert_allclose(momenta(a), momenta(b), rtol=1e-12)
        assert schedule.last_epoch == t
        if t < STEPS:
            schedule.step()
            twin.step()
    with pytest.raises(ValueError, match="OneCycleLR: step 61 is beyond total_steps=60"):
        schedule.step()


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_training_through_a_cycle_is_pytorchs(name):
    a, b = pair(name)
    schedule = optim.OneCycleLR(a, 0.5, total_steps=50)
    twin = reference.OneCycleLR(b, 0.5, total_steps=50)
    rng = np.random.default_rng(0)
    for _ in range(50):
        for mine, other in zip(a.param_groups, b.param_groups, strict=True):
            mine["params"][0].grad[:] = rng.normal(size=2)
            other["params"][0].grad = torch.tensor(mine["params"][0].grad)
        for thing in (a, b, schedule, twin):
            thing.step()
    for mine, other in zip(a.param_groups, b.param_groups, strict=True):
        np.testing.assert_allclose(mine["params"][0].data, other["params"][0].detach().numpy(), rtol=1e-12)


def test_one_cycle_by_hand():
    (a, _) = pair()
    schedule = optim.OneCycleLR(a, 1.0, total_steps=11, pct_start=6 / 11, div_factor=10.0, final_div_factor=100.0)
    seen = []
    for _ in range(11):
        seen.append((a.param_groups[0]["lr"], a.param_groups[0]["momentum"]))
        schedule.step()
    np.testing.assert_allclose([seen[0], seen[5], seen[10]], [(0.1, 0.95), (1.0, 0.85), (0.001, 0.95)], rtol=1e-12)


def test_a_cycle_whose_first_phase_is_one_step():
    (a, _) = pair()
    optim.OneCycleLR(a, 1.0, total_steps=10, pct_start=0.1)  # the top is at t = 0: PyTorch divides 0 by 0
    assert rates(a) == [1.0, 1.0]


@pytest.mark.parametrize("kwargs", CYCLES, ids=str)
def test_one_cycle_resumes_exactly_through_json(kwargs):
    whole, first, second = (pair("AdamW")[0] for _ in range(3))
    schedule = optim.OneCycleLR(whole, **kwargs)
    expected = []
    for _ in range(STEPS):
        schedule.step()
        expected.append((rates(whole), momenta(whole)))
    schedule = optim.OneCycleLR(first, **kwargs)
    for _ in range(23):
        schedule.step()
    saved = json.loads(json.dumps([optim.split_state(first.state_dict())[1], schedule.state_dict()], allow_nan=False))
    schedule = optim.OneCycleLR(second, **kwargs)
    second.load_state_dict({**second.state_dict(), **saved[0]})
    schedule.load_state_dict(saved[1])
    for before in expected[23:]:
        schedule.step()
        assert (rates(second), momenta(second)) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: optim.OneCycleLR(o, 0.1), "OneCycleLR: epochs must be a whole number of at least 1, got None"),
        (lambda o: optim.OneCycleLR(o, 0.1, 0), "total_steps must be a whole number of at least 1, got 0"),
        (lambda o: optim.OneCycleLR(o, [0.1], 10), "max_lr must have one entry for each of the 2 groups"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, pct_start=2), "pct_start must lie between 0 and 1"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, anneal_strategy="exp"), "anneal_strategy must be 'cos' or 'linear'"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, div_factor=0), "div_factor must be greater than 0"),
        (lambda o: optim.OneCycleLR(o, 0.1, 10, final_div_factor=0), "final_div_factor must be greater than 0"),
        (lambda o: optim.ReduceLROnPlateau(o, "low"), "ReduceLROnPlateau: mode must be 'min' or 'max', got 'low'"),
        (lambda o: optim.ReduceLROnPlateau(o, threshold_mode="x"), "threshold_mode must be 'rel' or 'abs'"),
        (lambda o: optim.ReduceLROnPlateau(o, factor=1.0), "factor must be at least 0 and less than 1, got 1.0"),
        (lambda o: optim.ReduceLROnPlateau(o, patience=-1), "patience must be at least 0"),
        (lambda o: optim.ReduceLROnPlateau(o, cooldown=-1), "cooldown must be at least 0"),
        (lambda o: optim.ReduceLROnPlateau(o, min_lr=[0.1]), "min_lr must have 2 entries"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(pair()[0])


def test_momentum_cannot_cycle_where_there_is_none():
    optimizer = optim.Adagrad([Parameter(np.zeros(2))])
    with pytest.raises(ValueError, match="Adagrad has neither momentum nor betas: pass cycle_momentum=False"):
        optim.OneCycleLR(optimizer, 0.1, 10)
    optim.OneCycleLR(optimizer, 0.1, 10, cycle_momentum=False)
    with pytest.raises(TypeError, match="ReduceLROnPlateau: expected an optimizer first"):
        optim.ReduceLROnPlateau([])


PLATEAUS = [
    {},
    {"patience": 2},
    {"patience": 0, "factor": 0.5, "cooldown": 3},
    {"mode": "max", "patience": 1, "threshold": 0.05},
    {"mode": "max", "patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
    {"patience": 1, "threshold": 0.1, "threshold_mode": "abs", "min_lr": [1e-3, 1e-2]},
    {"patience": 0, "min_lr": 1e-4, "eps": 1e-3},
]


def metrics(seed):
    rng = np.random.default_rng(seed)
    return rng.normal(size=STEPS).cumsum() + 2.0 if seed % 2 else np.exp(-np.arange(STEPS) / 9) + rng.random(STEPS) / 9


@pytest.mark.parametrize("kwargs", PLATEAUS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_plateau_is_pytorchs(kwargs, seed):
    a, b = pair()
    schedule, twin = optim.ReduceLROnPlateau(a, **kwargs), reference.ReduceLROnPlateau(b, **kwargs)
    for i, metric in enumerate(metrics(seed)):
        metric = math.nan if i in (7, 8) else metric
        schedule.step(metric)
        twin.step(metric)
        np.testing.assert_allclose(rates(a), rates(b), rtol=1e-12)
        assert schedule.num_bad_epochs == twin.num_bad_epochs
        assert schedule.last_epoch == twin.last_epoch
        assert schedule.get_last_lr() == rates(a)


def test_plateau_acts_when_bad_epochs_exceed_patience():
    (a, _) = pair()
    schedule = optim.ReduceLROnPlateau(a, patience=2, threshold=0)  # as good as the best is not better
    seen = []
    for metric in [1.0, 1.0, 1.0, 1.0, 1.0]:
        schedule.step(metric)
        seen.append(a.param_groups[0]["lr"])
    np.testing.assert_allclose(seen, [0.3, 0.3, 0.3, 0.03, 0.03])


@pytest.mark.parametrize("stop", [0, 1, 23])
def test_plateau_resumes_exactly_through_json(stop):
    kwargs = {"patience": 1, "cooldown": 2}
    whole, first, second = (pair()[0] for _ in range(3))
    schedule = optim.ReduceLROnPlateau(whole, **kwargs)
    for metric in metrics(1):
        schedule.step(metric)
    schedule = optim.ReduceLROnPlateau(first, **kwargs)
    for metric in metrics(1)[:stop]:
        schedule.step(metric)
    saved = json.loads(json.dumps([first.state_dict(), schedule.state_dict()], allow_nan=False))
    schedule = optim.ReduceLROnPlateau(second, **kwargs)
    second.load_state_dict(saved[0])
    schedule.load_state_dict(saved[1])
    for metric in metrics(1)[stop:]:
        schedule.step(metric)
    assert rates(second) == rates(whole)


def test_a_plateau_state_that_does_not_fit_changes_nothing():
    (a, _) = pair()
    schedule = optim.ReduceLROnPlateau(a)
    before = copy.deepcopy(schedule.state_dict())
    for state, message in [
        ({}, "no schedule saved it"),
        (optim.StepLR(a, 5).state_dict(), "StepLR saved it"),
        ({**before, "min_lrs": [0]}, "for 1 groups, not 2"),
    ]:
        with pytest.raises(ValueError, match=f"ReduceLROnPlateau: the state does not fit: .*{message}"):
            schedule.load_state_dict(state)
    assert schedule.state_dict() == before
