import copy
import itertools
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import strict_cupy
import torch

from tinycnn import optim, parallel
from tinycnn.backend import to_device, to_numpy
from tinycnn.optim import vectors
from tinycnn.parameter import Parameter

CASES = [
    ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("sgd", {"lr": 0.1}),
    ("nesterov", {"lr": 0.1}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("rmsprop", {"centered": True, "momentum": 0.9}),
    ("adadelta", {}),
    ("adam", {"amsgrad": True}),
    ("adamw", {}),
    ("adamax", {}),
    ("nadam", {}),
    ("radam", {}),
]


def make(name, kwargs, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"conv.weight": (4, 3, 3, 2), "conv.bias": (4,), "fc.weight": (5, 7), "fc.bias": (5,)}
    parameters = [Parameter(rng.normal(size=shape).astype(dtype), n) for n, shape in shapes.items()]
    groups = [{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.05, "weight_decay": 0.2}]
    return optim.create(name, groups, **kwargs), parameters


def run(optimizer, parameters, steps, frozen=lambda step, i: False):
    for step in steps:
        rng = np.random.default_rng(step)
        for i, p in enumerate(parameters):
            p.requires_grad = not frozen(step, i)
            p.grad[...] = rng.normal(size=p.shape)
        optimizer.step()


def values(parameters):
    return [p.data.copy() for p in parameters]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_resuming_is_bit_identical_through_json(name, kwargs):
    """Adam's t, among others, must not be lost; nor each parameter's own t where some were frozen."""

    def frozen(step, i):
        return i == 1 and step < 4

    optimizer, parameters = make(name, kwargs)
    run(optimizer, parameters, range(12), frozen)
    expected = values(parameters)

    first, parameters = make(name, kwargs)
    run(first, parameters, range(7), frozen)
    arrays, rest = optim.split_state(first.state_dict())
    stored = json.loads(json.dumps(rest, allow_nan=False))
    second, others = make(name, kwargs, seed=1)
    run(second, others, range(2))  # it may have a past of its own, which ends here
    for p, q in zip(others, parameters, strict=True):
        p.data[...] = q.data
    second.load_state_dict(optim.join_state(arrays, stored))
    run(second, others, range(7, 12), frozen)
    assert_same(values(others), expected)


def test_a_state_is_a_copy_with_names_and_shapes():
    optimizer, parameters = make("adam", {})
    run(optimizer, parameters, range(3))
    state = optimizer.state_dict()
    assert state["optimizer"] == "Adam"
    assert state["groups"][1]["params"] == ["fc.weight", "fc.bias"]
    assert state["groups"][1]["lr"] == 0.05
    assert state["past"]["conv.bias"] == {"step": 3}
    assert set(state["state"]) == {"exp_avg", "exp_avg_sq"}
    weight = state["state"]["exp_avg"]["conv.weight"]
    assert weight.shape == (4, 3, 3, 2)
    assert weight.flags.c_contiguous
    assert weight.dtype == np.float32
    # m after three steps, by hand, for each element where it belongs
    m = np.zeros((4, 3, 3, 2), np.float32)
    for step in range(3):
        m = m * 0.9 + 0.1 * np.random.default_rng(step).normal(size=m.shape)
    np.testing.assert_allclose(weight, m, rtol=1e-4, atol=1e-6)
    before = copy.deepcopy(state)
    run(optimizer, parameters, range(3))
    assert_same(before["state"]["exp_avg"].values(), state["state"]["exp_avg"].values())


def test_sgd_without_momentum_has_no_state():
    optimizer, parameters = make("sgd", {"lr": 0.1})
    run(optimizer, parameters, range(2))
    assert optimizer.state_dict()["state"] == {}


def without(state, key):
    return {k: v for k, v in state.items() if k != key}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {"lr": 0.1}, "no entry 'optimizer'"),
        (lambda s: without(s, "past"), "no entry 'past'"),
        (lambda s: {**s, "optimizer": "SGD"}, "SGD saved it"),
        (lambda s: {**s, "groups": s["groups"][:1]}, "1 groups, this optimizer 2"),
        (lambda s: {**s, "groups": [{**g, "params": ["a", "b"]} for g in s["groups"]]}, "'a' where .* 'conv.weight'"),
        (lambda s: {**s, "groups": [{**g, "params": []} for g in s["groups"]]}, "0 parameters, this optimizer 2"),
        (lambda s: {**s, "groups": [without(g, "betas") for g in s["groups"]]}, "group 0 has no 'betas'"),
        (lambda s: {**s, "groups": [{**g, "lr": -1} for g in s["groups"]]}, "lr must be"),
        (lambda s: {**s, "past": {}}, "past of conv.weight"),
        (lambda s: {**s, "state": {"velocity": {}}}, "'velocity'"),
        (lambda s: {**s, "state": {"exp_avg": {}}}, "exp_avg of conv.weight should have shape"),
        (
            lambda s: {**s, "state": {"exp_avg": {n: np.zeros(3) for n in s["past"]}}},
            r"exp_avg of conv.weight should have shape \(4, 3, 3, 2\), it has \(3,\)",
        ),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(spoil, message):
    optimizer, parameters = make("adam", {})
    run(optimizer, parameters, range(3))
    before = copy.deepcopy(optimizer.state_dict())
    other, others = make("adam", {"lr": 0.3})
    run(other, others, range(5))
    with pytest.raises(ValueError, match=f"^Adam: .*{message}"):
        optimizer.load_state_dict(spoil(other.state_dict()))
    after = optimizer.state_dict()
    assert after["groups"] == before["groups"]
    assert after["past"] == before["past"]
    for slot in before["state"]:
        assert_same(after["state"][slot].values(), before["state"][slot].values())


def test_another_networks_state_is_refused():
    optimizer, _ = make("sgd", {"lr": 0.1})
    other = optim.SGD([{"params": [Parameter(np.zeros(3), n)]} for n in ("x", "y")], lr=0.1)
    with pytest.raises(ValueError, match=r"it has 'x' where this optimizer has 'conv.weight'"):
        optimizer.load_state_dict(other.state_dict())


def test_loading_restores_hyperparameters_and_what_schedules_wrote():
    optimizer, _ = make("adam", {})
    optim.OneCycleLR(optimizer, 0.1, total_steps=10)
    other, _ = make("adam", {"betas": (0.1, 0.2)})
    other.load_state_dict(json.loads(json.dumps(optimizer.state_dict())))
    assert [without(g, "params") for g in other.param_groups] == [without(g, "params") for g in optimizer.param_groups]


def test_unnamed_and_equally_named_parameters_get_positions():
    parameters = [Parameter(np.zeros(2), name) for name in ("", "w", "w", "b", "")]
    assert optim.SGD(parameters).names() == ["#0", "w#1", "w#2", "b", "#4"]


def train_big(name, kwargs, threads, monkeypatch):
    """Enough parameters for many stretches, in two groups, some of them frozen in between."""
    monkeypatch.setattr(parallel, "_num_threads", None)
    parallel.set_num_threads(threads)
    try:
        rng = np.random.default_rng(0)
        sizes = [(64, 32, 3, 3), (100_003,), (64,), (300, 700)]
        parameters = [Parameter(rng.normal(size=s).astype("float32"), str(i)) for i, s in enumerate(sizes)]
        optimizer = optim.create(name, [{"params": parameters[:2]}, {"params": parameters[2:]}], **kwargs)
        for step in range(3):
            parameters[2].requires_grad = step != 1
            for p in parameters:
                p.grad[...] = rng.normal(size=p.shape)
            optimizer.step()
        return values(parameters)
    finally:
        parallel.set_num_threads(1)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_threads_do_not_change_a_bit(name, kwargs, monkeypatch):
    assert_same(train_big(name, kwargs, 1, monkeypatch), train_big(name, kwargs, 2, monkeypatch))


def test_stretches_do_not_change_a_bit(monkeypatch):
    whole = train_big("adam", {}, 2, monkeypatch)
    monkeypatch.setattr(vectors, "WORKING_SET", 1 << 12)
    assert_same(train_big("adam", {}, 2, monkeypatch), whole)
    assert_same(train_big("adam", {}, 3, monkeypatch), whole)


def test_many_stretches_are_pytorchs():
    rng = np.random.default_rng(3)
    p = Parameter(rng.normal(size=(200, 50, 5, 7)))
    twin = torch.nn.Parameter(torch.tensor(p.data))
    ours, theirs = optim.Adam([p], weight_decay=0.1), torch.optim.Adam([twin], weight_decay=0.1)
    for _ in range(3):
        p.grad[...] = rng.normal(size=p.shape)
        twin.grad = torch.tensor(p.grad)
        ours.step()
        theirs.step()
    np.testing.assert_allclose(p.data, twin.detach().numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_frozen_parameters_are_left_alone(name, kwargs):
    optimizer, parameters = make(name, kwargs)
    parameters[1].requires_grad = parameters[2].requires_grad = False
    before, state = values(parameters), {slot: x.copy() for slot, x in optimizer.state.items()}
    for p in parameters:
        p.grad[...] = 1.0
    optimizer.step()
    for i, changed in enumerate([True, False, False, True]):
        assert (parameters[i].data != before[i]).any() == changed
    for slot, x in optimizer.state.items():
        span = slice(optimizer.flat.spans[1].start, optimizer.flat.spans[2].stop)
        np.testing.assert_array_equal(x[span], state.get(slot, np.zeros_like(x))[span])


def test_everything_frozen_is_no_step():
    optimizer, parameters = make("adam", {})
    for p in parameters:
        p.requires_grad = False
    before = values(parameters)
    optimizer.step()
    assert_same(values(parameters), before)


def test_neighbours_of_one_past_are_one_run():
    optimizer, parameters = make("adam", {})
    run(optimizer, parameters, range(2))
    assert [len(c.spans) for c in optimizer._cohorts] == [1, 1]
    run(optimizer, parameters, [2], frozen=lambda step, i: i == 0)
    run(optimizer, parameters, [3])
    assert [c.past["step"] for c in optimizer._cohorts] == [3, 4, 4]


@pytest.mark.parametrize("number", [np.float64, np.float32])
def test_numpy_scalars_do_not_promote(number):
    optimizer, parameters = make("adamw", {"lr": number(0.1), "betas": (number(0.5), number(0.75))})
    optimizer.param_groups[1]["lr"] = number(0.3)
    run(optimizer, parameters, range(2))
    assert all(p.data.dtype == np.float32 for p in parameters)
    assert all(type(b) is float for b in optimizer.defaults["betas"])
    same, others = make("adamw", {"lr": float(number(0.1)), "betas": (0.5, 0.75)})
    same.param_groups[1]["lr"] = float(number(0.3))
    run(same, others, range(2))
    assert_same(values(parameters), values(others))
    json.dumps(optim.split_state(optimizer.state_dict())[1])


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_gradients_are_only_read(name, kwargs):
    optimizer, parameters = make(name, kwargs)
    run(optimizer, parameters, range(2))
    grads = [p.grad.copy() for p in parameters]
    optimizer.step()
    assert_same([p.grad for p in parameters], grads)


def test_zero_grad_clears_every_gradient_frozen_or_not():
    optimizer, parameters = make("sgd", {"lr": 0.1})
    run(optimizer, parameters, range(1), frozen=lambda step, i: i == 0)
    optimizer.zero_grad()
    assert not any(p.grad.any() for p in parameters)
    big = Parameter(np.ones(1_000_003, np.float32))
    big.grad[...] = 1
    optim.SGD([big]).zero_grad()
    assert not big.grad.any()


def test_a_step_after_zero_grad_sees_zeros_and_what_was_added_since():
    still, moved = Parameter(np.ones(3)), Parameter(np.ones(3))
    optimizer = optim.SGD([still, moved], lr=0.5)
    still.grad[...] = moved.grad[...] = 9
    optimizer.zero_grad()
    moved.accumulate(np.ones(3))
    optimizer.step()
    assert_same([still.data, moved.data], [np.ones(3), np.full(3, 0.5)])


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_a_step_makes_no_array_of_the_size_of_the_parameters(name, kwargs):
    parameters = [Parameter(np.ones(1_000_000, np.float32), "w"), Parameter(np.ones(10, np.float32), "b")]
    optimizer = optim.create(name, [{"params": parameters, "weight_decay": 0.1}], **kwargs)
    optimizer.step()  # makes the state
    tracemalloc.start()
    try:
        optimizer.step()
        optimizer.zero_grad()
        assert tracemalloc.get_traced_memory()[1] < 4_000_000  # one array of that size
    finally:
        tracemalloc.stop()


def test_hyperparameters_may_change_at_any_time():
    """So may the slots that a group needs: momentum that comes and goes."""
    parameters, twin = [Parameter(np.arange(4.0))], torch.nn.Parameter(torch.arange(4.0, dtype=torch.float64))
    ours, theirs = optim.SGD(parameters, lr=0.1), torch.optim.SGD([twin], lr=0.1)
    for momentum, lr in ((0.0, 0.1), (0.9, 0.2), (0.5, 0.1), (0.0, 0.3), (0.9, 0.1)):
        for optimizer in (ours, theirs):
            optimizer.param_groups[0].update(momentum=momentum, lr=lr)
        parameters[0].grad[...] = np.cos(parameters[0].data)
        twin.grad = torch.cos(twin.detach())
        ours.step()
        theirs.step()
        np.testing.assert_allclose(parameters[0].data, twin.detach().numpy(), rtol=1e-13)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_a_device_computes_the_same(name, kwargs, monkeypatch):
    """Steps, clipping and averaging on arrays that refuse whatever CuPy refuses."""

    def train(device):
        optimizer, parameters = make(name, kwargs)
        for p in parameters:
            p.to(device)
        optimizer = optim.create(name, [{"params": parameters, "weight_decay": 0.1}], **kwargs)
        ema = optim.EMA(parameters, 0.5)
        for step in range(4):
            for p in parameters:
                g = np.random.default_rng(step).normal(size=p.shape).astype("float32")
                p.grad[...] = to_device(g, device)
            optim.clip_grad_norm_(parameters, 0.5)
            optim.clip_grad_norm_(optimizer.flat, 0.3, norm_type=np.inf)
            optim.clip_grad_value_(parameters, 0.2)
            optimizer.step()
            ema.update()
        optimizer.zero_grad()
        assert all(type(p.grad) is type(p.data) and not p.grad.any() for p in parameters)
        with ema.averaged():
            averages = [to_numpy(p.data).copy() for p in parameters]
        return [to_numpy(p.data) for p in parameters] + averages

    expected = train("cpu")
    strict_cupy.install(monkeypatch)
    for ours, theirs in zip(train("cuda"), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_parameter_converted_later_is_noticed():
    optimizer, parameters = make("sgd", {"lr": 0.1})
    parameters[1].astype("float64")
    for use in (optimizer.step, optimizer.zero_grad):
        with pytest.raises(RuntimeError, match=r"conv.bias has left .* make the optimizer"):
            use()


def test_the_buffers_hold_the_groups_in_order():
    optimizer, parameters = make("sgd", {"lr": 0.1})
    assert optimizer.flat.parameters == parameters
    spans = [slice(p.data.ctypes.data, p.data.ctypes.data + p.data.nbytes) for p in parameters]
    assert all(np.shares_memory(p.data, optimizer.flat.data) for p in parameters)
    assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))


def test_a_base_optimizer_cannot_step():
    optimizer = optim.Optimizer([Parameter(np.zeros(2))], {"lr": 0.1})
    with pytest.raises(TypeError, match="Optimizer must define update"):
        optimizer.step()


def test_repr_names_the_values():
    assert repr(make("adagrad", {})[0]).startswith("Adagrad(lr=0.01, lr_decay=0, ")


def test_order_does_not_depend_on_the_hash_seed():
    code = (
        "import numpy as np; from tinycnn import optim; from tinycnn.parameter import Parameter;"
        "o = optim.Adam([Parameter(np.zeros(2), n) for n in 'the quick brown fox jumps'.split()]); o.step();"
        "s = o.state_dict(); print(list(s['past']), list(s['state']), list(s['state']['exp_avg']), s['groups'])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "['the', 'quick', 'brown', 'fox', 'jumps'] ['exp_avg', 'exp_avg_sq']" in outputs.pop()
