"""What is recorded is what the network computes, it changes nothing, and a resumed training records the same."""

import json
import tracemalloc

import numpy as np
import pytest
from small_runs import assert_equal_runs, settings
from small_trainers import images, loader, make, same

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, Sequential, data, models, optim
from tinycnn.train import CheckpointError, Recorder, Run, Trainer, read_records, spread
from tinycnn.train.recorder import MOST_NUMBERS, RECORDS, _norm, quantize, smaller

STEPS = (0, 1, 4, 5, 7, 10)
FIXED = ("x", "labels")
X = images()[0][:3].astype(np.float32) / 255
Y = images()[1][:3]


class GlobalMean(Sequential):
    """(N, C, H, W) -> (N, C)."""

    def forward(self, x):
        return x.mean((2, 3))


def recorder(path, steps=STEPS):
    return Recorder(path, X, Y, steps, ["a", "b", "c"], "wxyz")


def train(path, epochs=2, **options):
    """Five batches an epoch."""
    trainer = make(callbacks=[recorder(path)], **options)
    trainer.fit(loader(), epochs)
    return trainer


def test_steps_are_spread_from_the_first_to_the_last():
    for total in (1, 2, 5, 100, 98_765):
        steps = spread(total, 24)
        assert steps[0] == 0
        assert steps[-1] == total
        assert len(steps) <= 24
        assert steps == sorted(set(steps))
    assert len(spread(98_765, 24)) > 20
    assert spread(50, 0) == []
    assert spread(50, 1) == [0]
    assert spread(50, 2) == [0, 50]


def test_records_are_what_the_network_says_then(tmp_path):
    """A twin that is trained alike, stopped at each step, and asked by hand."""
    train(tmp_path / "r")
    records = read_records(tmp_path / "r")
    assert records.arrays["steps"].tolist() == list(STEPS)
    assert records.about == {
        "layers": ["0", "1", "5"],
        "names": ["a", "b", "c"],
        "classes": ["w", "x", "y", "z"],
        "steps_per_epoch": 5,
    }
    np.testing.assert_array_equal(records.arrays["x"], X)
    np.testing.assert_array_equal(records.arrays["labels"], Y)
    twin = make()
    seen = {0: (None, None, state_of(twin))}

    def look(t):
        seen[5 * t.epoch + t.batch] = (float(t.loss), [lengths(layer) for layer in t.model], state_of(t))

    twin.after_batch.append(look)
    twin.fit(loader(), 2)
    for k, step in enumerate(STEPS):
        loss, norms, (w, maps, p) = seen[step]
        got = {name: a[k] for name, a in records.arrays.items() if name not in ("x", "labels")}
        scale = got["filters/0/scale"]
        np.testing.assert_allclose(got["filters/0"] * scale, w, atol=0.51 * scale)
        assert np.abs(got["filters/0"]).max() == 127
        scale = got["maps/0/scale"]
        np.testing.assert_allclose(got["maps/0"] * scale, maps, atol=0.51 * scale)
        np.testing.assert_allclose(got["p"], p, rtol=1e-5)
        np.testing.assert_allclose(got["loss"], -np.log(p[np.arange(3), Y]), rtol=1e-5, atol=1e-6)
        if loss is None:
            assert np.isnan(got["batch_loss"])
            assert np.isnan(got["gradients"]).all()
        else:
            assert got["batch_loss"] == np.float32(loss)
            np.testing.assert_allclose(got["gradients"], [norms[i] for i in (0, 1, 5)], rtol=1e-6)


def lengths(layer):
    return np.sqrt(sum((p.grad.astype(float) ** 2).sum() for p in layer.parameters()))


def state_of(trainer):
    """The filters, the maps and the probabilities, by hand."""
    model, before = trainer.model, trainer.model.random_state()
    model.eval()
    maps = model[0].forward(X).copy()
    logits = model.forward(X).astype(float)
    model.train()
    assert model.random_state() == before
    p = np.exp(logits - logits.max(1, keepdims=True))
    return model[0].weight.data.copy(), maps, p / p.sum(1, keepdims=True)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"ema_of": {"decay": 0.9}}])
def test_recording_changes_nothing(tmp_path, options):
    plain = make(**options)
    plain.fit(loader(), 2)
    same(plain, train(tmp_path / "r", **options))


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 6])
def test_a_resumed_training_records_the_same(tmp_path, stop):
    train(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    first = make(callbacks=[recorder(tmp_path / "r")])
    first.after_batch.append(lambda t: t.stop() if 5 * t.epoch + t.batch == stop else None)
    first.fit(loader(), 2)
    state = first.state_dict()
    later = make(callbacks=[recorder(tmp_path / "r")])  # goes on beyond the state, and is killed there
    later.load_state_dict(state)
    later.after_batch.append(lambda t: t.stop() if 5 * t.epoch + t.batch == 8 else None)
    later.fit(loader(), 2)
    assert len(read_records(tmp_path / "r")) == 5
    again = make(callbacks=[recorder(tmp_path / "r")])
    again.load_state_dict(state)
    again.fit(loader(), 2)
    assert (tmp_path / "r").read_bytes() == whole


def test_the_file_is_never_behind_a_state(tmp_path):
    trainer = make(callbacks=[recorder(tmp_path / "r")])
    known = []

    def save(t):
        t.state_dict()
        known.append((5 * t.epoch + t.batch, read_records(tmp_path / "r").arrays["steps"].tolist()))

    trainer.after_batch.append(save)
    trainer.fit(loader(), 2)
    assert known == [(k, [s for s in STEPS if s <= k]) for k in range(1, 11)]


def test_a_new_training_begins_anew(tmp_path):
    train(tmp_path / "r")
    once = (tmp_path / "r").read_bytes()
    train(tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == once


def test_a_file_that_is_damaged_or_something_else(tmp_path):
    assert read_records(tmp_path) is None
    train(tmp_path / RECORDS)
    content = bytearray((tmp_path / RECORDS).read_bytes())
    content[-3] ^= 1
    (tmp_path / RECORDS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*or remove it"):
        read_records(tmp_path)


def stopped(path, after=3):
    """The state of a training that was stopped in its first epoch."""
    trainer = make(callbacks=[recorder(path)])
    trainer.after_batch.append(lambda t: t.stop() if t.batch == after else None)
    trainer.fit(loader(), 2)
    return trainer.state_dict()


def gone_on(path, state):
    trainer = make(callbacks=[recorder(path)])
    trainer.load_state_dict(state)
    trainer.fit(loader(), 2)


def test_a_training_goes_on_with_its_own_records_alone(tmp_path):
    state = stopped(tmp_path / "r")
    model = Sequential(Flatten(), Linear(36, 4, rng=np.random.default_rng(0)))
    other = Trainer(
        model, optim.SGD(model.parameters(), lr=0.1), CrossEntropyLoss(), callbacks=[recorder(tmp_path / "r")]
    )
    other.fit(loader(), 1)  # which has no convolution, and is recorded too
    assert set(read_records(tmp_path / "r").arrays) == {*FIXED, "steps", "batch_loss", "gradients", "loss", "p"}
    with pytest.raises(CheckpointError, match=r"of another training.*or remove it"):
        gone_on(tmp_path / "r", state)
    (tmp_path / "r").unlink()
    gone_on(tmp_path / "r", state)
    assert read_records(tmp_path / "r").arrays["steps"].tolist() == [4, 5, 7, 10]


def test_other_images_are_another_training(tmp_path):
    state = stopped(tmp_path / "r")
    other = make(callbacks=[Recorder(tmp_path / "r", X[:2], Y[:2], STEPS, ["a", "b", "c"], "wxyz")])
    other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="of another training"):
        other.fit(loader(), 2)


def test_an_interruption_leaves_whole_records(tmp_path):
    """A second Ctrl-C ends a training at any place, and then the file is written."""
    train(tmp_path / "r")
    records = read_records(tmp_path / "r")
    last = {name: a[-1] for name, a in records.arrays.items() if name not in FIXED}
    last["p"] = last["p"][:1]  # does not fit, so that adding ends in the middle
    with pytest.raises(ValueError, match="dimension"):
        records.add(last)
    assert {len(a) for name, a in records.arrays.items() if name not in FIXED} == {len(STEPS)}


def test_a_recorder_may_be_given_to_one_training_after_the_other(tmp_path):
    own = recorder(tmp_path / "r")
    for _ in range(2):
        make(callbacks=[own]).fit(loader(), 2)
    again = (tmp_path / "r").read_bytes()
    train(tmp_path / "r")
    assert (tmp_path / "r").read_bytes() == again


def test_lengths_of_gradients_take_little_memory_and_touch_nothing():
    """Of large ones too, and of those that were cleared and are not in memory yet."""
    layer = Linear(3000, 1500, rng=np.random.default_rng(0))
    layer.weight.accumulate(np.random.default_rng(1).standard_normal((1500, 3000), np.float32))
    layer.bias.zero_grad()
    tracemalloc.start()
    length = _norm(layer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert length == pytest.approx(np.linalg.norm(layer.weight.grad.astype(float)), rel=1e-12)
    assert peak < layer.weight.data.nbytes + 2**20
    assert layer.bias.is_clear
    layer.bias.grad[:] = 3
    layer.weight.requires_grad = False
    assert _norm(layer) == pytest.approx(3 * 1500**0.5)


def test_maps_are_those_before_a_layer_that_works_in_place(tmp_path):
    class Erase(Sequential):
        def forward(self, x):
            x[...] = 0
            return x

    model = Sequential(Conv2d(1, 2, 3, rng=np.random.default_rng(0)), Erase(), GlobalMean())
    trainer = type("Standing", (), {"model": model, "loss": None, "epoch": 0, "batch": 0, "batches_per_epoch": 3})()
    made = Recorder(tmp_path / "r", X, Y % 2, [0])
    made.on_train_begin(trainer)
    assert np.abs(made.records.arrays["maps/0"]).max() == 127


def test_activations_are_not_kept(tmp_path):
    """Of all layers at once, that is: a deep network's would take more than its weights."""
    model = Sequential(*(Conv2d(8, 8, 3, padding=1, rng=np.random.default_rng(i)) for i in range(30)), GlobalMean())
    trainer = type("Standing", (), {"model": model, "loss": None, "epoch": 0, "batch": 0, "batches_per_epoch": 3})()
    made = Recorder(tmp_path / "r", np.zeros((2, 8, 64, 64), np.float32), np.array([3, 1]), [0])
    tracemalloc.start()
    made.on_train_begin(trainer)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 15 * made.x.nbytes  # four are kept, and im2col takes some


def test_numbers_are_kept_to_half_a_step():
    a = np.random.default_rng(0).standard_normal(1000)
    q, scale = quantize(a)
    assert scale == np.float32(np.abs(a).max() / 127)
    assert np.abs(q * scale - a).max() <= 0.5001 * scale
    for odd in (np.zeros(3), np.array([np.nan, np.inf, -np.inf]), np.zeros(0)):
        q, scale = quantize(odd)
        assert not q.any()
        assert scale == 0


def test_large_maps_are_averaged_down():
    maps = np.random.default_rng(0).standard_normal((2, 20, 67, 101))
    small = smaller(maps)
    assert small.shape == (2, MOST_NUMBERS // (16 * 25), 16, 25)
    assert small[1, 3, 2, 7] == pytest.approx(maps[1, 3, 8:12, 28:32].mean())
    for shape in ((1, 64, 32, 32), (1, 6, 28, 28), (1, 3, 1, 500), (1, 40, 1, 1), (1, 2, 400, 400)):
        kept = smaller(np.ones(shape))
        assert kept[0].size <= MOST_NUMBERS
        assert (kept == 1).all()
    assert smaller(np.ones((1, 6, 28, 28))).shape == (1, 6, 28, 28)


def test_of_many_convolutions_some_and_of_large_ones_few_filters(tmp_path):
    model = models.create("resnet20")
    trainer = type("Standing", (), {"model": model, "loss": None, "epoch": 0, "batch": 0, "batches_per_epoch": 3})()
    made = Recorder(tmp_path / "r", np.zeros((1, 3, 32, 32), np.float32), np.array([3]), [0])
    made.on_train_begin(trainer)
    names = [name for name in made.records.arrays if name.startswith("maps/") and not name.endswith("scale")]
    assert names[0] == "maps/conv1"
    assert len(names) == 4
    assert names[-1].startswith("maps/layer3.2")
    model = Sequential(Conv2d(3, 64, 11, rng=np.random.default_rng(0)))
    trainer.model = Sequential(model, GlobalMean())
    made = Recorder(tmp_path / "r", np.zeros((1, 3, 16, 16), np.float32), np.array([3]), [0])
    made.on_train_begin(trainer)
    assert made.records.arrays["filters/0.0"].shape == (1, 16, 3, 11, 11)


# ---- runs ------------------------------------------------------------------------------------------------------


def test_runs_record_images_that_are_set_aside_and_of_two_classes(tmp_path):
    run = Run.new(settings(epochs=1, record=6), tmp_path / "a")
    run.fit()
    records = read_records(tmp_path / "a")
    x, y = next(iter(run.validation.epoch(0)))
    second = int(np.flatnonzero(y != y[0])[0])
    assert records.about["names"] == ["validation image 0", f"validation image {second}"]
    np.testing.assert_array_equal(records.arrays["x"], x[[0, second]])
    assert records.arrays["labels"].tolist() == [y[0], y[second]]
    assert records.arrays["steps"].tolist() == spread(len(run.training), 6)


def test_without_validation_training_images_as_they_are(tmp_path):
    run = Run.new(settings(epochs=1, record=2, val_fraction=0), tmp_path / "a")
    assert run.trainer.callbacks[0].names[0] == "training image 0"
    digits = data.load("digits", "train")
    pixels = data.fit_images(digits.images[:1], (32, 32)).astype(np.float64) / 255
    expected = (pixels - digits.mean[0]) / digits.std[0]
    np.testing.assert_allclose(run.trainer.callbacks[0].x[:1], expected, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_records_the_same(tmp_path):
    chosen = settings(epochs=2, record=9, save_every=3)
    whole = Run.new(chosen, tmp_path / "whole")
    whole.fit()
    whole.finish()
    run = Run.new(chosen, tmp_path / "parts")
    run.trainer.after_batch.append(lambda t: t.stop() if t.batch == 8 else None)
    assert not run.fit()
    run = Run.resume(tmp_path / "parts", None, None)
    assert run.fit()
    run.finish()
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert (tmp_path / "parts" / RECORDS).read_bytes() == (tmp_path / "whole" / RECORDS).read_bytes()


def test_a_run_without_records_may_be_gone_on_with(tmp_path):
    """As one that an earlier version began, which knew no such setting."""
    run = Run.new(settings(epochs=2), tmp_path / "a")
    run.trainer.after_epoch.append(lambda t, row: t.stop())
    run.fit()
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    del config["settings"]["record"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    assert Run.resume(tmp_path / "a", None, None).fit()
    assert read_records(tmp_path / "a") is None


def test_on_a_gpu_the_same_is_recorded(tmp_path, gpu, tiny):
    """Between replayed steps, which it leaves alone."""
    found = []
    for device, record in (("cpu", 5), ("cuda", 5), ("cuda", 0)):
        run = Run.new(settings(epochs=2, batch_size=4, record=record), tmp_path / f"{device}{record}", device)
        run.fit()
        found.append((read_records(run.folder), run.trainer))
    (cpu, _), (cuda, recorded), (_, plain) = found
    assert cuda.arrays["steps"].tolist() == cpu.arrays["steps"].tolist()
    for name in ("batch_loss", "loss", "p", "gradients", "x"):
        np.testing.assert_allclose(cuda.arrays[name], cpu.arrays[name], rtol=1e-3, atol=1e-5)
    assert recorded.captured.state == "captured"
    for name, value in plain.model.state_dict().items():
        np.testing.assert_array_equal(recorded.model.state_dict()[name], value)
