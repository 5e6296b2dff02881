"""``tinycnn lr-range``."""

import importlib

import pytest
from PIL import Image

QUICK = ("lr-range", "--steps", 12, "--batch-size", 200)


def test_words_and_picture(command, tmp_path):
    assert command(*QUICK, "--out", "lr.png") == 0
    first, *rest = command.out.splitlines()
    assert first.startswith("from 1.0e-06 to ")
    assert "steps" in first
    assert rest[-1] == "loss against learning rate: lr.png"
    with Image.open(tmp_path / "lr.png") as picture:
        assert picture.size[0] > 600
    assert [p.name for p in tmp_path.iterdir()] == ["lr.png"]


def test_as_json(command):
    assert command(*QUICK, "--optimizer", "momentum", "--lowest", 1e-4, "--highest", 1.0, "--json") == 0
    found = command.json()
    assert len(found["lrs"]) == len(found["losses"]) == len(found["smoothed"])
    assert found["lrs"][0] == pytest.approx(1e-4)
    assert found["plot"] is None
    assert found["losses"][0] == pytest.approx(2.3, abs=0.3)
    assert command(*QUICK, "--optimizer", "momentum", "--lowest", 1e-4, "--highest", 1.0, "--json") == 0
    assert command.json() == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lowest", "0"], "--lowest must lie between 0 and highest, got 0.0 and 10.0"),
        (["--steps", "1"], "--steps must be at least 2, got 1"),
        (["--model", "lenet"], "unknown model 'lenet'; did you mean 'lenet5'?"),
        (["--out", "nowhere/lr.png"], "nowhere/lr.png: there is no folder nowhere"),
        (["--recipe", "he"], "he"),
        (["--set", "accumulate=2"], "accumulate: a step is one batch here: leave it out, and give --batch-size"),
    ],
)
def test_bad_input(command, arguments, words):
    assert words in command.refused("lr-range", *arguments)


def test_a_picture_that_cannot_be_drawn_is_refused_before_the_work(command, monkeypatch):
    monkeypatch.setattr(importlib.import_module("tinycnn.cli.lr_range"), "find_spec", lambda name: None)
    assert command(*QUICK, "--out", "lr.png") == 1
    assert command.err == "tinycnn: error: lr.png: drawing needs matplotlib: pip install 'tinycnn[plot]'\n"
    assert command.out == ""
