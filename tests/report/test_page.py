"""The file; tests/report/test_in_browser.py looks at it."""

import os
import re
import shutil
import sys

import numpy as np
import pytest
from small_runs import settings

from tinycnn import report
from tinycnn.evaluation import Predictions
from tinycnn.report import page
from tinycnn.report.evidence import Evidence
from tinycnn.report.story import Story
from tinycnn.train import CheckpointError, Run


def test_it_lies_in_the_run_folder_and_nothing_else_is_left(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    before = {path.name for path in folder.iterdir()}
    path = report.write(folder)
    assert path == folder / "report.html"
    assert {path.name for path in folder.iterdir()} == before | {"report.html"}
    first = path.read_bytes()
    assert report.write(folder) == path
    assert path.read_bytes() == first


def test_it_needs_nothing_else(finished_run, coloured_run, tmp_path):
    for run in (finished_run, coloured_run):
        html = report.write(run, tmp_path / "a.html").read_text(encoding="utf-8")
        assert not re.search(r"<script|<link|<iframe|@import|@font-face|url\(|\bon\w+=[\"']", html)
        assert not re.search(r"(src|href)=\"(?!data:image/png;base64,|#)", html)
        assert "http" not in html.replace("http-equiv", "")


def test_no_library_of_pictures_is_needed(finished_run, tmp_path, monkeypatch):
    whole = report.write(finished_run, tmp_path / "a.html").read_bytes()
    for name in ("matplotlib", "PIL"):
        monkeypatch.setitem(sys.modules, name, None)
    assert report.write(finished_run, tmp_path / "b.html").read_bytes() == whole


def test_an_unfinished_run(tmp_path):
    run = Run.new(settings(epochs=2), tmp_path / "run")
    html = report.write(run.folder).read_text(encoding="utf-8")
    assert "not finished: 0 of 2 epochs" in html
    assert "Settings" in html


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_a_folder_whose_name_is_no_text(finished_run, tmp_path):
    folder = tmp_path / os.fsdecode(b"run \xff")
    shutil.copytree(finished_run, folder)
    assert "tinycnn · run ?" in report.write(folder).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("K", [100, 1000])
def test_a_large_run_fits_in_two_megabytes(tmp_path, K):
    """Hundreds of epochs, many classes, photographs."""
    rng = np.random.default_rng(0)
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds", "images_per_second")
    history = [{"epoch": e, **dict(zip(names, rng.random(7).tolist(), strict=True))} for e in range(1, 401)]
    story = Story(tmp_path, {"settings": {"model": "resnet50"}}, history, {"test_accuracy": 0.5, "best_epoch": 400})
    p = rng.dirichlet(np.ones(K), 10_000)
    found = Predictions(p, rng.integers(0, K, 10_000), tuple(f"a rather long name of class {k}" for k in range(K)))
    worst = [(i, rng.integers(0, 256, (3, 500, 375), np.uint8)) for i in range(24)]
    html = page.page(story, Evidence(None, 400, None, found, worst, []))
    assert len(html.encode()) < 2_000_000
