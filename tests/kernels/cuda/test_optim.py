"""Optimizer steps in one launch against the steps on a CPU, which they equal to the last bit."""

import copy

import numpy as np
import pytest
import strict_cupy

from tinycnn import optim
from tinycnn.backend import device_of, to_device, to_numpy
from tinycnn.kernels.cuda import mailbox, module
from tinycnn.kernels.cuda import optim as twins
from tinycnn.parameter import Parameter

SHAPES = [(4, 3, 3, 2), (4,), (700, 3), (5,), (1,), (2, 1, 1, 1)]
CASES = [
    ("sgd", {"lr": 0.1}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("nesterov", {"lr": 0.1, "weight_decay": 0.1}),
    ("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("adagrad", {"weight_decay": 0.1}),
    ("rmsprop", {}),
    ("rmsprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("rmsprop", {"centered": True}),
    ("rmsprop", {"centered": True, "momentum": 0.9}),
    ("adadelta", {"weight_decay": 0.1}),
    ("adam", {"weight_decay": 0.1}),
    ("adam", {"amsgrad": True, "betas": (0.5, 0.9)}),
    ("adamw", {}),
    ("adamw", {"amsgrad": True}),
    ("adamax", {}),
    ("adamax", {"weight_decay": 0.1}),
    ("nadam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", {"weight_decay": 0.1, "betas": (0.9, 0.7)}),
]


def make(name, kwargs, dtype="float32", device="cpu", groups=None):
    rng = np.random.default_rng(0)
    parameters = [Parameter(rng.normal(size=s).astype(dtype), f"p{i}") for i, s in enumerate(SHAPES)]
    for p in parameters:
        p.to(device)
    options = groups or [{}, {"lr": 0.03, "weight_decay": 0.2}]
    members = [parameters[:2], parameters[2:]] if len(options) == 2 else [parameters]
    groups = [{"params": own, **option} for own, option in zip(members, options, strict=True)]
    return optim.create(name, groups, **kwargs), parameters


def gradients(step, parameters):
    """Set gradients of very different sizes, with zeros among them."""
    rng = np.random.default_rng(step)
    for p in parameters:
        g = rng.normal(size=p.shape) * 10.0 ** rng.integers(-3, 2) * rng.integers(0, 2, p.shape)
        p.grad[...] = on_device_of(p, g.astype(p.dtype))


def on_device_of(p, x):
    return to_device(x, device_of(p.data))


def state_of(optimizer):
    return {f"{slot}/{name}": x for slot, named in optimizer.state_dict()["state"].items() for name, x in named.items()}


def assert_equal(ours, theirs):
    for p, q in zip(ours[1], theirs[1], strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), to_numpy(q.data))
    a, b = state_of(ours[0]), state_of(theirs[0])
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def both(name, kwargs, dtype="float32", groups=None):
    return make(name, kwargs, dtype, "cpu", groups), make(name, kwargs, dtype, "cuda", groups)


def step_all(pairs, step):
    for optimizer, parameters in pairs:
        gradients(step, parameters)
        optimizer.step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_ten_steps_are_the_cpus_to_the_last_bit(gpu, name, kwargs, dtype):
    pairs = both(name, kwargs, dtype)
    for step in range(10):
        for _, parameters in pairs:  # frozen for a while, and thawed with a past of their own
            parameters[1].requires_grad = not 2 <= step < 5
            parameters[3].requires_grad = step >= 3
        step_all(pairs, step)
    assert_equal(*pairs)


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_what_is_not_finite_spreads_as_on_a_cpu(gpu, name, kwargs):
    pairs = both(name, kwargs, groups=[{}])
    with np.errstate(all="ignore"):
        for step in range(4):
            for _, parameters in pairs:
                gradients(step, parameters)
                for value, row in ((np.nan, 0), (np.inf, 1), (-np.inf, 2), (3e38, 3)):
                    if step == 1:
                        parameters[2].grad[row, 0] = value
            for optimizer, _ in pairs:
                optimizer.step()
    assert_equal(*pairs)


@pytest.mark.parametrize(
    ("name", "kwargs", "groups"),
    [
        ("sgd", {"lr": 0.1}, [{}, {"momentum": 0.9}]),
        ("sgd", {"lr": 0.1, "momentum": 0.9}, [{"nesterov": True}, {"dampening": 0.5}]),
        ("adam", {}, [{"amsgrad": True}, {"weight_decay": 0.1, "decoupled_weight_decay": True}]),
        ("rmsprop", {}, [{"centered": True, "weight_decay": 0.1}, {"momentum": 0.9}]),
    ],
    ids=str,
)
def test_groups_of_different_kinds_share_a_launch(gpu, monkeypatch, name, kwargs, groups):
    pairs = both(name, kwargs, groups=groups)
    launches = []
    call = module.Kernel.__call__
    monkeypatch.setattr(module.Kernel, "__call__", lambda k, *args: (launches.append(k.name), call(k, *args)))
    for step in range(4):
        step_all(pairs, step)
    assert len(launches) == 4
    assert_equal(*pairs)


def test_hyperparameters_may_change_at_any_time(gpu):
    pairs = both("sgd", {"lr": 0.1}, groups=[{}])
    for step, (momentum, lr) in enumerate([(0.0, 0.1), (0.9, 0.2), (0.5, 0.1), (0.0, 0.3), (0.9, 0.1)]):
        for optimizer, _ in pairs:
            optimizer.param_groups[0].update(momentum=momentum, lr=lr)
        step_all(pairs, step)
        assert_equal(*pairs)


def test_large_buffers_are_cut_into_large_tiles(gpu, monkeypatch):
    """Numbers of blocks that no small network has, and spans that do not begin at 0."""
    results = []
    for device in ("cpu", "cuda"):
        rng = np.random.default_rng(0)
        parameters = [Parameter(rng.normal(size=n).astype("float32")) for n in (17, 2_100_003, 40_001)]
        for p in parameters:
            p.to(device)
        optimizer = optim.SGD([{"params": parameters[:2]}, {"params": parameters[2:], "lr": 0.5}])
        for p in parameters:
            p.grad[...] = on_device_of(p, rng.normal(size=p.shape).astype("float32"))
        optimizer.step()
        results.append(np.concatenate([to_numpy(p.data) for p in parameters]))
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ["adam", "adamax", "rmsprop", "adadelta", "nadam"])
def test_the_gaps_between_parameters_remain_zeros(gpu, name):
    """Nothing in them can reach a norm of the whole buffer, or a message that holds all gradients."""
    optimizer, parameters = make(name, {}, device="cuda", groups=[{"weight_decay": 0.1}])
    for step in range(3):
        gradients(step, parameters)
        optimizer.step()
    covered = np.zeros(optimizer.flat.data.size, bool)
    for span in optimizer.flat.spans:
        covered[span] = True
    for buffer in (optimizer.flat.data, optimizer.flat.grad):
        assert not buffer.get()[~covered].any()


def forbid(gpu, monkeypatch):
    """Refuse whatever a CUDA graph cannot hold: copies from and to the host."""

    def refuse(*args, **kwargs):
        raise AssertionError("a copy between host and device while a graph is captured")

    for place, name in ((gpu, "asarray"), (gpu, "array"), (gpu.ndarray, "get"), (gpu.ndarray, "set")):
        monkeypatch.setattr(place, name, refuse)


@pytest.mark.parametrize(("name", "kwargs"), [CASES[1], CASES[10], *CASES[-2:]], ids=str)
def test_launches_replayed_see_new_numbers(gpu, monkeypatch, name, kwargs):
    """What `apply` launches, recorded once and launched again after every `prepare`, as a captured graph is."""
    pairs = both(name, kwargs)
    for step in range(3):
        step_all(pairs, step)
    _, (ours, _) = pairs
    revision, launches = ours.revision, []
    call = module.Kernel.__call__
    for step in range(3, 8):
        for optimizer, own in pairs:
            gradients(step, own)
            for group in optimizer.param_groups:
                group["lr"] *= 0.7
        pairs[0][0].step()
        ours.prepare()
        assert ours.revision == revision
        if not launches:
            with monkeypatch.context() as m:
                if gpu.ndarray is strict_cupy.ndarray:  # CuPy's own arrays cannot be patched
                    forbid(gpu, m)
                m.setattr(module.Kernel, "__call__", lambda k, *args: launches.append((k, args)))
                ours.apply()
        for k, args in launches:
            call(k, *args)
    assert len(launches) == 1
    assert_equal(*pairs)


def test_a_revision_is_new_whenever_the_launch_is(gpu):
    optimizer, parameters = make("sgd", {"lr": 0.1}, device="cuda", groups=[{}])
    seen = []

    def step():
        gradients(0, parameters)
        optimizer.step()
        seen.append(optimizer.revision)

    step()
    step()
    parameters[0].requires_grad = False
    step()
    step()
    optimizer.param_groups[0]["momentum"] = 0.9
    step()
    step()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step()
    step()
    optimizer.guard(on_device_of(parameters[0], np.ones(1, "float32")))
    step()
    step()
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


@pytest.mark.parametrize(("name", "kwargs"), CASES, ids=str)
def test_a_guard_scales_gradients_and_skips_whole_updates(gpu, name, kwargs):
    """As if the skipped steps had never been: neither numbers nor counts change."""
    (expected, theirs), (optimizer, parameters) = pairs = both(name, kwargs)
    inv_scale, found_inf = gpu.zeros(1, np.float32), gpu.zeros(1, np.int32)
    optimizer.guard(inv_scale, found_inf)
    for step in range(8):
        bad = step in (0, 1, 4)
        found_inf[...], inv_scale[...] = bad, 2.0**-step
        gradients(step, theirs)
        for p, q in zip(parameters, theirs, strict=True):
            p.grad[...] = np.nan if bad else on_device_of(p, q.grad * 2.0**step)
        optimizer.step()
        if not bad:
            expected.step()
        if step in (4, 6):
            assert optimizer.state_dict()["past"] == expected.state_dict()["past"]
    assert_equal(*pairs[::-1])
    optimizer.guard()
    step_all(pairs, 9)
    assert_equal(*pairs)


def test_a_guard_needs_a_kernel():
    optimizer, _ = make("sgd", {})
    with pytest.raises(ValueError, match="SGD: guard needs parameters on a GPU and an update with a kernel"):
        optimizer.guard()


class Signs(optim.SGD):
    """An update of one's own, without a kernel."""

    def update(self, parts, group, past):
        """p ← p − lr·sign(g)"""
        for p, g, *_ in parts:
            p -= group["lr"] * ((g > 0) * 1.0 - (g < 0) * 1.0)


def test_an_update_of_ones_own_runs_without_a_kernel(gpu):
    assert Signs.kernel is None
    assert optim.AdamW.kernel == "adam"
    p = Parameter(np.zeros(3))
    p.to("cuda")
    optimizer = Signs([p], lr=0.5)
    p.grad[...] = on_device_of(p, np.array([3.0, -2.0, 0.0]))
    optimizer.step()
    np.testing.assert_array_equal(p.data.get(), [-0.5, 0.5, 0])


def test_everything_frozen_launches_nothing(gpu, monkeypatch):
    optimizer, parameters = make("adam", {}, device="cuda")
    for p in parameters:
        p.requires_grad = False
    monkeypatch.setattr(module.Kernel, "__call__", lambda *args: pytest.fail("a launch"))
    optimizer.step()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("warmup", [False, True])
def test_averages_are_the_cpus_to_the_last_bit(gpu, monkeypatch, dtype, warmup):
    averages, launches = [], []
    call = module.Kernel.__call__
    monkeypatch.setattr(module.Kernel, "__call__", lambda k, *args: (launches.append(k.name), call(k, *args)))
    for device in ("cpu", "cuda"):
        _, parameters = make("sgd", {}, dtype, device)
        odd = Parameter(np.arange(5.0).astype(dtype), "odd")
        odd.to(device)
        parameters.append(odd)
        odd.data = odd.data[1:]  # not at a multiple of 16 bytes
        ema = optim.EMA(parameters, 0.9, warmup=warmup)
        for step in range(5):
            gradients(step, parameters[:-1])
            for p in parameters[:-1]:
                p.data[...] = p.grad
            odd.data *= 1.5
            ema.update()
        averages.append(ema.state_dict()["state"]["average"])
    assert launches == ["follow"] * 5
    for name, expected in averages[0].items():
        np.testing.assert_array_equal(averages[1][name], expected)


def test_averages_follow_numbers_that_are_sent(gpu):
    """Two launches, the second one recorded: the first moves averages all the way, the others as decay says."""
    p = Parameter(np.array([8.0]))
    p.to("cuda")
    ema = optim.EMA([p], decay=0.75)
    for value in (4.0, 8.0, 0.0):
        p.data[...] = value
        ema.prepare()
        ema._follow.launch()
    assert ema.state_dict()["state"]["average"]["#0"] == [3.75]
    assert ema.revision == 1


def test_as_many_numbers_as_the_kernels_take():
    assert f"constexpr int NUMBERS = {twins.NUMBERS};" in module.source("optim")
    assert mailbox.ROWS >= 2


def test_preparing_does_not_touch_gradients(gpu):
    """It comes before the backward pass where a graph is replayed."""
    optimizer, parameters = make("sgd", {"lr": 0.1}, device="cuda", groups=[{}])
    for p in parameters:
        p.grad[...] = 1
    optimizer.zero_grad()
    optimizer.prepare()
    assert (optimizer.flat.grad_memory.get() == 1).sum() == sum(p.size for p in parameters)
    optimizer.apply()
    assert not optimizer.flat.grad_memory.get().any()
