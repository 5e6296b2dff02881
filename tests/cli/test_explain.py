"""``tinycnn explain``: what it makes of a name, and what it says of a bad one."""

import json
import os
import re
import shutil
import webbrowser

import numpy as np
import pytest
from PIL import Image

from tinycnn.data import fit_images, load
from tinycnn.explain.pack import decode
from tinycnn.train import checkpoint


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


def test_by_default_the_newest_run(command, trained, tmp_path):
    for name, age in (("a", 2), ("b", 1), ("c", 3)):
        shutil.copytree(trained, tmp_path / "runs" / name)
        os.utime(tmp_path / "runs" / name / "best.safetensors", (1e9 - age, 1e9 - age))
    (tmp_path / "runs" / "d").mkdir()  # begun, and nothing in it yet
    assert command("explain", "--no-checks") == 0
    assert command.out.startswith("explain.html: b, ")


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


def test_a_run_shows_its_training(command, trained, tmp_path):
    assert command("explain", trained, "--no-checks") == 0
    assert command.err == ""
    training = data_in(tmp_path / "explain.html")["training"]
    assert training["steps"][0] == 0
    assert training["steps"][-1] == 42
    assert len(training["steps"]) > 12
    assert command("explain", "--no-checks") == 0
    assert command.err == "", "a model was not trained, and nobody expects a slider"
    assert data_in(tmp_path / "explain.html")["training"] is None


def test_a_run_that_was_not_recorded(command, tmp_path):
    assert command("train", "--epochs", 1, "--record", 0, "--out", "run", "--quiet", "--fraction", 0.2) == 0
    assert not (tmp_path / "run" / "records.safetensors").exists()
    assert command("explain", "run", "--no-checks") == 0
    assert data_in(tmp_path / "explain.html")["training"] is None
    assert "no slider" in command.err
    assert "tinycnn train --record 24" in command.err


def test_damaged_records_are_named(command, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    path = tmp_path / "run" / "records.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "records.safetensors" in command.refused("explain", "run", "--no-checks")


def test_images_are_prepared_as_the_run_prepared_them(command, tmp_path):
    """Per-pixel means are learnt, and lie in the checkpoint."""
    options = ("--normalize", "per-pixel-mean", "--epochs", 1, "--fraction", 0.2, "--out", "run", "--quiet")
    assert command("train", *options) == 0
    assert command("explain", "run", "--index", 5, "--no-checks") == 0
    data = data_in(tmp_path / "explain.html")
    group, first, count = data["arrays"][data["samples"][0]["image"]]
    shown = decode(data["groups"][group], data["kept"])[first : first + count].reshape(1, 32, 32)
    mean = checkpoint.read(tmp_path / "run", "weights").arrays["preprocessing.mean"]
    pixels = fit_images(load("digits", "test").images[5:6], (32, 32))[0]
    np.testing.assert_allclose(shown, pixels / 255 - np.asarray(mean).reshape(1, 32, 32), atol=1e-5)


def test_a_picture_is_said_to_be_of_another_size(command, tmp_path):
    np.save(tmp_path / "mine.npy", np.full((50, 40), 255, np.uint8))
    assert command("explain", "--image", "mine.npy", "--no-checks") == 0
    size, believed, bright = command.err.splitlines()
    assert "50×40 pixels and was brought to 32×32" in size
    assert "--class" in believed
    assert "--invert" in bright
    assert any("50×40" in note for note in data_in(tmp_path / "explain.html")["notes"])
    assert command("explain", "--image", "mine.npy", "--invert", "--class", "4", "--no-checks") == 0
    assert len(command.err.splitlines()) == 1


def test_a_large_network_says_which_layers_are_shown(command, tmp_path, monkeypatch):
    monkeypatch.setattr("tinycnn.explain.ROOM", 60_000)
    assert command("explain", "--no-checks") == 0
    words = re.search(r"(\d+) of 12 layers with their numbers \((\w+) … (\w+)\)", command.out)
    data = data_in(tmp_path / "explain.html")
    shown = [layer["path"] for layer in data["layers"] if layer["shown"]]
    assert words.groups() == (str(len(shown)), shown[0], shown[-1])
    assert "--layer NAME" in command.err


def test_a_browser_is_opened_if_there_is_one(command, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) == 1)
    assert command("explain", "--no-checks", "--open") == 0
    assert opened == [(tmp_path / "explain.html").as_uri()]
    assert command.err == ""
    assert command("explain", "--no-checks", "--open") == 0
    assert f"no browser was found here: open {tmp_path / 'explain.html'}" in command.err


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
    (tmp_path / "text.png").write_text("no picture")
    assert "is it whole, and an image?" in command.refused("explain", "--image", "text.png")
    assert "leave one out" in command.refused("explain", "--image", "mine.npy", "--index", 3)


def test_a_dataset_of_other_classes(command, tmp_path, trained):
    for split in ("train", "val"):
        for name in ("ant", "bee"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9)).save(tmp_path / "photos" / split / name / "a.png")
    refused = command.refused("explain", trained, "--data", "imagefolder", "--data-dir", "photos")
    assert "tells 10 classes apart" in refused
