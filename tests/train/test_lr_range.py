"""The range test: its rates and losses, what it suggests, and that it leaves nothing behind."""

import math
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image
from small_trainers import loader, network

from tinycnn import CrossEntropyLoss, Linear, optim
from tinycnn.train import LRRange, Trainer, lr_range_test
from tinycnn.train.lr_range import running_means, suggest


def everything(model, optimizer):
    state = optimizer.state_dict()
    return {
        "weights": model.state_dict(),
        "gradients": {p.name: None if p.is_clear else p.grad.copy() for p in model.parameters()},
        "slots": state.pop("state"),
        "optimizer": state,
        "random": {path: [int(v) for v in s] for path, s in model.random_state().items()},
        "modes": [(layer.training, layer.saving, layer.needs_dx, layer.reached) for layer in model.layers()],
    }


def test_losses_are_of_gradient_descent_with_growing_rates():
    """One linear layer, by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 3)), rng.integers(0, 4, 6)
    layer = Linear(3, 4, rng=rng).astype(np.float64)
    w, b = layer.weight.data.copy(), layer.bias.data.copy()
    found = lr_range_test(layer, optim.SGD(layer.parameters()), CrossEntropyLoss(), [(x, y)], 1e-3, 10.0, 9)
    np.testing.assert_allclose(found.lrs, 10.0 ** (-3 + np.arange(9) / 2), rtol=1e-12)
    for lr, loss in zip(found.lrs, found.losses, strict=True):
        z = np.exp(x @ w.T + b)
        p = z / z.sum(axis=1, keepdims=True)
        assert loss == pytest.approx(-np.log(p[np.arange(6), y]).mean(), rel=1e-10)
        d = (p - np.eye(4)[y]) / 6
        w, b = w - lr * d.T @ x, b - lr * d.sum(axis=0)


@pytest.mark.parametrize("name", ["momentum", "adamw", "rmsprop"])
@pytest.mark.parametrize("trained", [False, True])
def test_everything_is_put_back_to_the_bit(name, trained):
    """Dropout, running statistics, momentum, a schedule, a frozen layer; also after it has run away."""
    model = network()
    model.freeze("0")
    optimizer = optim.create(name, model.parameters(), lr=0.05)
    schedule = optim.create_schedule("cosine", optimizer, 50)
    if trained:
        Trainer(model, optimizer, CrossEntropyLoss(), schedule=schedule).fit(loader(), 1)
    before = everything(model, optimizer)
    found = lr_range_test(model, optimizer, CrossEntropyLoss(), loader(), highest=1e8, steps=60)
    assert found.diverged
    np.testing.assert_equal(everything(model, optimizer), before)


def test_a_training_goes_on_as_if_there_had_been_no_test():
    def trained(test):
        model = network()
        optimizer = optim.create("momentum", model.parameters(), lr=0.05)
        trainer = Trainer(model, optimizer, CrossEntropyLoss())
        trainer.fit(loader(), 1)
        if test:
            lr_range_test(model, optimizer, CrossEntropyLoss(), loader())
        trainer.fit(loader(), 2)
        return model.state_dict()

    np.testing.assert_equal(trained(True), trained(False))


def test_it_is_put_back_after_an_error_too():
    model = network()
    optimizer = optim.create("adam", model.parameters(), lr=0.05)
    before = everything(model, optimizer)

    def fails(done, total):
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lr_range_test(model, optimizer, CrossEntropyLoss(), loader(), progress=fails)
    np.testing.assert_equal(everything(model, optimizer), before)


def test_groups_keep_their_ratios():
    model, seen = network(), []
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[5].parameters(), "lr": 0.02}]
    optimizer = optim.SGD(groups)

    def note(done, total):
        seen.append(tuple(group["lr"] for group in optimizer.param_groups))

    found = lr_range_test(model, optimizer, CrossEntropyLoss(), loader(), 1e-4, 1e-2, 5, progress=note)
    assert [a for a, _ in seen] == pytest.approx(found.lrs)
    assert [b for _, b in seen] == pytest.approx([0.2 * lr for lr in found.lrs])


def test_epochs_follow_one_another():
    seen = []

    class Counts:
        def __len__(self):
            return 3

        def epoch(self, epoch, start=0):
            for i, batch in enumerate(list(loader().epoch(epoch))[:3]):
                seen.append((epoch, i))
                yield batch

    model = network()
    lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), Counts(), highest=1e-3, steps=7)
    assert seen == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]


# ---- what is made of it ------------------------------------------------------------------------------------


def test_running_means_are_corrected_for_their_start():
    assert running_means([2.0] * 20, 0.9) == pytest.approx([2.0] * 20)
    weights = 0.5 ** np.arange(4)[::-1]
    assert running_means([1.0, 5.0, 2.0, 7.0], 0.5)[-1] == pytest.approx((weights * [1, 5, 2, 7]).sum() / weights.sum())
    assert running_means([3.0, 1.0], 0.0) == [3.0, 1.0]


def test_the_steepest_descent_of_a_known_curve():
    """A step down of shape −tanh around 10⁻², on a logarithmic axis, and a wall at 1."""
    lrs = np.logspace(-6, 1, 141)
    curve = 2 - np.tanh(2 * (np.log10(lrs) + 2)) + np.exp(4 * np.log10(lrs))
    assert math.log10(suggest(list(lrs), list(curve))) == pytest.approx(-2, abs=0.03)


@pytest.mark.parametrize("curve", [[1.0, 1.1, 1.2, 1.3] * 5, [2.0] * 20, [math.inf] * 20, [1.0]])
def test_a_loss_that_never_fell_suggests_nothing(curve):
    assert suggest(list(np.logspace(-6, 1, len(curve))), sorted(curve)) is None


def test_what_it_suggests_can_be_trained_with():
    model = network(dropout=0.0)
    optimizer = optim.create("momentum", model.parameters(), lr=1.0)
    found = lr_range_test(model, optimizer, CrossEntropyLoss(), loader(), highest=100.0)
    optimizer.param_groups[0]["lr"] = found.suggestion
    trainer = Trainer(model, optimizer, CrossEntropyLoss())
    trainer.fit(loader(), 6)
    assert trainer.history[-1]["train_loss"] < 0.5 * found.losses[0]


def test_the_picture(tmp_path):
    model = network()
    found = lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), loader(), highest=1e5)
    found.plot(tmp_path / "lr.png")
    with Image.open(tmp_path / "lr.png") as picture:
        assert picture.size[0] > 600
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20
    LRRange((1e-3, 1e-2), (math.nan, math.inf), (math.nan, math.nan), None, True).plot(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lowest": 0}, "lowest must lie between 0 and highest, got 0 and 10.0"),
        ({"lowest": 1, "highest": 1}, "lowest must lie between"),
        ({"steps": 1}, "steps must be at least 2, got 1"),
        ({"smoothing": 1}, "smoothing must be at least 0 and less than 1, got 1"),
        ({"divergence": 1}, "divergence must be greater than 1, got 1"),
    ],
)
def test_arguments_that_make_no_sense(options, words):
    model = network()
    with pytest.raises(ValueError, match=f"lr_range_test: {words}"):
        lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), loader(), **options)


def test_the_precision_is_that_of_the_training(monkeypatch):
    model, seen = network(), []
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(ValueError, match="precision 'bf16' is for networks on a GPU"):
        lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), loader(), precision="bf16")
    assert all(np.array_equal(p.data, old) for p, old in zip(model.parameters(), before, strict=True))
    monkeypatch.setattr("tinycnn.train.step.products.precision", lambda name: seen.append(name) or nullcontext())
    lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), loader(), steps=2, precision="float32")
    assert seen == ["float32"] * 2


def test_no_batches():
    model = network()
    with pytest.raises(ValueError, match="the loader has no batches"):
        lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), [])
