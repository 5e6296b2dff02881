"""``tinycnn eval`` and ``predict``."""

import json

import numpy as np
import pytest
from matplotlib.image import imread
from PIL import Image
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from tinycnn import data, models
from tinycnn.cli import main, use
from tinycnn.train import load, save
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
        (["RUN", "--split", "validatoin"], "--split: unknown 'validatoin'; did you mean 'validation'?"),
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


@pytest.mark.parametrize("views", ["single", "mirrored"])
def test_weights_that_are_not_numbers(command, tmp_path, trained, views):
    from tinycnn.train import checkpoint

    saved = checkpoint.read(trained / "best.safetensors", "weights")
    arrays = {**saved.arrays, "conv2.weight": np.full_like(saved.arrays["conv2.weight"], np.nan)}
    metadata = {k: v for k, v in saved.metadata.items() if k != "checksum"}
    checkpoint.write(tmp_path / "m.safetensors", arrays, metadata)
    assert command("eval", "m.safetensors", "--views", views) == 1
    assert "first non-finite value in the parameter conv2.weight" in command.err


# ---- views, ensembles, calibration -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A run folder: another seed, and other validation images with it."""
    folder = tmp_path_factory.mktemp("another") / "run"
    assert main(["train", "--epochs", "1", "--out", str(folder), "--quiet", "--json", "--seed", "5"]) == 0
    return folder


def probabilities(run, split="test", shift=lambda x: x):
    """Of a run's network for digits, by its own softmax in float64."""
    digits = data.load("digits", split)
    x = digits.normalize(data.fit_images(digits.images, (32, 32)))
    return softmax(load(run)(shift(x)).astype(np.float64), axis=1), digits.labels


def test_eval_says_how_sure_one_may_be(command, trained):
    assert command("eval", trained, "--json") == 0
    found, (p, y) = command.json(), probabilities(trained)
    ci = binomtest(int((p.argmax(axis=1) == y).sum()), 359).proportion_ci(0.95, "wilson")
    assert found["interval"] == pytest.approx([ci.low, ci.high], rel=1e-12)
    assert found["top5"] == top_k_accuracy_score(y, p, k=5)
    assert (found["views"], found["scales"], found["model"]) == ("single", [], "lenet5")
    assert command("eval", trained) == 0
    first, second = command.out.splitlines()
    assert first.startswith(f"digits test: accuracy {100 * found['accuracy']:.2f} % (")
    assert second.startswith(f"95 % interval {100 * ci.low:.2f} … {100 * ci.high:.2f} %; top-5 ")


def test_an_ensemble_is_the_mean_of_the_probabilities(command, trained, another):
    assert command("eval", trained, another / "best.safetensors", "--json") == 0
    found = command.json()
    (p, y), (q, _) = probabilities(trained), probabilities(another)
    mean = (p + q) / 2
    assert found["accuracy"] == found["test_accuracy"] == (mean.argmax(axis=1) == y).mean()
    assert found["loss"] == pytest.approx(log_loss(y, mean), rel=1e-5)
    for one, alone, path in zip(found["members"], (p, q), (trained, another / "best.safetensors"), strict=True):
        assert one["accuracy"] == (alone.argmax(axis=1) == y).mean()
        assert one["checkpoint"] == str(path)
    assert command("eval", trained, another) == 0
    lines = command.out.splitlines()
    assert lines[0].startswith(f"{trained}: accuracy ")
    assert lines[1].startswith(f"{another}: accuracy ")
    assert lines[2].startswith(f"mean of 2, digits test: accuracy {100 * found['accuracy']:.2f} % (")
    assert len(lines) == 4


def test_mirrored_views(command, trained):
    assert command("eval", trained, "--views", "mirrored", "--json") == 0
    found = command.json()
    (p, y), (q, _) = probabilities(trained), probabilities(trained, shift=lambda x: x[..., ::-1])
    assert found["accuracy"] == ((p + q).argmax(axis=1) == y).mean()
    assert found["loss"] == pytest.approx(log_loss(y, (p + q) / 2), rel=1e-5)
    assert found["views"] == "mirrored"


def test_ten_crops_of_images_8_7_as_large(command, trained):
    total = 0
    for top, left in ((0, 0), (0, 5), (5, 0), (5, 5), (2, 2)):
        for step in (1, -1):
            p, y = probabilities(
                trained,
                shift=lambda x: data.fit_images(x, (37, 37), "resize")[
                    :, :, top : top + 32, left : left + 32  # noqa: B023 (called at once)
                ][..., ::step],  # noqa: B023
            )
            total = total + p / 10
    assert command("eval", trained, "--views", "ten-crop", "--json") == 0
    found = command.json()
    assert (found["views"], found["scales"]) == ("ten-crop", [37])
    assert found["accuracy"] == (total.argmax(axis=1) == y).mean()
    assert found["loss"] == pytest.approx(log_loss(y, total), rel=1e-5)
    assert command("eval", trained, "--views", "ten-crop") == 0
    assert command.out.startswith("digits test, ten-crop of 37 pixels: accuracy ")


def test_the_temperature_is_that_of_the_validation_images(command, trained):
    """Fitted by SciPy to what the run has set aside: a tenth of the training images."""
    p, y = probabilities(trained, "train")
    _, kept = data.stratified_split(y, 0.1, seed=4)

    def loss(T, p, y):
        z = np.log(p) / T
        return -log_softmax(z, axis=1)[np.arange(len(y)), y].mean()

    best = minimize_scalar(lambda T: loss(T, p[kept], y[kept]), bounds=(0.05, 20), method="bounded").x
    assert command("eval", trained, "--calibrate", "--json") == 0
    found = command.json()
    cooled = found["calibrated"]
    assert cooled["temperature"] == pytest.approx(best, rel=1e-3)
    assert cooled["fitted_to"] == len(kept) == 144
    assert cooled["accuracy"] == found["accuracy"]
    assert cooled["loss"] == pytest.approx(loss(cooled["temperature"], *probabilities(trained)), rel=1e-5)
    assert command("eval", trained, "--calibrate") == 0
    assert f"at temperature {cooled['temperature']:.3f}, fitted to 144 validation images: loss " in command.out


def test_validation_images(command, trained):
    best = json.loads((trained / "result.json").read_text())
    assert command("eval", trained, "--split", "validation", "--json") == 0
    found = command.json()
    assert found["accuracy"] == best["val_accuracy"]
    assert "test_accuracy" not in found
    assert found["images"] == 144


def test_what_eval_writes(command, trained, tmp_path):
    files = ("--report", "r.json", "--confusion", "c.png", "--calibration", "s.png")
    assert command("eval", trained, *files, "--per-class", "--json") == 0
    report, line, (p, y) = json.loads((tmp_path / "r.json").read_text()), command.json(), probabilities(trained)
    assert line.items() <= report.items()
    assert report["confusion"] == confusion_matrix(y, p.argmax(axis=1)).tolist()
    assert sum(report["calibration"]["counts"]) == 359
    assert [row["class"] for row in report["per_class"]] == [str(k) for k in range(10)]
    for name in ("c.png", "s.png"):
        assert imread(tmp_path / name).shape[1] > 400
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.png", "r.json", "s.png"]
    assert command("eval", trained, "--per-class") == 0
    assert command.out.splitlines()[2].split() == ["class", "images", "precision", "recall", "F1"]
    assert len(command.out.splitlines()) == 13


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--views", "10-crop"], "--views: unknown '10-crop'; did you mean 'ten-crop'?"),
        (["--views", "multi-scale"], "of 28×28, the network says: fc1 (Linear(400, 120)): expected 400 features"),
        (["--views", "ten-crop", "--scales", "24"], "TenCrop(size=32): images are 24×24, smaller than that"),
        (["--scales", "36,"], "--scales must be whole numbers of pixels from 1 on"),
        (["--calibrate", "--split", "train"], "is for --split test"),
        (["--report", "nowhere/r.json"], "nowhere/r.json: there is no folder nowhere"),
        (["ANOTHER", "--calibrate"], "digits validation: an ensemble needs the same images in one order"),
        (["FILE", "--calibrate"], "validation images are known of run folders only, that set some aside"),
        (["--weights", "net.pth"], "name either a run or a checkpoint, or a file of weights"),
    ],
)
def test_eval_refuses_what_does_not_go_together(command, trained, another, arguments, words):
    named = {"ANOTHER": str(another), "FILE": str(trained / "best.safetensors")}
    arguments = [named.get(a, a) for a in arguments]
    run = [] if arguments[0] == named["FILE"] else [trained]
    assert words in command.refused("eval", *run, *arguments)


def test_pictures_without_matplotlib_are_refused_before_the_work(command, trained, monkeypatch):
    monkeypatch.setattr(use, "find_spec", lambda name: None)
    monkeypatch.setattr(use.Look, "measure", None)
    assert "pip install 'tinycnn[plot]'" in command.refused("eval", trained, "--confusion", "c.png")


def test_networks_trained_on_different_data(command, trained, another, tmp_path):
    saved = read(another, WEIGHTS)
    how = {**saved.metadata["preprocessing"], "data": "mnist"}
    metadata = {k: v for k, v in saved.metadata.items() if k not in ("tinycnn", "checksum", "preprocessing")}
    write(tmp_path / "m.safetensors", saved.arrays, {**metadata, "preprocessing": how})
    assert "m.safetensors on mnist: name one dataset with --data" in command.refused("eval", trained, "m.safetensors")
    assert command("eval", trained, "m.safetensors", "--data", "digits", "--json") == 0
    assert command.json()["data"] == "digits"


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
    test = data.prepare(data.load("digits", "test"), (32, 32))
    x, _ = next(data.Loader(test.images, test.labels, 1, shuffle=False, normalize=test.normalize).epoch(0))
    expected = softmax(load(trained)(x), axis=1)[0]
    Image.fromarray(data.load("digits", "test").images[0, 0]).save(tmp_path / "a.png")
    assert command("predict", trained, "a.png", "--json", "--top", 10) == 0
    top = command.json()["predictions"][0]["top"]
    assert len(top) == 10
    for one in top:
        assert one["probability"] == pytest.approx(float(expected[one["label"]]), rel=1e-6)


def test_predict_brings_a_photograph_to_the_size_of_the_dataset_first(command, trained, tmp_path):
    """A digit of 96×80 pixels becomes 8×8, as the network knows digits, and only then 32×32."""
    test = data.load("digits", "test")
    picture = test.images[5, 0].repeat(12, axis=0).repeat(10, axis=1)
    Image.fromarray(picture).save(tmp_path / "a.png")
    small = data.fit_images(picture[None, None], (8, 8))
    assert not np.array_equal(small[0, 0], test.images[5, 0])
    expected = softmax(load(trained)(test.normalize(data.fit_images(small, (32, 32)))), axis=1)[0]
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
