"""What is read off a run's folder, of any version, and damaged."""

import json

import pytest

from tinycnn.report.story import read
from tinycnn.train import CheckpointError


def folder_of(tmp_path, config, metrics="", result=None):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text(metrics)
    if result is not None:
        (tmp_path / "result.json").write_text(result)
    return tmp_path


def test_a_finished_run(finished_run):
    story = read(finished_run)
    assert story.title == "lenet5 on digits"
    assert [row["epoch"] for row in story.history] == [1, 2]
    assert set(story.points("val_accuracy")) == {1, 2}
    assert story.best == story.result["best_epoch"]
    assert (story.recipe, story.published_error) == (None, None)


def test_what_is_missing_or_damaged_is_left_out(tmp_path):
    lines = ['{"epoch": 2, "train_loss": 1.5}', '{"epoch": 1, "train_loss": NaN, "lr": true}', "[3]", '{"epoch": "4"}']
    folder = folder_of(tmp_path, {"settings": {}}, "\n".join([*lines, '{"epoch": 3, "train_']), result="{")
    story = read(folder)
    assert [row["epoch"] for row in story.history] == [1, 2]
    assert story.points("train_loss") == {2: 1.5}
    assert story.points("lr") == {}
    assert story.result == {}
    assert story.title == "a network on images"
    assert story.best is None
    assert story.command is None


def test_no_metrics_yet(tmp_path):
    folder = folder_of(tmp_path, {"settings": {"model": "lenet5"}})
    (folder / "metrics.jsonl").unlink()
    assert read(folder).history == []


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (["/usr/bin/tinycnn", "train", "--out", "a b"], "tinycnn train --out 'a b'"),
        (["/x/tinycnn/__main__.py", "train"], "python -m tinycnn train"),
        (["/x/pytest", "tests"], None),
        ([], None),
        ("tinycnn train", None),
        ([1], None),
    ],
)
def test_the_command(tmp_path, argv, command):
    assert read(folder_of(tmp_path, {"settings": {}, "command": argv})).command == command


def test_the_recipe(tmp_path):
    recipe = {"title": "he, shortened: 2 of 9 epochs", "published": {"error": 8.75}}
    story = read(folder_of(tmp_path, {"settings": {"recipe": "he"}, **recipe}))
    assert story.recipe == "he, shortened: 2 of 9 epochs"
    assert (story.published_error, story.published_accuracy) == (8.75, "91.25 %")
    rough = read(folder_of(tmp_path, {"settings": {}, "published": {"error": 9.5, "about": True}}))
    assert rough.published_accuracy == "about 90.5 %"
    assert read(folder_of(tmp_path, {"settings": {"recipe": "he"}})).recipe == "he"
