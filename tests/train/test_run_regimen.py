"""Runs with averages, accumulated gradients, an early end, exact statistics, recipes: right, and resumed to the bit."""

import dataclasses
import json
import shutil
from functools import partial

import numpy as np
import pytest
from small_runs import assert_equal_runs, complete, rows, settings, weights

from tinycnn import data, models
from tinycnn.losses import CrossEntropyLoss
from tinycnn.models import registry
from tinycnn.models.network import Architecture
from tinycnn.models.resnet_cifar import resnet_cifar
from tinycnn.train import CheckpointError, Run, checkpoint, evaluate, load, normalization, recipe_table, recipes
from tinycnn.train.recipes import Published, Recipe

EVERYTHING = {
    "ema": 0.9,
    "accumulate": 2,
    "patience": 50,
    "save_every": 1,
    "mix": "mixup + cutmix",
    "augment": "rotate(5)",
    "clip_norm": 1.0,
    "label_smoothing": 0.1,
    "normalize": "per-pixel-mean",
    "fraction": 0.9,
    "schedule": "multistep",
    "schedule_options": {"milestones": [0.5], "warmup": 0.25},
}


@pytest.mark.parametrize("stops", [[1], [2, 4]])
def test_stopped_and_resumed_equals_uninterrupted(small, tmp_path, stops):
    """Three batches an epoch, of which two make a step and the last another: stopped between those two, too."""
    chosen = settings(epochs=2, **EVERYTHING)
    complete(Run.new(chosen, tmp_path / "whole", workers=2))
    run = Run.new(chosen, tmp_path / "parts")
    for stop in stops:
        run.trainer.after_batch.append(lambda t, stop=stop: t.stop() if 3 * t.epoch + t.batch == stop else None)
        assert not run.fit()
        run = Run.resume(tmp_path / "parts", None, None)
        assert 3 * run.trainer.epoch + run.trainer.batch == stop
    complete(run)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert "train_accuracy" not in rows(tmp_path / "whole")[0], "labels that are mixed have none"


def test_averages_are_what_is_kept_and_measured(small, tmp_path):
    run = Run.new(settings(epochs=1, ema=0.5), tmp_path / "a")
    result = complete(run)
    kept = weights(tmp_path / "a", "best")
    assert not np.array_equal(kept["conv1.weight"], run.trainer.model["conv1"].weight.data)
    with run.trainer.averaged():
        assert np.array_equal(kept["conv1.weight"], run.trainer.model["conv1"].weight.data)
    model = load(tmp_path / "a")
    assert evaluate(model, run.validation)["accuracy"] == rows(tmp_path / "a")[0]["val_accuracy"]
    assert evaluate(model, run.test)["accuracy"] == result["test_accuracy"]


def test_accumulated_batches_are_one_step(small, tmp_path):
    """Three batches of 64, 64 and 52 as one step: the schedule has one step an epoch."""
    run = Run.new(settings(epochs=4, accumulate=3, schedule="multistep"), tmp_path / "a")
    complete(run)
    assert [row["lr"] for row in rows(tmp_path / "a")] == pytest.approx([0.05, 0.005, 0.0005, 0.0005])


def test_an_early_end(small, tmp_path):
    result = complete(Run.new(settings(epochs=9, patience=1, schedule="none", lr=1e-30), tmp_path / "a"))
    assert result["epochs"] == 2, "nothing moves, so the second epoch is no better than the first"
    assert "val_loss has not improved" in result["ended"]
    again = Run.resume(tmp_path / "a", None, None)
    assert again.fit()
    assert again.trainer.epoch == result["epochs"], "it stays ended"
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(ValueError, match=r"epochs cannot be added: this run ended for good, val_loss has not .* epoch"):
        Run.resume(tmp_path / "a", None, None, epochs=12)
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_validation_knows_no_smoothed_labels(small, tmp_path):
    """So that its loss is of one kind with that on the test images, and with that of a run without."""
    run = Run.new(settings(epochs=1, label_smoothing=0.2), tmp_path / "a")
    complete(run)
    assert rows(tmp_path / "a")[0]["val_loss"] == evaluate(run.trainer.model, run.validation)["loss"]


def test_exact_statistics_need_batch_normalisation(small, tmp_path):
    with pytest.raises(ValueError, match="recompute_statistics: lenet5 has no batch normalisation: leave it out"):
        Run.new(settings(recompute_statistics=True), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_state_is_saved_within_epochs(small, tmp_path):
    run, seen = Run.new(settings(epochs=1, save_every=2), tmp_path / "a"), []
    run.trainer.after_batch.append(
        lambda t: seen.append(checkpoint.read(tmp_path / "a", "training state").metadata["trainer"]["batch"])
    )
    run.fit()
    assert seen == [0, 2, 2]


@pytest.fixture
def little(monkeypatch):
    """A network with batch normalisation that takes no time, as ``resnet20``."""
    known = Architecture(partial(resnet_cifar, 8), (3, 32, 32), 0, 40_551_040, "")
    monkeypatch.setitem(registry.ARCHITECTURES, "resnet20", known)


def test_exact_statistics_at_the_end(tiny, little, tmp_path):
    chosen = settings(model="resnet20", epochs=1, batch_size=4, val_fraction=0.2, shift=0, recompute_statistics=True)
    run = Run.new(chosen, tmp_path / "a")
    result = complete(run)
    kept = weights(tmp_path / "a", "best")
    assert np.array_equal(kept["conv1.weight"], weights(tmp_path / "a", "last")["conv1.weight"])
    assert not np.array_equal(kept["bn1.running_mean"], weights(tmp_path / "a", "last")["bn1.running_mean"])
    saved = checkpoint.read(tmp_path / "a", "weights")
    assert saved.metadata["recomputed_statistics"]
    assert saved.metadata["metrics"]["val_accuracy"] == result["val_accuracy"]
    assert evaluate(load(tmp_path / "a"), run.test)["loss"] == result["test_loss"]
    (tmp_path / "a" / "result.json").unlink()
    assert Run.resume(tmp_path / "a", None, None).finish() == result, "done again, it is the same"


@pytest.mark.parametrize("normalize", ["per-pixel-mean", "gcn-zca"])
def test_what_images_are_normalised_by_travels_with_the_weights(small, tmp_path, normalize):
    result = complete(Run.new(settings(epochs=1, normalize=normalize), tmp_path / "a"))
    alone = tmp_path / "alone.safetensors"
    shutil.move(tmp_path / "a" / "best.safetensors", alone)
    saved = checkpoint.read(alone, "weights")
    test = data.load("digits", "test")
    x = normalization.of_checkpoint(saved, "float32")(data.fit_images(test.images, (32, 32)))
    logits = load(alone)(x)
    assert (logits.argmax(axis=1) == test.labels).mean() == result["test_accuracy"]
    assert CrossEntropyLoss()(logits, test.labels)[0] == pytest.approx(result["test_loss"], rel=1e-5)


# ---- going on with something else ----------------------------------------------------------------------------


def stopped(folder, **given):
    run = Run.new(settings(**given), folder)
    run.trainer.after_batch.append(lambda t: t.stop())
    run.fit()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model", "lenet5_1998", "its model was 'lenet5', config.json says 'lenet5_1998'"),
        ("lr", 0.1, "its lr was 0.05, config.json says 0.1"),
        ("augment", ["flip"], r"its augment was \[\], config.json says \['flip'\]"),
        ("ema", 0.9, "its ema was None, config.json says 0.9"),
        ("fraction", 0.9, "its fraction was 1.0, config.json says 0.9"),
        ("augment", ["flop"], "config.json: not what tinycnn .* wrote .*unknown augment 'flop'"),
        ("newer", 1, "config.json: not what tinycnn"),
    ],
)
def test_settings_changed_in_mid_run(small, tmp_path, name, value, words):
    stopped(tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    config = json.loads(path.read_text())
    config["settings"][name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        Run.resume(tmp_path / "a", None, None)


def test_another_dataset(small, tmp_path, monkeypatch):
    stopped(tmp_path / "a")
    few = data.load
    monkeypatch.setattr(data, "load", lambda name, split="train", *a: few(name, split, *a).subset(np.arange(50)))
    with pytest.raises(CheckpointError, match=r"a: digits is not what this run began with: its training images are 50"):
        Run.resume(tmp_path / "a", None, None)


def test_a_state_of_an_older_version(small, tmp_path):
    complete(Run.new(settings(), tmp_path / "whole"))
    run = Run.new(settings(), tmp_path / "a")
    run.trainer.after_epoch.append(lambda t, row: t.stop())
    run.fit()
    saved = checkpoint.read(tmp_path / "a", "training state")
    old = {name: saved.metadata["settings"][name] for name in list(saved.metadata["settings"])[:13]}
    metadata = {k: v for k, v in saved.metadata.items() if k not in ("checksum", "data")} | {"settings": old}
    for name in ("ema", "waiting", "ended", "callbacks", "batches_per_epoch", "architecture"):
        metadata["trainer"].pop(name, None)
    checkpoint.write(saved.path, dict(saved.arrays), metadata)
    path = tmp_path / "a" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": old}))
    complete(Run.resume(tmp_path / "a", None, None))
    assert_equal_runs(tmp_path / "whole", tmp_path / "a")


# ---- recipes -------------------------------------------------------------------------------------------------


def fake(name, split="train", data_dir=None, **options):
    """A dataset with the shape of the real one, of two images for each class."""
    K, shape = (100 if name == "cifar100" else 10), (3, 32, 32) if "cifar" in name else (1, 28, 28)
    x = np.random.default_rng(0).integers(0, 256, (2 * K, *shape), dtype=np.uint8)
    labels = np.repeat(np.arange(K), 2)
    return data.Dataset(name, split, x, labels, tuple(map(str, range(K))), (0.5,) * shape[0], (0.25,) * shape[0])


@pytest.mark.parametrize("name", recipes.table())
def test_every_recipe_takes_a_step(tmp_path, monkeypatch, name):
    """On images of a dataset's shape, with a little network in the place of its own; and says that it is shortened."""
    monkeypatch.setattr(data, "load", fake)
    known = models.architecture("lenet5")
    make = lambda classes, channels, *, rng=None, **options: known.build(classes, channels, rng=rng)  # noqa: E731
    monkeypatch.setattr(normalization, "fit", lambda name, x: {
        "standard": {}, "per-pixel-mean": {"mean": np.zeros(x.shape[1:], np.float32)},
        "gcn-zca": {"mean": np.zeros(x.shape[1:], np.float32), "matrix": np.eye(3072, dtype=np.float32)},
    }[name])  # fmt: skip
    wanted = recipes.find(name).settings(epochs=1)
    little = dataclasses.replace(models.architecture(wanted.model), build=make)
    monkeypatch.setitem(registry.ARCHITECTURES, wanted.model, little)
    run = Run.new(wanted, tmp_path / "a")
    run.trainer.after_batch.append(lambda t: t.stop())
    run.fit()
    assert np.isfinite(run.trainer.sums.means()["loss"])
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["settings"]["recipe"] == name
    assert config["title"].startswith(f"{name}, shortened: 1 of ")
    assert list(config["deviations"]) == ["epochs"]
    assert "published" not in config


def test_a_result_says_what_it_may_be_compared_with(small, tmp_path, monkeypatch):
    recipe = Recipe("mine", {"epochs": 2}, "a paper", {"digits": Published(1.5, "one run", "table 1")})
    monkeypatch.setitem(recipe_table.RECIPES, "mine", recipe)
    complete(Run.new(recipe.settings(), tmp_path / "a"))
    complete(Run.new(recipe.settings(epochs=1), tmp_path / "b"))
    one, other = (json.loads((tmp_path / name / "result.json").read_text()) for name in "ab")
    assert (one["title"], one["published"]["error"]) == ("mine", 1.5)
    assert other["title"] == "mine, shortened: 1 of 2 epochs"
    assert other["deviations"] == {"epochs": {"recipe": 2, "run": 1}}
    assert "published" not in other
