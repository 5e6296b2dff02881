"""Captured steps: the eager steps' bits, when they are captured, when not, and what is left behind."""

import logging

import numpy as np
import pytest

from tinycnn import CapturedStep, models, optim
from tinycnn.backend import to_device, to_numpy
from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Layer, Linear, ReLU, Residual, Sequential
from tinycnn.losses import CrossEntropyLoss

BATCH = 4


def small(p=0.25, extra=()):
    rng = np.random.default_rng(0)
    return Sequential(
        Conv2d(2, 4, 3, padding=1, rng=rng),
        BatchNorm2d(4),
        Residual(Sequential(Conv2d(4, 4, 3, padding=1, rng=rng), BatchNorm2d(4))),
        ReLU(),
        *extra,
        Dropout(p, rng=rng),
        Flatten(),
        Linear(4 * 25, 3, rng=rng),
    ).to("cuda")


def make(model=None, name="momentum", graph=True, **options):
    model = small() if model is None else model
    model.require_dx(False)
    loss_fn = CrossEntropyLoss(check_labels=False)
    return CapturedStep(model, optim.create(name, model.parameters(), lr=0.05), loss_fn, graph=graph, **options)


def batches(count, n=BATCH, shape=(2, 5, 5), classes=3, start=0):
    for i in range(start, start + count):
        rng = np.random.default_rng(i)
        yield (
            to_device(rng.normal(size=(n, *shape)).astype(np.float32), "cuda"),
            to_device(rng.integers(0, classes, n), "cuda"),
        )


def learn(step, count=1, **options):
    return [[float(loss), to_numpy(logits)] for loss, logits in (step(x, y) for x, y in batches(count, **options))]


def state(step):
    arrays = step.model.state_dict() | {f"{p.name}.grad": to_numpy(p.grad) for p in step.model.parameters()}
    slots = step.optimizer.state_dict()
    for slot, named in slots["state"].items():
        arrays |= {f"{slot} of {name}": value for name, value in named.items()}
    place = {path: [int(n) for n in s] for path, s in step.model.random_state().items()}
    return arrays, slots["past"], place


def assert_same(a, b):
    (one, *rest), (other, *others) = state(a), state(b)
    assert rest == others
    assert list(one) == list(other)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def assert_twins(first, second, count, **options):
    for a, b in zip(learn(first, count, **options), learn(second, count, **options), strict=True):
        assert a[0] == b[0]
        np.testing.assert_array_equal(a[1], b[1])
    assert_same(first, second)


# ---- the same bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "clip"), [("adam", None), ("momentum", 0.1), ("rmsprop", None)])
def test_twenty_replayed_steps_are_twenty_eager_ones(gpu, name, clip):
    """Convolutions, batch statistics, a shortcut, dropout, clipping, and an optimizer that counts."""
    captured, eager = make(name=name, clip_norm=clip), make(name=name, clip_norm=clip, graph=False)
    assert_twins(captured, eager, 20)
    assert (captured.state, captured.reason) == ("captured", None)
    assert captured.nbytes > 0
    assert eager.state == "eager"


@pytest.mark.parametrize("network", ["lenet5", "resnet20"])
def test_whole_networks(gpu, network):
    shape, count = {"lenet5": ((1, 32, 32), 20), "resnet20": ((3, 12, 12), 6)}[network]
    steps = [make(models.create(network, 10, shape[0], 0).to("cuda"), graph=graph) for graph in (True, False)]
    assert_twins(*steps, count, n=2, shape=shape, classes=10)
    assert steps[0].state == "captured"


def test_learning_rates_change_without_another_graph(gpu):
    captured, eager = make(name="adam"), make(name="adam", graph=False)
    learn(captured, 4), learn(eager, 4)
    task = captured._task
    for i in range(4):
        for step in (captured, eager):
            step.optimizer.param_groups[0].update(lr=0.1 / (i + 1), betas=(0.8, 0.9), weight_decay=0.01 * i)
        assert_twins(captured, eager, 1, start=10 + i)
    assert captured._task is task


# ---- when ----------------------------------------------------------------------------------------------------


def test_three_steps_warm_up_and_the_fourth_is_captured(gpu):
    step = make()
    assert step.state == "cold"
    seen = []
    for x, y in batches(5):
        step(x, y)
        seen.append(step.state)
    assert seen == ["warming"] * 3 + ["captured"] * 2


def test_an_odd_batch_is_eager_and_keeps_the_graph(gpu):
    captured, eager = make(), make(graph=False)
    assert_twins(captured, eager, 5)
    task = captured._task
    for _ in range(3):
        assert_twins(captured, eager, 1, n=3, start=50)
        assert_twins(captured, eager, 2, start=60)
    assert captured._task is task


def test_another_shape_that_stays_is_captured_in_its_turn(gpu):
    captured, eager = make(), make(graph=False)
    assert_twins(captured, eager, 5)
    assert_twins(captured, eager, 10, n=3)
    assert captured.state == "captured"
    assert captured.inputs[0].shape[0] == 3


@pytest.mark.parametrize(
    "change",
    [
        lambda step: setattr(step.model[4], "p", 0.5),
        lambda step: setattr(step.model[1], "momentum", 0.5),
        lambda step: step.model[1].eval(backward=True),
        lambda step: setattr(step.model[0].weight, "requires_grad", False),
        lambda step: setattr(step, "clip_norm", 0.01),
        lambda step: setattr(step.loss_fn, "label_smoothing", 0.1),
        lambda step: setattr(step, "loss_fn", CrossEntropyLoss(reduction="sum", check_labels=False)),
        lambda step: setattr(step.model[1], "running_mean", step.model[1].running_mean + 1),
        lambda step: step.optimizer.load_state_dict(step.optimizer.state_dict()),
        lambda step: setattr(step.model, "4", Dropout(0.75, rng=np.random.default_rng(1))),
        lambda step: step.model.random_state()["4"] and step.model.set_random_state({"4": [7, 5]}),
    ],
)
def test_whatever_changes_is_seen(gpu, change):
    captured, eager = make(), make(graph=False)
    learn(captured, 5), learn(eager, 5)
    for step in (captured, eager):
        change(step)
    assert_twins(captured, eager, 6, start=20)
    assert captured.state == "captured"


def test_what_python_keeps_is_where_a_step_leaves_it(gpu):
    captured, eager = make(), make(graph=False)
    learn(captured, 5), learn(eager, 5)
    (x, y), (other, _) = batches(2)
    for step in (captured, eager):
        step.model.forward(other)  # a forward without backward
        step.model.zero_grad()
        step(x, y)
        with pytest.raises(RuntimeError, match="backward has nothing to work from"):
            step.model.backward(other)
    assert_same(captured, eager)


def test_a_batch_can_be_written_into_the_inputs(gpu):
    captured, eager = make(), make(graph=False)
    learn(captured, 5), learn(eager, 5)
    for x, y in batches(3, start=30):
        own_x, own_y = captured.inputs
        own_x[...], own_y[...] = x, y
        np.testing.assert_array_equal(*[to_numpy(r[1]) for r in (captured(own_x, own_y), eager(x, y))])
    assert_same(captured, eager)


def test_results_are_the_callers_own(gpu):
    step = make()
    losses = [step(x, y)[0] for x, y in batches(8)]
    assert len({float(loss) for loss in losses}) == 8


def test_what_follows_a_step_is_captured_with_it(gpu):
    totals = to_device(np.zeros(()), "cuda")

    def then(loss, logits, targets):
        nonlocal totals
        totals += loss

    losses = [loss for loss, _ in learn(make(then=then), 8)]
    assert float(totals) == pytest.approx(sum(losses), rel=1e-6)


# ---- when not --------------------------------------------------------------------------------------------------


class Looks(Layer):
    """A layer that does what no graph can do."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, x):
        self.what(x)
        return x

    def backward(self, dy):
        return dy


def product(x):
    from tinycnn.backend import array_module

    m = x.reshape(len(x), -1)
    array_module(x).matmul(m, m.T)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda x: float(x.sum()), "capturing"),
        (lambda x: to_device(np.ones(5), "cuda"), "capturing"),
        (product, "cuBLAS"),
        (lambda x: Looks.calls.append(1) or (len(Looks.calls) % 8 == 4 and 1 / 0), "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly_and_says_why_once(gpu, caplog, what, words):
    Looks.calls = []
    extra = [[Looks(what if i == 0 else lambda x: None)] for i in range(2)]
    captured, eager = make(small(extra=extra[0])), make(small(extra=extra[1]), graph=False)
    with caplog.at_level(logging.WARNING, logger="tinycnn"):
        assert_twins(captured, eager, 7)
    assert captured.state == "eager"
    assert words in captured.reason
    assert [record.message.count(words) for record in caplog.records] == [1]
    assert captured.nbytes == 0


def test_a_layer_that_counts_in_python_is_not_replayed(gpu):
    class Counts(Looks):
        def __init__(self):
            super().__init__(None)
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return x * (1 + 0.01 * self.calls)

    captured, eager = make(small(extra=[Counts()])), make(small(extra=[Counts()]), graph=False)
    assert_twins(captured, eager, 30)
    assert captured.state == "eager"
    assert "calls of 3 (Counts" in captured.reason or "calls of" in captured.reason


def test_a_layer_that_changes_while_it_is_captured(gpu):
    calls = []

    class Turns(Looks):
        def forward(self, x):
            calls.append(1)
            self.what = len(calls) > 3
            return x

    step = make(small(extra=[Turns(False)]))
    learn(step, 6)
    assert step.reason.startswith("what of 4 (Turns")
    assert step.reason.endswith("changes in every step")


def test_labels_that_are_checked_are_looked_at(gpu):
    step = make()
    step.loss_fn = CrossEntropyLoss()
    learn(step, 6)
    assert step.state in ("eager", "captured")
    assert all(np.isfinite(loss) for loss, _ in learn(step, 2))


def test_an_optimizer_of_ones_own_without_a_kernel(gpu):
    class Halves(optim.SGD):
        def update(self, parts, group, past):
            for p, g, *_ in parts:
                p -= 0.5 * g

    model = small()
    step = CapturedStep(model, Halves(model.parameters(), lr=0.1), CrossEntropyLoss(check_labels=False))
    learn(step, 5)
    assert step.reason == "no kernel does the update of Halves"


def test_errors_in_a_step_come_through(gpu):
    from tinycnn import LayerError

    step, eager = make(), make(graph=False)
    learn(step, 5), learn(eager, 5)
    for one in (step, eager):
        with pytest.raises(LayerError, match="axis 1"):
            learn(one, 1, shape=(3, 5, 5))
        with pytest.raises(LayerError, match=r"0 \(Conv2d"):
            one(np.ones((BATCH, 2, 5, 5), np.float32), np.zeros(BATCH, np.int64))
    assert_twins(step, eager, 3)
    assert step.state == "captured"


def test_released_memory_comes_back_with_the_next_steps(gpu):
    captured, eager = make(), make(graph=False)
    assert_twins(captured, eager, 6)
    captured.release()
    assert (captured.nbytes, captured.state, captured.inputs) == (0, "cold", None)
    assert_twins(captured, eager, 6)
    assert captured.state == "captured"


def test_on_a_cpu_it_is_the_step(gpu):
    model = small().to("cpu")
    step = CapturedStep(model, optim.SGD(model.parameters(), lr=0.1), CrossEntropyLoss())
    x, y = (to_numpy(a) for a in next(batches(1)))
    before = [p.data.copy() for p in model.parameters()]
    step(x, y)
    assert step.reason == "the parameters are on the CPU"
    for p, old in zip(model.parameters(), before, strict=True):
        np.testing.assert_allclose(p.data, old - np.float32(0.1) * p.grad, rtol=1e-5, atol=1e-7)


# ---- precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_other_precisions_are_replayed_to_the_bit_and_near_float32(gpu, precision):
    pytest.importorskip("ml_dtypes")
    captured, eager = (make(small(p=0), graph=graph, precision=precision) for graph in (True, False))
    exact = make(small(p=0), graph=False, precision="float32")
    for step in (captured, eager):
        if step.scaler is not None:
            step.scaler.load_state_dict({"scale": 256.0, "good": 0})  # so that no update is left out
    assert_twins(captured, eager, 8)
    assert (captured.state, captured.reason) == ("captured", None)
    learn(exact, 8)
    for own, other in zip(captured.model.parameters(), exact.model.parameters(), strict=True):
        assert own.dtype == np.float32
        a, b = to_numpy(own.data), to_numpy(other.data)
        assert np.linalg.norm(a - b) <= {"tf32": 0.01, "bf16": 0.1, "fp16": 0.02}[precision] * np.linalg.norm(b), (
            own.name
        )
    assert any(
        (to_numpy(a.data) != to_numpy(b.data)).any()
        for a, b in zip(captured.model.parameters(), exact.model.parameters(), strict=True)
    )


def test_an_overflow_of_float16_leaves_an_update_out(gpu):
    step = make(small(p=0), precision="fp16", clip_norm=1.0)
    learn(step, 6)
    assert step.state == "captured"
    before, scale = [to_numpy(p.data) for p in step.model.parameters()], step.scaler.get_scale()
    step.scaler._scale.fill(1e30)
    learn(step, 1, start=40)
    for old, p in zip(before, step.model.parameters(), strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), old)
    step.scaler.load_state_dict({"scale": scale, "good": 0})
    learn(step, 1, start=41)
    assert any((to_numpy(p.data) != old).any() for old, p in zip(before, step.model.parameters(), strict=True))


def test_precisions_that_do_not_fit_are_refused(gpu):
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        make(precision="fp8")
    with pytest.raises(ValueError, match="for float32 parameters, these are float64"):
        make(small().astype(np.float64), precision="bf16")
    with pytest.raises(ValueError, match="for networks on a GPU"):
        make(small().to("cpu"), precision="tf32")
