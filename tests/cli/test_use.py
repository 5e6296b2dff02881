"""``tinycnn eval`` and ``predict``."""

import json

import numpy as np
import pytest
from PIL import Image

from tinycnn import data, models
from tinycnn.train import save
from tinycnn.train.checkpoint import WEIGHTS, read, write


def test_eval_equals_the_accuracy_that_training_reported(command, trained):
    reported = json.loads((trained / "result.json").read_text())
    for path in (trained, trained / "best.safetensors"):
        assert command("eval", path, "--json") == 0
        found = command.json()
        assert found["test_accuracy"] == reported["test_accuracy"]
        assert found["loss"] == reported["test_loss"]
        assert (found["data"], found["images"]) == ("digits", 359)


def test_eval_on_the_training_images_in_words(command, trained):
    assert command("eval", trained, "--split", "train") == 0
    assert command.out.startswith("digits train: accuracy ")
    assert "of 1,438" in command.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: there is no such file or folder"),
        (["RUN", "--data", "digts"], "did you mean 'digits'?"),
        (["RUN", "--data", "mnist"], "mnist: no data directory"),
        (["RUN", "--split", "validation"], "unknown split 'validation'"),
        (["RUN", "--device", "gpu"], "unknown device 'gpu'"),
        (["RUN/training_state.safetensors"], "holds a training state, not weights"),
        (["RUN/config.json"], "not a safetensors file"),
    ],
)
def test_eval_refuses(command, trained, arguments, words):
    assert words in command.refused("eval", *(a.replace("RUN", str(trained)) for a in arguments))


def test_eval_refuses_a_network_for_other_images(command, trained, monkeypatch):
    full = data.load

    def colour(name, split, data_dir=None):
        d = full("digits", split)
        images = np.repeat(d.images, 3, axis=1)
        return data.Dataset("colour", split, images, d.labels, d.classes, d.mean * 3, d.std * 3)

    monkeypatch.setattr(data, "load", colour)
    assert "the network takes 1 channels and tells 10 classes apart" in command.refused("eval", trained)


def test_eval_of_a_run_without_a_finished_epoch(command, tmp_path):
    assert command("train", "--lr", "1e9", "--optimizer", "sgd", "--out", "a run", "--quiet") == 1
    expected = "a run: no epoch is finished yet: go on with tinycnn train --resume 'a run'"
    assert command.refused("eval", "a run").endswith(expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "no dict"),
        ("", {}),
        ("data", ["digits"]),
        ("classes", 10),
        ("input_size", "32"),
        ("input_size", [1 << 30, 1 << 30]),
        ("image_size", [8]),
        ("mean", ["0.1"]),
        ("std", [0.0]),
        ("std", [float("nan")]),
    ],
)
def test_preprocessing_that_makes_no_sense(command, trained, tmp_path, name, value):
    saved = read(trained, WEIGHTS)
    how = {**saved.metadata["preprocessing"], name: value} if name else value
    kept = ("tinycnn", "checksum", "preprocessing")
    metadata = {k: v for k, v in saved.metadata.items() if k not in kept}
    write(tmp_path / "m.safetensors", saved.arrays, {**metadata, "preprocessing": how})
    words = "m.safetensors: damaged: how images are prepared makes no sense"
    for arguments in (("eval",), ("export",), ("predict",)):
        more = ("net.onnx",) if arguments == ("export",) else ("x.png",) if arguments == ("predict",) else ()
        assert words in command.refused(*arguments, tmp_path / "m.safetensors", *more)


def test_weights_without_preprocessing(command, tmp_path):
    save(models.create("lenet5"), tmp_path / "m.safetensors")
    assert "does not say how images are prepared" in command.refused("eval", "m.safetensors")


def test_weights_that_are_not_numbers(command, tmp_path, trained):
    from tinycnn.train import checkpoint

    saved = checkpoint.read(trained / "best.safetensors", "weights")
    arrays = {**saved.arrays, "conv2.weight": np.full_like(saved.arrays["conv2.weight"], np.nan)}
    metadata = {k: v for k, v in saved.metadata.items() if k != "checksum"}
    checkpoint.write(tmp_path / "m.safetensors", arrays, metadata)
    assert command("eval", "m.safetensors") == 1
    assert "first non-finite value in the parameter conv2.weight" in command.err


# ---- predict -----------------------------------------------------------------------------------------------


def test_predict_sees_what_eval_sees(command, trained, tmp_path):
    """Digits written to PNG files and read back: as many are told right as eval counts."""
    test = data.load("digits", "test")
    for i in range(40):
        Image.fromarray(test.images[i, 0]).save(tmp_path / f"{i}.png")
        np.save(tmp_path / f"{i}.npy", test.images[i, 0])
    assert command("predict", trained, *(f"{i}.png" for i in range(40)), "--json") == 0
    found = command.json()["predictions"]
    assert [one["image"] for one in found] == [f"{i}.png" for i in range(40)]
    right = np.mean([int(one["class"]) == label for one, label in zip(found, test.labels, strict=False)])
    assert right > 0.8
    for one in found:
        assert len(one["top"]) == 3
        assert one["top"][0]["probability"] == one["probability"] >= one["top"][1]["probability"]
    assert command("predict", trained, *(f"{i}.npy" for i in range(40)), "--json") == 0
    assert [one["top"] for one in command.json()["predictions"]] == [one["top"] for one in found]


def test_predict_prepares_images_as_training_did(command, trained, tmp_path):
    """The probabilities are those of the network on the loader's own batch."""
    from tinycnn.losses import softmax
    from tinycnn.train import load

    test = data.prepare(data.load("digits", "test"), (32, 32))
    x, _ = next(data.Loader(test.images, test.labels, 1, shuffle=False, normalize=test.normalize).epoch(0))
    expected = softmax(load(trained)(x))[0]
    Image.fromarray(data.load("digits", "test").images[0, 0]).save(tmp_path / "a.png")
    assert command("predict", trained, "a.png", "--json", "--top", 10) == 0
    top = command.json()["predictions"][0]["top"]
    assert len(top) == 10
    for one in top:
        assert one["probability"] == pytest.approx(float(expected[one["label"]]), rel=1e-6)


def test_predict_brings_a_photograph_to_the_size_of_the_dataset_first(command, trained, tmp_path):
    """A digit of 96×80 pixels becomes 8×8, as the network knows digits, and only then 32×32."""
    from tinycnn.losses import softmax
    from tinycnn.train import load

    test = data.load("digits", "test")
    picture = test.images[5, 0].repeat(12, axis=0).repeat(10, axis=1)
    Image.fromarray(picture).save(tmp_path / "a.png")
    small = data.fit_images(picture[None, None], (8, 8))
    assert not np.array_equal(small[0, 0], test.images[5, 0])
    expected = softmax(load(trained)(test.normalize(data.fit_images(small, (32, 32)))))[0]
    assert command("predict", trained, "a.png", "--json") == 0
    best = command.json()["predictions"][0]["top"][0]
    assert best["probability"] == pytest.approx(float(expected[best["label"]]), rel=1e-6)


def test_ink_on_paper_is_noticed_and_inverted_on_request(command, trained, tmp_path):
    x = data.load("digits", "test").images[3, 0]
    Image.fromarray(x).save(tmp_path / "a.png")
    Image.fromarray(255 - x).save(tmp_path / "b.png")
    assert command("predict", trained, "a.png", "--json") == 0
    assert command.err == ""
    plain = command.json()["predictions"][0]["top"]
    assert command("predict", trained, "b.png", "--invert", "--json") == 0
    assert command.json()["predictions"][0]["top"] == plain
    assert command("predict", trained, "b.png") == 0
    assert command.err == "tinycnn: note: b.png is dark on bright, unlike the training images: try --invert\n"
    assert command.out.startswith("b.png: ")


def test_predict_refuses(command, trained, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    assert "text.png: not an image" in command.refused("predict", trained, "text.png")
    assert "nowhere.png: cannot be read" in command.refused("predict", trained, "nowhere.png")
    assert "threads must be at least 1" in command.refused("predict", trained, "text.png", "--threads", 0)
    assert "--top must be at least 1" in command.refused("predict", trained, "text.png", "--top", 0)
    assert "there is no such file or folder" in command.refused("predict", "nowhere", "text.png")
