"""``tinycnn recipes``, and training by name."""

import dataclasses
import json

import numpy as np
import pytest

from tinycnn import data
from tinycnn.train import recipe_table, recipes
from tinycnn.train.recipes import Measured, Published, Recipe


def test_the_list(command):
    assert command("recipes") == 0
    head, *lines = command.out.splitlines()
    assert head.split()[:3] == ["name", "data", "model"]
    assert [line.split()[0] for line in lines] == list(recipes.table())
    (line,) = (line for line in lines if line.startswith("wrn-28-10 "))
    for word in ("cifar10 / cifar100", "wrn_28_10", "4.00 % / 19.25 %", " 315 ", "Wide residual networks"):
        assert word in line


def test_what_was_read_off_a_curve_is_about(command):
    assert command("recipes") == 0
    (line,) = (line for line in command.out.splitlines() if line.startswith("he-cifar-plain56 "))
    assert " about 13.5 % " in line
    assert command("recipes", "he-cifar-plain56") == 0
    assert "published for cifar10: about 13.5 % test error (one run, read off the curve; figure 6)" in command.out


def test_the_list_as_json(command):
    assert command("recipes", "--json") == 0
    rows = {row["name"]: row for row in command.json()["recipes"]}
    assert set(rows) == set(recipes.table())
    row = rows["he-cifar-resnet20"]
    assert row["flop"] == 6 * 40_551_040 * 50_000 * 164
    assert row["published"]["cifar10"] == {"error": 8.75, "what": "one run", "where": "table 6", "about": False}
    assert row["settings"]["schedule_options"] == {"milestones": [0.5, 0.75], "gamma": 0.1}


def test_one_of_them(command):
    assert command("recipes", "he-cifar-resnet110") == 0
    for words in ("published for cifar10: 6.43 %", "12.4 PFLOP", "0.01 for 400 steps", "per-pixel-mean", "model  "):
        assert words in command.out
    assert command("recipes", "he-cifar-resnet110", "--json") == 0
    assert command.json()["settings"]["model"] == "resnet110"
    assert "did you mean 'wrn-28-10'" in command.refused("recipes", "wrn-28-1")


def test_what_was_measured(command, monkeypatch):
    recipe = Recipe("mine", {}, "a paper", measured=Measured(2.5, 3, "a machine"))
    monkeypatch.setitem(recipe_table.RECIPES, "mine", recipe)
    assert command("recipes", "mine") == 0
    assert "measured: 2.50 % test error after 3 minutes on a machine" in command.out
    assert command("recipes") == 0
    assert "2.50 % here" in command.out


# ---- training ------------------------------------------------------------------------------------------------


@pytest.fixture
def mine(monkeypatch):
    """A recipe that takes no time."""
    recipe = Recipe(
        "mine", {"epochs": 2, "batch_size": 100}, "a paper", {"digits": Published(1.5, "one run", "table 1")}
    )
    monkeypatch.setitem(recipe_table.RECIPES, "mine", recipe)
    full = data.load
    monkeypatch.setattr(data, "load", lambda *a, **k: full(*a, **k).subset(np.arange(200)))
    return recipe


def test_as_published(command, mine, tmp_path, monkeypatch):
    assert command("train", "--recipe", "mine") == 0
    first, *_, last = command.out.splitlines()
    assert first == "recipe mine; published: 1.50 % test error (one run; table 1)"
    assert "% (published: 98.50 %) with" in last
    rough = dataclasses.replace(mine, published={"digits": Published(1.5, "one run", "figure 1", about=True)})
    monkeypatch.setitem(recipe_table.RECIPES, "mine", rough)
    assert command("train", "--recipe", "mine", "--out", "rough") == 0
    assert "% (published: about 98.5 %) with" in command.out
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("mine-20")
    assert json.loads((folder / "config.json").read_text())["published"]["error"] == 1.5


def test_shortened(command, mine, tmp_path):
    assert command("train", "--recipe", "mine", "--epochs", 1, "--fraction", 0.5, "--augment", "flip") == 0
    first, *_, last = command.out.splitlines()
    assert first == (
        "recipe mine, shortened: 50 % of the images, 1 of 2 epochs, augment flip instead of none; not comparable with "
        "the published result"
    )
    assert "published" not in last
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("mine-shortened-20")
    assert set(json.loads((folder / "config.json").read_text())["deviations"]) == {"fraction", "epochs", "augment"}
    assert command("train", "--resume", folder) == 0


def test_what_is_not_usual_is_said(command, mine):
    options = ("--ema", 0.9, "--mix", "mixup", "--accumulate", 2, "--clip-norm", 1, "--set", "schedule.pct_start=0.5")
    assert command("train", "--epochs", 1, *options, "--out", "a") == 0
    assert "mix mixup; clip norm 1; accumulate 2; ema 0.9; schedule options (pct_start=0.5)" in command.out
    (line,) = (line for line in command.out.splitlines() if line.startswith("epoch 1/1"))
    assert line.count("acc") == 1, "labels that are mixed have no accuracy"


def test_ended_early(command, mine):
    assert command("train", "--epochs", 9, "--patience", 1, "--lr", 1e-30, "--schedule", "none", "--out", "a") == 0
    assert "it ended after epoch 2: val_loss has not improved for 1 epoch" in command.out
    assert command("train", "--resume", "a") == 0
    assert "the run in a is finished: it ended after epoch 2" in command.out


def test_a_run_that_goes_on_cannot_be_a_dry_one(command, mine, tmp_path):
    """It would train, with an option that promises to do nothing."""
    assert command("train", "--recipe", "mine", "--epochs", 1, "--threads", 1, "--out", "a") == 0
    assert "cpu, 1 thread, float32" in command.out
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert "config.json" in command.refused("train", "--resume", "a", "--dry-run")
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert command("train", "--resume", "a") == 0
    assert "is finished: its epoch is done" in command.out


def test_dry_run(command, tmp_path):
    assert command("train", "--recipe", "he-cifar-resnet20", "--fraction", 0.2, "--epochs", 10, "--dry-run") == 0
    found = json.loads(command.out)
    assert found["title"] == "he-cifar-resnet20, shortened: 20 % of the images, 10 of 164 epochs"
    assert found["settings"]["lr"] == 0.1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--recipe", "he-cifar-resnet2"], "unknown recipe 'he-cifar-resnet2'; did you mean 'he-cifar-resnet20'"),
        (["--fraction", "0"], "error: --fraction must be greater than 0 and at most 1, got 0"),
        (["--fraction", "1.5"], "error: --fraction must be greater than 0"),
        (["--fraction", "0.002"], "fraction 0.002 of 1,438 images leaves none of"),
        (["--augment", "flop"], "unknown augment 'flop'; did you mean 'flip'"),
        (["--set", "lr"], "write NAME=VALUE"),
        (["--set", "model.dropout=0.5"], "dropout"),
        (["--lr", "1", "--set", "lr=1"], "--lr and --set lr are both given"),
        (["--set", "epochs=ten"], "--epochs must be an integer, got 'ten'"),
        (["--set", "lr=ten"], "lr"),
        (["--data", "cifar100", "--data-dir", ".", "--recipe", "nin-cifar10"], "cifar100"),
        (["--patience", "2", "--val-fraction", "0"], "error: --patience needs a part set aside"),
        (["--resume", "nowhere", "--recipe", "mine"], "--recipe cannot be given with --resume"),
        (["--resume", "nowhere", "--set", "lr=1"], "--lr cannot be given with --resume"),
    ],
)
def test_refused(command, tmp_path, arguments, words):
    assert words in command.refused("train", *arguments)
    assert not list(tmp_path.iterdir())


def test_data_that_are_gone_are_fetched_when_a_run_goes_on(command, mine, monkeypatch):
    from tinycnn.cli import data as cli_data

    assert command("train", "--epochs", 1, "--out", "a", "--quiet") == 0
    asked = []
    monkeypatch.setattr(cli_data, "ready", lambda *arguments: asked.append(arguments))
    assert command("train", "--resume", "a", "--quiet") == 0
    assert asked == [("digits", None, True)]
