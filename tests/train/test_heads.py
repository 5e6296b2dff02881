"""Training networks with auxiliary heads: steps, graphs, precisions, the loop, and whole runs."""

import contextlib
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import stirred
from small_heads import Small, images
from small_heads import small as with_heads
from small_runs import assert_equal_runs, complete, settings

from tinycnn import AuxiliaryLoss, CapturedStep, CrossEntropyLoss, Linear, models, optim
from tinycnn.backend import to_device, to_numpy
from tinycnn.models import Architecture
from tinycnn.train import NonFiniteError, Run, Trainer, evaluate, find_non_finite, load
from tinycnn.train.facts import Facts

LABELS = np.array([0, 2, 1, 2])


def make(model, graph=True, **options):
    model.require_dx(False)
    loss_fn = AuxiliaryLoss(CrossEntropyLoss(check_labels=False))
    return CapturedStep(model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9), loss_fn, graph=graph, **options)


def batches(count, device="cpu"):
    for i in range(count):
        x = images(dtype=np.float32, seed=i)
        yield to_device(x, device), to_device(np.random.default_rng(i).integers(0, 3, 4), device)


def results(step, count):
    return [(float(loss), to_numpy(logits)) for loss, logits in (step(x, y) for x, y in batches(count, "cuda"))]


def flat(step):
    return np.concatenate([to_numpy(p.data).ravel() for p in step.model.parameters()])


def state(step):
    return step.model.state_dict() | {f"{p.name}'": to_numpy(p.grad) for p in step.model.parameters()}


def assert_same(first, second):
    a, b = state(first), state(second)
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert first.model.random_state() == second.model.random_state()


# ---- steps -----------------------------------------------------------------------------------------------------


def test_three_steps_are_pytorchs():
    model, module = stirred(with_heads(), Small())
    step = make(model)
    theirs = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    for i in range(3):
        x = images(seed=i)
        y, a2, a1 = module(torch.from_numpy(x))
        t = torch.from_numpy(LABELS)
        loss = F.cross_entropy(y, t) + 0.3 * (F.cross_entropy(a2, t) + F.cross_entropy(a1, t))
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        our_loss, logits = step(x, LABELS)
        assert float(our_loss) == pytest.approx(loss.item(), rel=1e-10)
        np.testing.assert_allclose(logits, y.detach().numpy(), rtol=1e-9)
    wanted = dict(module.named_parameters())
    for name, p in model.named_parameters():
        np.testing.assert_allclose(p.data, wanted[name].detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=name)


def test_replayed_steps_are_eager_ones(gpu):
    captured, eager = (make(with_heads(dropout=0.3).to("cuda"), graph) for graph in (True, False))
    for (loss, logits), (other, others) in zip(results(captured, 8), results(eager, 8), strict=True):
        assert loss == other
        np.testing.assert_array_equal(logits, others)
    assert (captured.state, captured.reason) == ("captured", None)
    assert_same(captured, eager)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_mixed_precision_too(gpu, precision):
    pytest.importorskip("ml_dtypes")
    captured, eager, exact = (
        make(with_heads().to("cuda"), graph, precision=how)
        for graph, how in ((True, precision), (False, precision), (False, None))
    )
    for step in (captured, eager):
        if step.scaler is not None:
            step.scaler.load_state_dict({"scale": 256.0, "good": 0})
    start = flat(exact)
    for step in (captured, eager, exact):
        results(step, 1)
    moved, wanted = flat(captured) - start, flat(exact) - start
    assert 0 < np.linalg.norm(moved - wanted) < {"bf16": 0.05, "fp16": 0.01}[precision] * np.linalg.norm(wanted)
    assert results(captured, 6)[-1][0] == results(eager, 6)[-1][0]
    assert captured.state == "captured"
    assert_same(captured, eager)


def test_metrics_are_of_the_networks_own_scores():
    seen = []
    model = with_heads()
    step = make(model, then=lambda loss, logits, y: seen.append(logits))
    x, y = next(batches(1))
    _, logits = step(x, y)
    assert seen[0].shape == logits.shape == (4, 3)
    trainer = Trainer(with_heads(), step.optimizer, AuxiliaryLoss(CrossEntropyLoss()))
    assert trainer.step(x, y)[1].shape == (4, 3)


def test_a_loss_that_has_changed_is_seen_within_the_one_around_it():
    loss_fn = AuxiliaryLoss(CrossEntropyLoss())
    facts = Facts(with_heads(), loss_fn, {})
    assert facts.hold()
    loss_fn.loss_fn.label_smoothing = 0.1
    assert facts.difference().startswith("label_smoothing of CrossEntropyLoss")
    loss_fn.loss_fn.label_smoothing, loss_fn.weight = 0.0, 0.5
    assert facts.difference().startswith("weight of AuxiliaryLoss")


@pytest.mark.parametrize("ema", [False, True])
def test_a_batch_in_parts_is_the_whole_batch_with_heads_too(ema):
    """Losses mixed, labels smoothed, gradients clipped, weights averaged."""

    def learn(parts):
        model = with_heads(norm=False).astype(np.float64)
        optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        averages = optim.EMA(model, 0.5) if ema else None
        loss_fn = AuxiliaryLoss(CrossEntropyLoss(label_smoothing=0.1))
        step = CapturedStep(model, optimizer, loss_fn, clip_norm=0.05, ema=averages, accumulate=parts)
        for i in range(3):
            x = images(seed=i)
            for xs, ys in zip(np.split(x, parts), np.split(LABELS, parts), strict=True):
                step.run(xs, ys)
        with averages.averaged() if ema else contextlib.nullcontext():
            return model.state_dict()

    whole, parts = learn(1), learn(2)
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-11, atol=1e-14, err_msg=name)


# ---- the loop --------------------------------------------------------------------------------------------------


class Batches:
    def __len__(self):
        return 3

    def epoch(self, epoch, start=0):
        return list(batches(3))[start:]


def trainer(model):
    model.require_dx(False)
    return Trainer(model, optim.SGD(model.parameters(), lr=0.01), AuxiliaryLoss(CrossEntropyLoss()))


def test_validation_has_the_loss_without_heads():
    made = trainer(with_heads())
    assert made.fit(Batches(), 1, Batches())
    (row,) = made.history
    assert row["val_loss"] == evaluate(made.model, Batches(), CrossEntropyLoss())["loss"]
    assert row["train_loss"] > 1.3 * row["val_loss"]  # 1.6 times as much, were all equally good
    assert 0 <= row["train_accuracy"] <= 1


def test_a_loss_for_one_output_is_refused():
    made = trainer(with_heads())
    made.loss_fn = CrossEntropyLoss()
    with pytest.raises(ValueError, match="use AuxiliaryLoss around this loss"):
        made.fit(Batches(), 1)


def test_what_is_not_finite_is_found_in_a_head(gpu):
    model = with_heads()
    model["aux2"][3].bias.data[0] = np.inf
    assert find_non_finite(model, images(dtype=np.float32)).startswith("the output of aux2.3 (Linear")
    for device in ("cpu", "cuda"):
        assert find_non_finite(with_heads().to(device), to_device(images(dtype=np.float32), device)) is None
    odd = with_heads()
    odd["aux1"].add("3", Linear(16, 2))  # outputs of different widths are no array
    assert find_non_finite(odd, images(dtype=np.float32)) is None
    with pytest.raises(NonFiniteError, match="the parameter aux2"):
        trainer(model).fit(Batches(), 1)


# ---- runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def branching(monkeypatch):
    """An architecture that is trained with heads."""

    def build(classes, channels, *, aux_heads=False, rng):
        return with_heads(classes, channels=channels, dropout=0.2, seed=rng, heads=aux_heads)

    known = Architecture(build, (1, 8, 8), 0, 0, "", training={"aux_heads": True})
    monkeypatch.setitem(models.ARCHITECTURES, "branching", known)


def test_a_run_trains_with_heads_and_measures_without(small, branching, tmp_path):
    run = Run.new(settings(model="branching", epochs=2), tmp_path / "a")
    result = complete(run)
    assert json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["model"] == "branching"
    model = load(tmp_path / "a")
    assert model.architecture["aux_heads"] is True
    assert evaluate(model, run.test)["accuracy"] == result["test_accuracy"]
    assert model(np.zeros((2, 1, 8, 8), np.float32)).shape == (2, 10)


def test_a_run_that_is_stopped_goes_on_to_the_same_bits(small, branching, tmp_path):
    complete(Run.new(settings(model="branching"), tmp_path / "a"))
    run = Run.new(settings(model="branching"), tmp_path / "b")
    run.trainer.after_batch.append(lambda t: t.stop() if (t.epoch, t.batch) == (1, 2) else None)
    assert not run.fit()
    complete(Run.resume(tmp_path / "b", None, None))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
