"""Trained networks by the name of a run or file, and the images that they are measured on."""

import json

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from tinycnn.cli.trained import loader_for, open_trained
from tinycnn.train import Run, Settings, images


@pytest.fixture
def opened(trained):
    return open_trained(trained, "cpu", None)


def images_of(loader):
    return np.concatenate([x for x, _ in loader.epoch(0)])


@pytest.mark.parametrize("split", ["test", "train"])
def test_images_and_labels(opened, split):
    loader, dataset = loader_for(opened, None, None, split)
    digits = data.load("digits", split)
    assert np.array_equal(loader.labels, digits.labels)
    assert np.array_equal(images_of(loader), digits.normalize(data.fit_images(digits.images, (32, 32))))
    assert dataset.classes == digits.classes


@pytest.mark.parametrize("normalize", ["standard", "per-pixel-mean", "gcn-zca"])
@pytest.mark.parametrize("fraction", [1.0, 0.3])
def test_validation_images_are_those_of_the_run(tmp_path, normalize, fraction):
    """As the run itself makes them: same images, same labels, same scaling."""
    settings = Settings.choose(
        data="digits", epochs=1, seed=3, val_fraction=0.2, normalize=normalize, fraction=fraction
    )
    run = Run.new(settings, tmp_path / "run")
    assert run.fit()
    opened = open_trained(tmp_path / "run", "cpu", None)
    for split, expected in (("validation", run.validation), ("test", run.test)):
        loader, _ = loader_for(opened, None, None, split)
        assert np.array_equal(loader.labels, expected.labels)
        np.testing.assert_array_equal(images_of(loader), images_of(expected))


def test_no_validation_images(opened, trained):
    alone = open_trained(trained / "best.safetensors", "cpu", None)
    for one in (alone, opened):
        one.settings.pop("val_fraction", None)
        with pytest.raises(ValueError, match="validation images are known of run folders only"):
            loader_for(one, None, None, "validation")


def test_options_of_the_dataset_are_those_of_the_run(opened, monkeypatch):
    asked, load = [], data.load

    def note(name, split, data_dir=None, **options):
        asked.append(options)
        return load(name, split, data_dir)

    monkeypatch.setattr(data, "load", note)
    opened.settings["data_options"] = {"labels": "coarse"}
    loader_for(opened, None, None, "test")
    loader_for(opened, "digits", None, "test")
    assert asked == [{"labels": "coarse"}] * 2


# ---- photographs -----------------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path):
    """A folder of photographs, and a network that was trained on it for a moment."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label in ("ants", "bees"):
            (tmp_path / "photos" / part / label).mkdir(parents=True)
            for i in range(5):
                picture = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
                picture.resize((80, 60)).save(tmp_path / "photos" / part / label / f"{i}.png")
    options = {"size": [32, 32]}
    settings = Settings.choose(data="imagefolder", model="resnet20", epochs=1, val_fraction=0, data_options=options)
    assert Run.new(settings, tmp_path / "run", data_dir=str(tmp_path / "photos")).fit()
    return tmp_path


def test_photographs_come_as_large_as_views_want_them(photographs):
    opened = open_trained(photographs / "run", "cpu", None)
    folder = photographs / "photos"
    for scales, options in (
        ((), {"size": (32, 32)}),
        ((38,), {"size": (38, 38), "shorter": 38}),
        ((30, 48), {"size": (48, 48), "shorter": 48}),
    ):
        loader, _ = loader_for(opened, None, None, "test", scales)
        expected = data.load_folder(folder, "test", **options)
        np.testing.assert_array_equal(images_of(loader), expected.normalize(expected.images))


def test_photographs_that_stay_in_their_files(photographs, monkeypatch):
    opened = open_trained(photographs / "run", "cpu", None)
    here = [images_of(loader_for(opened, None, None, "test", scales)[0]) for scales in ((), (38,))]
    monkeypatch.setattr(images, "LARGE", 1000)
    monkeypatch.setattr(images.data, "load", lambda *args, **kwargs: pytest.fail("all of them were decoded"))
    for scales, expected in zip(((), (38,)), here, strict=True):
        loader, dataset = loader_for(opened, None, None, "test", scales)
        assert isinstance(dataset, images.Photographs)
        np.testing.assert_array_equal(images_of(loader), expected)


def test_eval_in_ten_crops_of_photographs(command, photographs):
    """Held to crops of the photographs, one at a time."""
    from tinycnn.losses import softmax
    from tinycnn.train import load

    assert command("eval", "run", "--views", "ten-crop", "--scales", 40, "--json", "--report", "r.json") == 0
    test = data.load_folder(photographs / "photos", "test", (40, 40), 40)
    model, total = load(photographs / "run"), 0
    for top, left in ((0, 0), (0, 8), (8, 0), (8, 8), (4, 4)):
        crop = test.images[:, :, top : top + 32, left : left + 32]
        for shown in (crop, crop[..., ::-1]):
            total = total + softmax(model(test.normalize(shown)).astype(np.float64)) / 10
    found = command.json()
    assert found["scales"] == [40]
    assert found["accuracy"] == (total.argmax(axis=1) == test.labels).mean()
    assert found["loss"] == pytest.approx(-np.log(total[np.arange(10), test.labels]).mean(), rel=1e-5)
    report = json.loads((photographs / "r.json").read_text())
    assert report["classes"] == ["ants", "bees"]
    assert np.sum(report["confusion"]) == 10
