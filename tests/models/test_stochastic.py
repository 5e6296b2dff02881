"""Stochastic depth: costs, names, the paper's survival and scale, PyTorch parity with the same choices."""

import numpy as np
import pytest
import torch
from helpers import assert_same_step, relative_error, stirred
from references import count
from references.stochastic import StochasticResNet

from tinycnn import StochasticBranch, StochasticDepth, gradcheck
from tinycnn.models import architecture, create, stochastic_resnet


def branches(model):
    return [layer for layer in model.layers() if isinstance(layer, StochasticBranch)]


def choices(model):
    """Which branches the next step keeps, from layers of another kind with the same random numbers."""
    found = []
    for branch in branches(model):
        depth = StochasticDepth(branch.drop.p, "batch")
        depth.stream.set_state(branch.drop.stream.state())
        found.append(bool(depth(np.ones((1, 1, 1, 1))).any()))
    return found


@pytest.mark.parametrize(("depth", "n"), [(110, 18), (1202, 200)])
def test_costs_and_names_are_pytorchs(depth, n):
    known = architecture(f"stochastic_resnet{depth}")
    with torch.device("meta"):
        module = StochasticResNet(n)
        assert count(module, known.input_shape) == (known.parameters, known.macs)
    ours = create(f"stochastic_resnet{depth}", initialize=False)
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }
    assert [1 - b.drop.p for b in branches(ours)] == pytest.approx([b.survival for b in module.blocks])


def test_survival_falls_linearly_to_a_half():
    kept = [1 - branch.drop.p for branch in branches(create("stochastic_resnet110", initialize=False))]
    assert len(kept) == 54
    assert (kept[0], kept[26], kept[-1]) == pytest.approx((1 - 0.5 / 54, 0.75, 0.5))
    np.testing.assert_allclose(np.diff(kept), -0.5 / 54)


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_step_is_the_papers(evaluate):
    """With γ and β divided by the survival, as they scale in the paper; other gradients are the same."""
    model = stochastic_resnet(20, 5, 2, survival=0.3, rng=np.random.default_rng(6))
    module = StochasticResNet(3, 0.3, 5, 2).double()
    stirred(model, StochasticResNet(3, 0.3, 5, 2))
    module.take(model.state_dict())
    if evaluate:
        model.eval(backward=True)
        module.eval()
    kept = choices(model)
    assert 0 < sum(kept) < 9
    for block, is_kept in zip(module.blocks, kept, strict=True):
        block.open = is_kept
    x = np.random.default_rng(0).standard_normal((3, 2, 14, 10))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = model(x), module(x_torch)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(y, y_torch.detach().numpy()) < 1e-10
    assert relative_error(model.backward(dy), x_torch.grad.numpy()) < 1e-10
    survival = {f"layer{i // 3 + 1}.{i % 3}.bn2": block.survival for i, block in enumerate(module.blocks)}
    wanted = dict(module.named_parameters())
    for name, p in model.named_parameters():
        if wanted[name].grad is None:
            assert not p.grad.any(), name
        else:
            scaled = wanted[name].grad.numpy() / survival.get(name.rpartition(".")[0], 1)
            assert relative_error(p.grad, scaled) < 1e-9, name
    buffers = dict(module.named_buffers())
    for name, value in model.named_buffers():
        assert relative_error(value, buffers[name].numpy()) < 1e-12, name


def test_evaluation_is_the_plain_network():
    model, plain = create("stochastic_resnet110", seed=1).eval(), create("resnet110").eval()
    plain.load_state_dict(model.state_dict())
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(model(x), plain(x), rtol=1e-4, atol=1e-5)


def test_the_first_step_is_the_papers():
    model = stochastic_resnet(20)
    module = StochasticResNet(3)
    module.take(model.state_dict())
    for block in module.blocks:
        assert (block.bn2.weight == 1).all()
        assert (block.bn2.bias == 0).all()


def test_a_branch_is_dropped_as_often_as_asked():
    model = stochastic_resnet(8, survival=0.2, rng=np.random.default_rng(2))
    steps = 2000
    kept = np.zeros(3)
    for _ in range(steps):
        kept += choices(model)
        for branch in branches(model):
            branch.drop.stream.step += 1
    survival = 1 - np.arange(1, 4) / 3 * 0.8
    assert (np.abs(kept - steps * survival) < 5 * np.sqrt(steps * survival * (1 - survival))).all()


def test_gradients_of_a_block():
    model = stochastic_resnet(8, in_channels=2, survival=0.9, rng=np.random.default_rng(0))
    report = gradcheck(model["layer2"][0].astype(np.float64), np.random.default_rng(1).standard_normal((2, 16, 4, 3)))
    assert report.ok, str(report)


def test_checkpointing_changes_nothing():
    plain, kept = (
        stochastic_resnet(14, survival=0.2, checkpointed=c, rng=np.random.default_rng(5)) for c in (False, True)
    )
    assert 0 < sum(choices(plain)) < 6
    for _ in range(3):
        assert_same_step(plain, kept, np.random.default_rng(1).standard_normal((3, 3, 12, 9)).astype(np.float32))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 2 .* got 111"):
        stochastic_resnet(111)
    with pytest.raises(ValueError, match=r"survival is the probability .* got 1\.5"):
        create("stochastic_resnet110", survival=1.5)
    with pytest.raises(ValueError, match="shortcut must be 'A'"):
        create("stochastic_resnet110", shortcut="none")
