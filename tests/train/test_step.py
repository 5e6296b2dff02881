"""Batches that accumulate: the update of one large batch, PyTorch's, and with all that goes with it."""

import json

import numpy as np
import pytest
import torch
from small_trainers import BATCH

from tinycnn import CapturedStep, optim
from tinycnn.backend import to_device, to_numpy
from tinycnn.layers import BatchNorm2d, Conv2d, Dropout, Flatten, Linear, ReLU, Sequential
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import state

LR, DECAY = 0.3, 0.01


def network(seed=0):
    """Without batch normalisation: the examples of a batch do not see each other."""
    rng = np.random.default_rng(seed)
    parts = Conv2d(2, 3, 3, rng=rng), ReLU(), Flatten(), Linear(3 * 9, 4, rng=rng)
    return Sequential(*parts).astype(np.float64)


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 2, 5, 5)), rng.integers(0, 4, count)


def make(model=None, accumulate=1, name="momentum", smoothing=0.1, **options):
    model = network() if model is None else model
    model.require_dx(False)
    optimizer = optim.create(name, model.parameters(), lr=LR, weight_decay=DECAY)
    return CapturedStep(model, optimizer, CrossEntropyLoss(label_smoothing=smoothing), accumulate=accumulate, **options)


def values(step):
    return {p.name: p.data.copy() for p in step.model.parameters()}


def assert_near(one, other, rtol=1e-12):
    for name, value in values(one).items():
        np.testing.assert_allclose(value, values(other)[name], rtol=rtol, atol=1e-15, err_msg=name)


@pytest.mark.parametrize("sizes", [[4, 4, 4], [5, 5, 2], [6, 1, 5], [12]])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_parts_are_the_whole(sizes, clip):
    """Three updates, each by the parts and by the whole batch; the clipping bites."""
    whole, parts = make(clip_norm=clip), make(accumulate=len(sizes), clip_norm=clip)
    for i in range(3):
        x, y = images(sum(sizes), seed=i)
        whole.run(x, y)
        assert clip is None or optim.grad_norm(whole.model) == pytest.approx(clip, rel=1e-4)
        for s in np.split(np.arange(len(x)), np.cumsum(sizes)[:-1]):
            before = values(parts)
            assert all(np.array_equal(value, values(parts)[name]) for name, value in before.items())
            parts.run(x[s], y[s])
        assert parts.waiting == 0
        assert_near(whole, parts)


def test_the_last_group_may_be_shorter():
    whole, parts = make(), make(accumulate=4)
    x, y = images(13)
    whole.run(x, y)
    parts.run(x[:5], y[:5])
    parts.run(x[5:10], y[5:10])
    assert parts.waiting == 2
    parts.run(x[10:], y[10:], last=True)
    assert parts.waiting == 0
    assert_near(whole, parts)


def test_is_pytorchs():
    """In PyTorch each part's loss is weighted by hand; clipping and momentum come after."""
    step = make(accumulate=3, clip_norm=0.5)
    twin = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(27, 4))
    twin.double()
    for p, q in zip(step.model.parameters(), twin.parameters(), strict=True):
        q.data[...] = torch.tensor(np.ascontiguousarray(p.data))
    theirs = torch.optim.SGD(twin.parameters(), lr=LR, momentum=0.9, weight_decay=DECAY)
    for i in range(4):
        x, y = images(16, seed=i)
        theirs.zero_grad()
        for s in (slice(6), slice(6, 12), slice(12, 16)):
            logits = twin(torch.tensor(x[s]))
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(y[s]), label_smoothing=0.1)
            (loss * len(y[s]) / 16).backward()
            ours, _ = step.run(x[s], y[s])
            assert float(ours) == pytest.approx(loss.item(), rel=1e-12)
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        theirs.step()
    for p, q in zip(step.model.parameters(), twin.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.detach().numpy(), rtol=1e-11, atol=1e-14)


def test_nothing_moves_before_the_group_is_complete():
    step = make(accumulate=3)
    before = values(step)
    for i in range(2):
        step.run(*images(BATCH, seed=i))
        assert all(np.array_equal(value, before[name]) for name, value in values(step).items())
    step.run(*images(BATCH, seed=2))
    assert all((value != before[name]).any() for name, value in values(step).items())


def test_parameters_that_the_optimizer_has_not_count_in_the_norm():
    def steps(accumulate):
        model = network()
        optimizer = optim.SGD(model[3].parameters(), lr=LR)
        return CapturedStep(model, optimizer, CrossEntropyLoss(), clip_norm=0.01, accumulate=accumulate)

    whole, parts = steps(1), steps(2)
    for i in range(2):
        x, y = images(9, seed=i)
        whole.run(x, y)
        parts.run(x[:5], y[:5])
        parts.run(x[5:], y[5:])
    assert_near(whole, parts)


def test_averages_move_with_updates():
    model = network()
    step = make(model, accumulate=2, ema=optim.EMA(model, 0.5))
    before = values(step)["3.bias"]
    after = []
    for i in range(6):
        step.run(*images(4, seed=i))
        after.append(values(step)["3.bias"])
    # three updates: the first is taken as it is, each of the others moves half the way
    expected = 0.5 * (0.5 * (after[1] + after[3]) + after[5])
    with step.ema.averaged():
        np.testing.assert_allclose(model[3].bias.data, expected, rtol=1e-14)
    assert step.ema.updates == 3
    np.testing.assert_array_equal(after[0], before)


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
def test_a_group_that_was_interrupted_is_gone_on_with(stop):
    batches = [images(n, seed=i) for i, n in enumerate((4, 4, 3, 4, 2, 4))]
    whole, first, rest = (make(accumulate=3) for _ in range(3))
    for x, y in batches:
        whole.run(x, y)
    for x, y in batches[:stop]:
        first.run(x, y)
    arrays, text = state.split(first.state_dict())
    assert (text is None) == (stop == 3)
    rest.model.load_state_dict(first.model.state_dict())
    rest.optimizer.load_state_dict(first.optimizer.state_dict())
    rest.model.forward(batches[0][0])
    rest.load_state_dict(state.join(arrays, json.loads(json.dumps(text))))
    for x, y in batches[stop:]:
        rest.run(x, y)
    for name, value in values(whole).items():
        np.testing.assert_array_equal(value, values(rest)[name])


def test_a_larger_group_than_there_can_be_is_refused():
    step = make(accumulate=3)
    step.run(*images(4))
    step.run(*images(4))
    with pytest.raises(ValueError, match="2 batches wait for an update in this state, and accumulate is 2"):
        make(accumulate=2).load_state_dict(step.state_dict())
    with pytest.raises(ValueError, match="accumulate must be at least 1, got 0"):
        make(accumulate=0)


def test_a_step_that_fails_gives_its_group_up():
    step = make(accumulate=2)
    clean = make(accumulate=2)
    step.run(*images(4, seed=9))
    with pytest.raises(Exception, match="axis 1"):
        step.run(np.zeros((4, 3, 5, 5)), np.zeros(4, np.int64))
    for i in range(2):
        step.run(*images(4, seed=i))
        clean.run(*images(4, seed=i))
    assert_near(step, clean, rtol=0)


# ---- on a GPU ----------------------------------------------------------------------------------------------


def normed(dropout=0.25):
    rng = np.random.default_rng(0)
    parts = Conv2d(2, 4, 3, padding=1, rng=rng), BatchNorm2d(4), ReLU(), Dropout(dropout, rng=rng), Flatten()
    return Sequential(*parts, Linear(4 * 25, 4, rng=rng)).to("cuda")


def pair(name="momentum", dropout=0.25, **options):
    """A step that is captured, and one that is not."""
    for graph in (True, False):
        model = normed(dropout)
        model.require_dx(False)
        optimizer = optim.create(name, model.parameters(), lr=0.05)
        ema = optim.EMA(model, 0.5, use_buffers=True, warmup=True)
        loss_fn = CrossEntropyLoss(label_smoothing=0.1, check_labels=False)
        yield CapturedStep(model, optimizer, loss_fn, ema=ema, graph=graph, **options)


def learn(step, sizes, start=0):
    """Losses of batches of these sizes; each goes with a random seed of its own."""
    for i, n in enumerate(sizes, start=start):
        x, y = images(n, seed=i)
        loss, _ = step.run(to_device(x.astype(np.float32), "cuda"), to_device(y, "cuda"), None, n < 4)
        yield float(loss)


def assert_twins(one, other):
    for ours, theirs in ((one.model, other.model), (one.optimizer, other.optimizer), (one.ema, other.ema)):
        np.testing.assert_equal(ours.state_dict(), theirs.state_dict())
    assert one.waiting == other.waiting


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_replayed_steps_are_eager_ones_with_averages_and_groups(gpu, accumulate, name):
    """Smoothing, clipping, dropout, batch statistics; small batches end a group before its time."""
    captured, eager = pair(name, accumulate=accumulate, clip_norm=0.5)
    sizes = [4] * 10 + [2] + [4] * 4 + [3] + [4] * 5
    assert list(learn(captured, sizes)) == list(learn(eager, sizes))
    assert (captured.state, captured.reason, eager.state) == ("captured", None, "eager")
    assert captured.ema.updates == {1: 21, 2: 11, 3: 7}[accumulate]
    assert_twins(captured, eager)


def test_a_graph_of_the_averages_is_not_kept_when_they_are_others(gpu):
    captured, eager = pair()
    for step in (captured, eager):
        list(learn(step, [4] * 6))
        step.ema = optim.EMA(step.model, 0.25)
        list(learn(step, [4] * 6, start=6))
    assert captured.state == "captured"
    assert_twins(captured, eager)


def test_an_optimizer_without_a_kernel_can_be_used_with_groups(gpu):
    class Halves(optim.SGD):
        def update(self, parts, group, past):
            for p, g, *_ in parts:
                p -= 0.5 * g

    states = []
    for graph in (True, False):
        model = normed()
        step = CapturedStep(model, Halves(model.parameters(), lr=0.1), CrossEntropyLoss(), accumulate=2, graph=graph)
        step.loss_fn.check_labels = False
        list(learn(step, [4] * 8))
        states.append((step.state, model.state_dict()))
    assert [name for name, _ in states] == ["captured", "eager"]
    np.testing.assert_equal(states[0][1], states[1][1])


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_groups_in_other_precisions(gpu, precision):
    pytest.importorskip("ml_dtypes")
    captured, eager = pair(accumulate=2, precision=precision, dropout=0.0)
    (exact, _) = pair(accumulate=2, dropout=0.0)
    for step in (captured, eager):
        if step.scaler is not None:
            step.scaler.load_state_dict({"scale": 256.0, "good": 0})
    assert list(learn(captured, [4] * 8)) == list(learn(eager, [4] * 8))
    assert captured.state == "captured"
    assert_twins(captured, eager)
    list(learn(exact, [4] * 8))
    weights = [np.concatenate([to_numpy(p.data).ravel() for p in s.model.parameters()]) for s in (captured, exact)]
    assert np.linalg.norm(weights[0] - weights[1]) < 0.05 * np.linalg.norm(weights[1])


def test_a_part_that_overflows_leaves_the_whole_update_out(gpu):
    pytest.importorskip("ml_dtypes")
    step, _ = pair(accumulate=2, precision="fp16", dropout=0.0)
    list(learn(step, [4] * 8))
    assert step.state == "captured"
    before, scale = [to_numpy(p.data) for p in step.model.parameters()], step.scaler.get_scale()
    list(learn(step, [4], start=8))
    step.scaler._scale.fill(1e30)
    list(learn(step, [4], start=9))
    assert step.scaler.get_scale() < 1e30
    for p, old in zip(step.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(to_numpy(p.data), old)
    step.scaler.load_state_dict({"scale": scale, "good": 0})
    list(learn(step, [4, 4], start=10))
    assert any((to_numpy(p.data) != old).any() for p, old in zip(step.model.parameters(), before, strict=True))
