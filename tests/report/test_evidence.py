"""What a run's network has to show, and what is said where it has nothing."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from small_runs import settings

from tinycnn import Conv2d, Linear, ReLU, Sequential, data, load, models
from tinycnn.evaluation import predict
from tinycnn.report import evidence
from tinycnn.report.evidence import find, first_filters
from tinycnn.report.story import read
from tinycnn.train import Run, images


@pytest.fixture
def copy(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def test_the_best_weights_answer_as_in_the_result(finished_run):
    story = read(finished_run)
    found = find(story)
    assert found.notes == []
    assert found.predictions.accuracy == story.result["test_accuracy"]
    assert found.predictions.loss == pytest.approx(story.result["test_loss"], rel=1e-5)
    assert found.epoch == story.best
    assert found.summary.parameters == models.architecture("lenet5").parameters
    assert [i for i, _ in found.worst] == list(found.predictions.most_wrong(24))
    test = data.load("digits", "test")
    assert all(np.array_equal(pixels, test.images[i]) for i, pixels in found.worst)


def test_an_unfinished_run_is_not_tested(tmp_path, monkeypatch):
    run = Run.new(settings(epochs=2), tmp_path / "run")
    run.trainer.after_epoch.append(lambda trainer, row: trainer.stop())
    assert not run.fit()
    monkeypatch.setattr(evidence, "load", lambda *args, **kwargs: pytest.fail("the test images were looked at"))
    found = find(read(run.folder))
    assert found.predictions is None
    assert found.model is not None
    assert "not finished" in " ".join(found.notes)


def test_before_the_first_epoch(tmp_path):
    found = find(read(Run.new(settings(epochs=2), tmp_path / "run").folder))
    assert (found.model, found.summary, found.predictions) == (None, None, None)
    assert "no best.safetensors" in " ".join(found.notes)


def test_damaged_weights(copy):
    path = copy / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    found = find(read(copy))
    assert found.model is None
    assert str(path) in " ".join(found.notes)


def test_data_that_are_gone_or_others(copy, coloured_run, tmp_path, monkeypatch):
    story = read(coloured_run)
    gone = find(story, data_dir=tmp_path / "nowhere")
    assert gone.predictions is None
    assert gone.summary is not None
    assert "nowhere" in " ".join(gone.notes)
    test = data.load("digits", "test")
    others = dataclasses.replace(test, classes=tuple("abcdefghij"))
    monkeypatch.setattr(evidence, "load", lambda *args, **kwargs: others)
    assert "other classes" in " ".join(find(read(copy)).notes)


def test_a_device_that_is_gone(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"device": "cuda"}))
    assert find(read(copy)).notes == []


@pytest.mark.parametrize("normalize", ["per-pixel-mean", "gcn-zca"])
def test_images_are_scaled_as_in_the_run(tmp_path, normalize):
    """To the last bit: all of them at once."""
    run = Run.new(settings(epochs=1, normalize=normalize), tmp_path / "run")
    assert run.fit()
    run.finish()
    found = find(read(run.folder))
    assert found.notes == []
    expected = predict(load(run.folder), run.test)
    assert np.array_equal(found.predictions.probabilities, expected.probabilities)


def test_photographs_that_stay_in_their_files(coloured_run, monkeypatch):
    here = find(read(coloured_run))
    monkeypatch.setattr(images, "LARGE", 1000)
    monkeypatch.setattr(images.data, "load", lambda *args, **kwargs: pytest.fail("all of them were decoded"))
    there = find(read(coloured_run))
    assert there.notes == []
    assert np.array_equal(there.predictions.probabilities, here.predictions.probabilities)
    for (i, pixels), (j, others) in zip(there.worst, here.worst, strict=True):
        assert i == j
        assert np.array_equal(pixels, others)


def test_first_filters(finished_run):
    assert np.array_equal(first_filters(load(finished_run)), load(finished_run).state_dict()["conv1.weight"])
    first, second = Conv2d(2, 5, 3), Conv2d(5, 4, 1)
    assert np.array_equal(first_filters(Sequential(first, ReLU(), second)), first.weight.data)
    assert first_filters(Sequential(Linear(4, 2))) is None
