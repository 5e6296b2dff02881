"""A branch that is left out: the numbers of StochasticDepth, and no work where it is dropped."""

import numpy as np
import pytest
from helpers import devices, is_channels_last

from tinycnn import (
    BatchNorm2d,
    CapturedStep,
    Checkpointed,
    Conv2d,
    CrossEntropyLoss,
    Flatten,
    Linear,
    Sequential,
    StochasticBranch,
    StochasticDepth,
    Tanh,
    optim,
)
from tinycnn.backend import to_device, to_numpy
from tinycnn.layers.base import LayerError


def branch(seed=0):
    rng = np.random.default_rng(seed)
    return Sequential(Conv2d(3, 5, 3, stride=2, rng=rng, dtype=np.float64), BatchNorm2d(5, dtype=np.float64), Tanh())


def images():
    return np.random.default_rng(0).standard_normal((4, 3, 9, 8))


def both(p, key=3):
    """The layer, and the branch with a StochasticDepth behind it, drawing the same numbers."""
    ours = StochasticBranch(branch(), p, rng=np.random.default_rng(1))
    plain = branch().append(StochasticDepth(p, rng=np.random.default_rng(1)))
    ours.drop.stream.seed(key)
    plain[3].stream.seed(key)
    return ours, plain


@pytest.mark.parametrize("evaluate", [False, True])
@pytest.mark.parametrize("p", [0.0, 0.4, 1.0])
def test_it_is_the_branch_with_stochastic_depth_behind(p, evaluate):
    ours, plain = both(p)
    if evaluate:
        ours.eval(backward=True)
        plain.eval(backward=True)
    dropped = []
    for seed in range(12):
        x, dy = images(), np.random.default_rng(seed).standard_normal((4, 5, 4, 3))
        y, wanted = ours(x), plain(x)
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(ours.backward(dy), plain.backward(dy))
        dropped.append(not y.any())
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        np.testing.assert_array_equal(a.grad, b.grad)
    assert ours.drop.stream.state() == plain[3].stream.state()
    assert set(dropped) == ({False} if evaluate else {0.0: {False}, 0.4: {False, True}, 1.0: {True}}[p])


def test_a_dropped_branch_does_not_run():
    ours, _ = both(1.0)
    before = ours.state_dict()
    ours.layer[0].forward = ours.layer[0].backward = None
    y = ours(images())
    assert y.shape == (4, 5, 4, 3)
    assert is_channels_last(y)
    assert not y.any()
    dx = ours.backward(y)
    assert dx.shape == images().shape
    assert is_channels_last(dx)
    assert not dx.any()
    for name, value in ours.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert not any(p.grad.any() for p in ours.parameters())


@pytest.mark.parametrize("device", ["stand-in", *devices()[1:]])
def test_running_statistics_are_those_of_the_kept_batches_on_every_device(device, monkeypatch):
    if device == "stand-in":
        import strict_cupy

        strict_cupy.install(monkeypatch)
    here, there = both(0.5)[0], both(0.5)[0].to("cuda")
    kept = 0
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((4, 3, 9, 8))
        y = here(x)
        kept += bool(y.any())
        np.testing.assert_allclose(to_numpy(there(to_device(x, "cuda"))), y, rtol=1e-10, atol=1e-12)
    assert 0 < kept < 8
    assert here.layer[1].num_batches_tracked == kept
    for value, other in zip(here.buffers(), there.buffers(), strict=True):
        np.testing.assert_allclose(to_numpy(other), value, rtol=1e-12)


def test_a_captured_step_chooses_anew_at_every_replay(gpu):
    found = []
    for graph in (True, False):
        ours = StochasticBranch(branch(), 0.5, rng=np.random.default_rng(2))
        head = Linear(60, 3, rng=np.random.default_rng(3), dtype=np.float64)
        model = Sequential(ours, Flatten(), head).to("cuda")
        model.require_dx(False)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        step = CapturedStep(model, optimizer, CrossEntropyLoss(check_labels=False), graph=graph)
        x, labels = to_device(images(), "cuda"), to_device(np.arange(4) % 3, "cuda")
        losses = [float(step(x, labels)[0]) for _ in range(16)]
        found.append((losses, model.state_dict()))
        assert step.state == ("captured" if graph else "eager")
        assert 0 < ours.layer[1].num_batches_tracked < 16
    (losses, one), (others, other) = found
    assert losses == others
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


def test_repeated_in_a_checkpoint_it_chooses_alike():
    plain, kept = both(0.5)[0], Checkpointed(both(0.5)[0])
    for seed in range(8):
        x, dy = images(), np.random.default_rng(seed).standard_normal((4, 5, 4, 3))
        np.testing.assert_array_equal(plain(x), kept(x))
        np.testing.assert_array_equal(plain.backward(dy), kept.backward(dy))
    for (name, value), other in zip(plain.state_dict().items(), kept.state_dict().values(), strict=True):
        np.testing.assert_array_equal(value, other, err_msg=name)


def test_it_takes_any_rank_and_says_what_it_is():
    ours = StochasticBranch(Tanh(), 1.0)
    assert not ours(np.ones((2, 3))).any()
    assert repr(ours) == "StochasticBranch(Tanh(), p=1.0)"
    with pytest.raises(LayerError, match="from 0 to 1, got 2"):
        StochasticBranch(Tanh(), 2)
