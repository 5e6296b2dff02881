"""The picture of a run."""

import sys

import numpy as np

from tinycnn.train import curves

HISTORY = [
    {"epoch": e, "train_loss": 2 / e, "train_accuracy": 1 - 0.5 / e, "val_loss": 2.5 / e, "val_accuracy": 1 - 0.6 / e}
    for e in range(1, 6)
]


def test_a_png_with_something_on_it(tmp_path):
    from matplotlib.image import imread

    path = tmp_path / "curves.png"
    assert curves.draw(HISTORY, path, best=4)
    picture = imread(path)
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]


def test_without_validation_or_history(tmp_path):
    rows = [{k: v for k, v in row.items() if not k.startswith("val")} for row in HISTORY]
    assert curves.draw(rows, tmp_path / "a.png", best=5)
    assert not curves.draw([], tmp_path / "b.png", best=0)
    assert not (tmp_path / "b.png").exists()


def test_epochs_and_losses_are_plain_numbers(tmp_path, monkeypatch):
    """Of few epochs, too, with whatever else a row says."""
    from matplotlib.figure import Figure

    kept = []
    original = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda self, *a, **k: kept.append(original(self, *a, **k)) or kept[-1])
    rows = [{**row, "lr": 0.1, "seconds": 2.0, "images_per_second": 1e4} for row in HISTORY[:3]]
    assert curves.draw(rows, tmp_path / "a.png", best=3)
    for axes in kept[0]:
        words = [text.get_text() for text in axes.get_xticklabels()]
        assert words
        assert all(word.isdecimal() for word in words)
        assert [list(line.get_xdata()) for line in axes.lines[:2]] == [[1, 2, 3], [1, 2, 3]]
    losses = [text.get_text() for text in kept[0][0].get_yticklabels(which="both")]
    assert {"1", "2"} <= set(losses)
    assert not any("10^" in word for word in losses)


def test_no_matplotlib_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert not curves.draw(HISTORY, tmp_path / "a.png", best=1)
    assert not list(tmp_path.iterdir())
