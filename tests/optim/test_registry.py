import itertools

import numpy as np
import pytest

from tinycnn import optim
from tinycnn.parameter import Parameter


@pytest.fixture
def optimizer(parameters):
    return optim.SGD(parameters, lr=0.2, momentum=0.9)


def rates(schedule, steps):
    """lr at t = 0, 1, …, steps."""
    seen = schedule.get_last_lr()[:1]
    for _ in range(steps):
        schedule.step()
        seen += schedule.get_last_lr()[:1]
    return seen


def test_every_name_makes_its_optimizer():
    kinds = {n: type(optim.create(n, [Parameter(np.zeros(2))], lr=0.1)).__name__.lower() for n in optim.names()}
    own = {"momentum": "sgd", "nesterov": "sgd"}
    assert kinds == {n: own.get(n, n) for n in optim.names()}
    assert set(optim.names()) == {
        *("sgd", "momentum", "nesterov", "adagrad", "adadelta", "rmsprop"),
        *("adam", "adamw", "adamax", "nadam", "radam"),
    }


def test_momentum_and_nesterov_are_sgd_with_a_momentum(parameters):
    assert optim.create("sgd", parameters).defaults["momentum"] == 0
    assert optim.create("momentum", parameters).defaults["momentum"] == 0.9
    nesterov = optim.create("nesterov", parameters, momentum=0.8).defaults
    assert (nesterov["nesterov"], nesterov["momentum"]) == (True, 0.8)


def test_hyperparameters_have_their_defaults():
    assert optim.hyperparameters("adamw")["weight_decay"] == 1e-2
    assert optim.hyperparameters("nesterov")["momentum"] == 0.9
    assert "momentum" not in optim.hyperparameters("adam")
    assert "params" not in optim.hyperparameters("sgd")


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda p: optim.create("adamm", p), "unknown optimizer 'adamm'; did you mean 'adam'"),
        (lambda p: optim.create("?", p), r"unknown optimizer '\?' \(known: sgd, "),
        (lambda p: optim.hyperparameters("sdg"), "did you mean 'sgd'"),
        (
            lambda p: optim.create("adam", p, momentum=0.9),
            r"'adam' takes no 'momentum'.* \(it takes lr, betas",
        ),
        (lambda p: optim.create("adam", p, lr=-1), "Adam: lr must"),
        (lambda p: optim.create_schedule("cosin", optim.SGD(p), 9), "unknown schedule 'cosin'; did you mean 'cosine'"),
        (lambda p: optim.create_schedule("cosine", optim.SGD(p), 9, eta=1), "takes no 'eta'; did you mean 'eta_min'"),
        (lambda p: optim.create_schedule("none", optim.SGD(p), 9, eta=1), r"takes no 'eta' \(it takes nothing\)"),
        (lambda p: optim.create_schedule("cosine", optim.SGD(p), 0), "total must be at least 1, got 0"),
        (lambda p: optim.create_schedule("cosine", optim.SGD(p), 9, warmup=9), "less than total=9, got 9"),
        (lambda p: optim.create_schedule("onecycle", optim.SGD(p), 9, warmup=1), "cannot have a warmup of 1"),
    ],
)
def test_what_is_unknown_is_refused(parameters, use, message):
    with pytest.raises(ValueError, match=message):
        use(parameters)


@pytest.mark.parametrize("name", ["step", "multistep"])
def test_step_drops_at_half_and_three_quarters(optimizer, name):
    seen = rates(optim.create_schedule(name, optimizer, 200), 200)
    for t, lr in [(0, 0.2), (99, 0.2), (100, 0.02), (149, 0.02), (150, 0.002), (200, 0.002)]:
        assert seen[t] == pytest.approx(lr)


def test_step_and_milestones_can_be_given(optimizer):
    steps = optim.create_schedule("step", optimizer, 20, step_size=3, gamma=0.5)
    assert rates(steps, 6) == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05])
    optimizer.param_groups[0]["lr"] = 0.2
    milestones = optim.create_schedule("multistep", optimizer, 20, milestones=[1, 2])
    assert rates(milestones, 2) == pytest.approx([0.2, 0.02, 0.002])


@pytest.mark.parametrize(
    ("name", "end"),
    [("none", 1.0), ("exponential", 0.01), ("inverse-time", 0.1), ("polynomial", 0.0), ("cosine", 0.0)],
)
def test_where_the_others_end(optimizer, name, end):
    seen = rates(optim.create_schedule(name, optimizer, 40), 40)
    assert seen[0] == 0.2
    assert seen[-1] == pytest.approx(0.2 * end, abs=1e-12)
    assert all(a >= b for a, b in itertools.pairwise(seen))


def test_one_cycle_has_the_optimizers_lr_as_its_top(optimizer):
    seen = rates(optim.create_schedule("onecycle", optimizer, 50), 49)
    assert seen[0] == pytest.approx(0.2 / 25)
    assert max(seen) == seen[14] == pytest.approx(0.2)
    assert seen[-1] == pytest.approx(0.2 / 25e4)
    adagrad = optim.Adagrad([Parameter(np.zeros(2))])
    assert not optim.create_schedule("onecycle", adagrad, 50).cycle_momentum


def test_plateau_waits_a_tenth_of_the_training(optimizer):
    assert optim.create_schedule("plateau", optimizer, 50).patience == 5
    assert optim.create_schedule("plateau", optimizer, 5).patience == 1
    assert optim.create_schedule("plateau", optimizer, 5, patience=0, mode="max").mode == "max"


def test_warmup_comes_first(optimizer):
    seen = rates(optim.create_schedule("cosine", optimizer, 14, warmup=4), 14)
    line = [0.2 * (0.01 + 0.99 * t / 4) for t in range(5)]
    assert seen[:5] == pytest.approx(line)
    assert seen[9] == pytest.approx(0.1)
    assert seen[14] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", optim.schedule_names())
def test_every_schedule_has_state(parameters, name):
    schedule = optim.create_schedule(name, optim.SGD(parameters, lr=0.1), 10)
    schedule.load_state_dict(schedule.state_dict())


def test_the_warmup_of_resnet_110(parameters):
    """He et al. 2016, section 4.2: 0.01 for 400 iterations, then 0.1, a tenth from 32k and a hundredth from 48k on."""
    options = {"warmup": 400, "warmup_factor": 0.1, "warmup_mode": "constant", "milestones": (32_000, 48_000)}
    schedule = optim.create_schedule("multistep", optim.SGD(parameters, lr=0.1), 64_000, **options)
    seen = rates(schedule, 64_000)
    for t, lr in [(0, 0.01), (399, 0.01), (400, 0.1), (31_999, 0.1), (32_000, 0.01), (47_999, 0.01), (48_000, 0.001)]:
        assert seen[t] == pytest.approx(lr, rel=1e-12), t
    assert seen[400] == 0.1
    assert len(set(seen)) <= 4


def test_a_warmup_may_begin_anywhere(optimizer):
    seen = rates(optim.create_schedule("none", optimizer, 9, warmup=4, warmup_factor=0.5), 9)
    assert seen == pytest.approx([0.1, 0.125, 0.15, 0.175, *[0.2] * 6])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warmup_mode": "square"}, "warmup_mode must be 'linear' or 'constant', got 'square'"),
        ({"milestones": [3, 8]}, r"milestones must come after the warmup of 4 steps, got \[3, 8\]"),
        ({"warmup_factor": 0}, "factor must be greater than 0"),
    ],
)
def test_a_warmup_that_makes_no_sense(optimizer, options, words):
    with pytest.raises(ValueError, match=words):
        optim.create_schedule("multistep", optimizer, 20, warmup=4, **options)
