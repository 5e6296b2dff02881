"""The loop: its arithmetic, its counting, and stopping and going on at any batch."""

import json

import numpy as np
import pytest
from small_trainers import BATCH, CLASSES, N, images, loader, make, network, same

from tinycnn import optim
from tinycnn.data import Loader, RandomShift
from tinycnn.layers import Linear
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import NonFiniteError, Trainer, evaluate

# ---- arithmetic --------------------------------------------------------------------------------------------


def test_step_is_gradient_descent_on_softmax_regression():
    """One linear layer, by hand: W ← W − lr·(p − y)ᵀx/N."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 3)), rng.integers(0, CLASSES, 5)
    layer = Linear(3, CLASSES, rng=rng).astype(np.float64)
    w, b = layer.weight.data.copy(), layer.bias.data.copy()
    trainer = Trainer(layer, optim.SGD(layer.parameters(), lr=0.5), CrossEntropyLoss())
    for _ in range(3):
        z = np.exp(x @ w.T + b)
        p = z / z.sum(axis=1, keepdims=True)
        expected_loss = -np.log(p[np.arange(5), y]).mean()
        loss, logits = trainer.step(x, y)
        assert float(loss) == pytest.approx(expected_loss, rel=1e-12)
        assert logits.shape == (5, CLASSES)
        d = (p - np.eye(CLASSES)[y]) / 5
        w, b = w - 0.5 * d.T @ x, b - 0.5 * d.sum(axis=0)
        np.testing.assert_allclose(layer.weight.data, w, rtol=1e-12)
        np.testing.assert_allclose(layer.bias.data, b, rtol=1e-12)


def test_clipping_happens_between_backward_and_step():
    layer = Linear(3, 2, rng=np.random.default_rng(0)).astype(np.float64)
    before = [p.data.copy() for p in layer.parameters()]
    trainer = Trainer(layer, optim.SGD(layer.parameters(), lr=1.0), CrossEntropyLoss(), clip_norm=1e-3)
    trainer.step(np.random.default_rng(1).normal(size=(4, 3)), np.array([0, 1, 1, 0]))
    moved = np.sqrt(sum(((p.data - old) ** 2).sum() for p, old in zip(layer.parameters(), before, strict=True)))
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_nobody_computes_the_gradient_of_the_images():
    trainer = make()
    assert trainer.model[0].needs_dx is False
    assert trainer.model[1].needs_dx is True


def test_row_counts_every_image_once():
    """A learning rate of (nearly) 0 freezes the weights: the row must hold the mean over all images."""
    model = network(dropout=0.0)
    del model._children["1"]  # without BatchNorm the images of a batch do not see each other
    made = optim.SGD(model.parameters(), lr=1e-30)
    trainer = Trainer(model, made, CrossEntropyLoss())
    assert trainer.fit(loader(), 2, loader(shuffle=False, batch=9))
    x, y = images()
    logits = model.eval()(np.asarray(x, np.float32) / 255)
    z = logits - logits.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(N), y]
    assert [row["epoch"] for row in trainer.history] == [1, 2]
    assert trainer.sums.state() == [0.0, 0, 0, 0]
    for row in trainer.history:
        for part in ("train", "val"):
            assert row[f"{part}_loss"] == pytest.approx(losses.mean(), rel=1e-5)
            assert row[f"{part}_accuracy"] == (logits.argmax(axis=1) == y).mean()
        json.dumps(row)


def test_validation_may_have_a_loss_of_its_own():
    """Labels that are smoothed in training are not in validation; what is left to the loss is to the other's."""
    plain, smooth = CrossEntropyLoss(), CrossEntropyLoss(label_smoothing=0.3)
    held_out = loader(shuffle=False)
    for own, expected in ((plain, plain), (None, smooth)):
        trainer = make()
        trainer.loss_fn, trainer.val_loss_fn = smooth, own
        trainer.fit(loader(), 1, held_out)
        assert trainer.history[0]["val_loss"] == evaluate(trainer.model, held_out, expected)["loss"]


def test_fit_is_in_training_mode_whatever_the_network_was_in():
    trainer = make()
    trainer.model.eval()
    trainer.fit(loader(), 1)
    assert trainer.model[1].num_batches_tracked == len(loader())


# ---- schedules ---------------------------------------------------------------------------------------------


def test_schedule_is_stepped_after_every_batch():
    seen = []
    trainer = make(
        schedule="polynomial", epochs=2, after_batch=[lambda t: seen.append(t.optimizer.param_groups[0]["lr"])]
    )
    trainer.fit(loader(), 2)
    total = 2 * len(loader())
    np.testing.assert_allclose(seen, [0.05 * (1 - k / total) for k in range(1, total + 1)], atol=1e-12)


def test_plateau_is_stepped_after_every_epoch_with_the_validation_loss():
    losses = []
    trainer = make(schedule="plateau", after_epoch=[lambda t, row: losses.append(row["val_loss"])])
    trainer.fit(loader(), 3, loader(shuffle=False))
    assert trainer.schedule.last_epoch == 3
    assert trainer.schedule.best in losses


# ---- stopping and going on ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimizer", "schedule"), [("momentum", "cosine"), ("adam", "onecycle"), ("sgd", "plateau")])
@pytest.mark.parametrize("stop_at", [1, 5, 7, 10, 14])
def test_stopped_and_resumed_equals_uninterrupted(optimizer, schedule, stop_at):
    """Dropout, BatchNorm, augmentation, momentum and schedule all in play; batches 5 and 10 end an epoch."""
    train, held_out = loader(transform=RandomShift(1)), loader(shuffle=False)
    whole = make(optimizer, schedule)
    assert whole.fit(train, 4, held_out)

    count = []

    def stop(trainer):
        count.append(1)
        if len(count) == stop_at:
            trainer.stop()

    first = make(optimizer, schedule, after_batch=[stop])
    assert not first.fit(train, 4, held_out)
    assert first.epoch * len(train) + first.batch == stop_at
    state = first.state_dict()
    arrays = {key: state.pop(key) for key in ("model",)}
    slots_of_optimizer, rest = optim.split_state(state.pop("optimizer"))
    state = json.loads(json.dumps(state))  # as a file would bring it back
    state |= arrays | {"optimizer": optim.join_state(slots_of_optimizer, json.loads(json.dumps(rest)))}
    second = make(optimizer, schedule)
    second.model[3].p = 0.3
    second.load_state_dict(state)
    assert second.fit(train, 4, held_out)
    same(whole, second)


def test_what_a_resumed_run_needs_is_really_needed():
    """Leaving any one part of the state out changes the result: the test above is not blind."""
    train = loader(transform=RandomShift(1))
    whole = make()
    whole.fit(train, 3)
    first = make(after_batch=[lambda t: t.stop() if t.epoch == 1 and t.batch == 2 else None])
    first.fit(train, 3)
    state = first.state_dict()
    for part in ("model", "optimizer", "schedule", "random", "batch", "sums"):
        second = make()
        fresh = second.state_dict()
        second.load_state_dict(state | {part: fresh[part]})
        second.fit(train, 3)
        with pytest.raises(AssertionError):
            same(whole, second)


def test_stop_before_the_first_batch_and_fit_again():
    trainer = make()
    trainer.stop()
    assert not trainer.fit(loader(), 2)
    assert trainer.batch == 0
    assert trainer.fit(loader(), 2)
    assert trainer.fit(loader(), 2)
    assert len(trainer.history) == 2


def test_a_state_in_memory_is_not_of_what_happens_after_it():
    trainer = make()
    trainer.fit(loader(), 1)
    state = trainer.state_dict()
    trainer.fit(loader(), 3)
    assert len(state["history"]) == 1
    again = make()
    again.load_state_dict(state)
    again.fit(loader(), 3)
    same(trainer, again)


# ---- runaway numbers ---------------------------------------------------------------------------------------


def test_loss_that_becomes_nan_names_epoch_batch_and_layer():
    trainer = make()

    def poison(trainer):
        if trainer.epoch == 1 and trainer.batch == 2:
            trainer.model[5].bias.data[...] = 3e38
            trainer.model[5].weight.data[...] = 3e38

    trainer.after_batch.append(poison)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(loader(), 3)
    assert str(caught.value).startswith(
        "loss became nan at epoch 2, batch 3: first non-finite value in the output of 5 (Lin"
    )
    assert trainer.epoch == 1


def test_an_update_that_overflows_is_found_before_the_epoch_is_kept():
    kept = []
    trainer = make(after_epoch=[lambda t, row: kept.append(row)])
    trainer.after_batch.append(lambda t: t.model[0].weight.data.fill(np.inf) if t.batch == 5 else None)
    with pytest.raises(
        NonFiniteError, match=r"weights became infinite or nan at epoch 1, batch 5: .*parameter 0.weight"
    ):
        trainer.fit(loader(), 3)
    assert kept == []


def test_a_loss_that_is_not_looked_at_is_noticed_at_the_end_of_the_epoch():
    """On a GPU only some losses are; the last batch's weights may be fine all the same."""
    kept = []
    trainer = make(after_epoch=[lambda t, row: kept.append(row)])
    trainer._check_every = 100
    right = trainer.loss_fn

    def sometimes_infinite(logits, targets):
        loss, dlogits = right(logits, targets)
        return (loss * np.inf, dlogits) if len(logits) < BATCH else (loss, dlogits)

    trainer.loss_fn = sometimes_infinite
    with pytest.raises(NonFiniteError, match="the mean loss became inf at epoch 1, batch 5"):
        trainer.fit(loader(), 1)
    assert kept == []


def test_the_rerun_draws_the_same_dropout(monkeypatch):
    """The diagnosis sends the batch through once more: with another mask it might not find the layer."""
    trainer = make()
    drawn = []
    stream = trainer.model[3].stream
    on = stream.on
    monkeypatch.setattr(stream, "on", lambda device: (drawn.append(stream.step), on(device))[1])
    trainer.model[5].weight.data[...] = 3e38
    with pytest.raises(NonFiniteError):
        trainer.fit(loader(), 1)
    assert drawn == [0, 0]


def test_parameters_thawed_between_epochs_are_trained():
    trainer = make()
    first = trainer.model[0].weight
    before = first.data.copy()
    first.requires_grad = trainer.model[0].bias.requires_grad = False
    trainer.model.require_dx(False)  # as a trainer made now does
    trainer.fit(loader(), 1)
    np.testing.assert_array_equal(first.data, before)
    first.requires_grad = True
    trainer.fit(loader(), 2)
    assert (first.data != before).any()


@pytest.mark.parametrize("first", [0, 1])
def test_labels_that_are_no_classes_are_told_at_the_latest_when_the_epoch_ends(gpu, first):
    x, y = images()
    y[first * BATCH + 5] = CLASSES + 3
    batches = Loader(gpu.asarray(x), gpu.asarray(y), BATCH, shuffle=False)
    model = network(dropout=0.0).to("cuda")
    trainer = Trainer(model, optim.SGD(model.parameters(), lr=0.01), CrossEntropyLoss())
    with pytest.raises(ValueError, match=rf"label {CLASSES + 3} at position 5"):
        trainer.fit(batches, 1)
    with pytest.raises(ValueError, match=rf"label {CLASSES + 3} at position 5"):
        evaluate(network().to("cuda"), batches)
