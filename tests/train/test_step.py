"""Batches that accumulate: the update of one large batch, PyTorch's, and with all that goes with it."""

import json

import numpy as np
import pytest
import torch
from small_trainers import BATCH

from tinycnn import CapturedStep, optim
from tinycnn.layers import Conv2d, Flatten, Linear, ReLU, Sequential
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
