"""``tinycnn explain``: what it makes of a name, and what it says of a bad one."""

import json
import re

import numpy as np
import pytest


def data_in(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(), re.S).group(1))


def test_a_model(command, tmp_path):
    assert command("explain", "--no-checks") == 0
    assert command.out.startswith("explain.html: lenet5, untrained, 12 layers")
    data = data_in(tmp_path / "explain.html")
    assert [s["name"] for s in data["samples"]] == ["digits 7", "digits 8", "digits 9"]
    assert len(data["samples"][0]["passes"]) == 10


def test_a_run(command, trained, tmp_path):
    assert command("explain", trained, "--index", 3, "--index", 11, "--out", tmp_path / "pages" / "run.html") == 0
    data = data_in(tmp_path / "pages" / "run.html")
    assert [s["name"] for s in data["samples"]] == ["digits 3", "digits 11"]
    assert np.argmax(data["samples"][0]["p"]) == data["samples"][0]["label"], "it was trained"
    assert all(layer["check"]["ok"] for layer in data["layers"])


@pytest.mark.parametrize("name", ["Conv2d groups", "conv2d", "ResidualNormReLU"])
def test_a_layer(command, tmp_path, name):
    assert command("explain", name) == 0
    assert data_in(tmp_path / "explain.html")["title"].lower() == name.lower()


def test_a_picture_of_another_size(command, tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 255, (50, 40), np.uint8))
    assert command("explain", "--image", "mine.npy", "--class", "4", "--no-checks") == 0
    (sample,) = data_in(tmp_path / "explain.html")["samples"]
    assert (sample["name"], sample["label"], sample["shape"]) == ("mine.npy", 4, [1, 32, 32])


def test_chosen_layers(command, tmp_path):
    assert command("explain", "--layer", "conv*", "--evaluation", "--no-checks") == 0
    data = data_in(tmp_path / "explain.html")
    assert [layer["path"] for layer in data["layers"] if layer["shown"]] == ["conv1", "conv2"]
    assert "evaluation" in data["notes"][0]


def test_another_class_first(command, tmp_path):
    assert command("explain", "--class", "3", "--no-checks") == 0
    sample = data_in(tmp_path / "explain.html")["samples"][0]
    assert sample["label"] != 3
    assert sample["first"] == 3
    assert next(iter(sample["passes"])) == "3"


def test_bad_input(command, tmp_path):
    assert "did you mean 'lenet5'?" in command.refused("explain", "lenet")
    assert "no file, no model and no layer" in command.refused("explain", "Conv3d")
    assert "--index must lie between 0 and 358, got 900" in command.refused("explain", "--index", 900)
    assert "did you mean 'conv1'?" in command.refused("explain", "--layer", "con1")
    assert "there is no such file" in command.refused("explain", "--image", "none.png") or "none.png" in command.err
    (tmp_path / "empty").mkdir()
    assert "name a run folder" in command.refused("explain", "empty")
    np.save(tmp_path / "three.npy", np.zeros((3, 8, 8), np.uint8))
    assert "1 channel(s)" in command.refused("explain", "--image", "three.npy")
    np.save(tmp_path / "mine.npy", np.zeros((8, 8), np.uint8))
    assert "unknown class 'cat'" in command.refused("explain", "--image", "mine.npy", "--class", "cat")
    assert "name a folder" in command.refused("explain", "--no-checks", "--out", "mine.npy/page.html")
