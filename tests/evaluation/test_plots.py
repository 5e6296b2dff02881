"""Pictures of predictions."""

import sys

import numpy as np
import pytest
from matplotlib.image import imread

from tinycnn.evaluation import Predictions, draw_calibration, draw_confusion, plots


def made(K=3, N=60, names=None):
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    e = np.exp(rng.standard_normal((N, K)) + 2 * np.eye(K)[y])
    return Predictions(e / e.sum(axis=1, keepdims=True), y, names or tuple(f"class {k}" for k in range(K)))


@pytest.fixture
def drawn(monkeypatch):
    """The figure that is about to be written."""
    figures = []
    save = plots._save

    def keep(figure, path):
        figures.append(figure)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def cells(axes):
    """What the picture of a matrix shows: shares, and the numbers by (row, column)."""
    shares = np.asarray(axes.images[0].get_array()) ** (1 / plots.GAMMA)
    return shares, {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}


def test_rows_are_the_truth_and_numbers_are_images(tmp_path, drawn):
    p = Predictions([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3], [0.1, 0.9]], [0, 0, 0, 1], ("ants", "bees"))
    draw_confusion(p, tmp_path / "c.png")
    axes, bar = drawn[0].axes
    shares, numbers = cells(axes)
    np.testing.assert_allclose(shares, [[1 / 3, 2 / 3], [0, 1]], atol=1e-12)
    assert numbers == {(0, 0): "1", (0, 1): "2", (1, 1): "1"}
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["ants", "bees"]
    assert axes.get_title(loc="left") == "accuracy 50.00 % of 4 images"
    assert axes.yaxis_inverted()  # the first class on top
    assert [label.get_text() for label in bar.get_yticklabels()] == ["0%", "1%", "5%", "20%", "50%", "100%"]


@pytest.mark.parametrize(("K", "numbers", "names"), [(2, True, True), (20, True, True), (21, False, True), (121, 0, 0)])
def test_what_there_is_room_for(tmp_path, drawn, K, numbers, names):
    p = made(K)
    draw_confusion(p, tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert bool(axes.texts) == numbers
    assert ("class 1" in [label.get_text() for label in axes.get_yticklabels()]) == names
    picture = imread(tmp_path / "c.png")
    assert 400 < picture.shape[0] < 2600
    assert len(np.unique(picture[..., 0])) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]


def test_long_names_are_cut_and_a_class_without_images_is_white(tmp_path, drawn):
    p = Predictions([[0.9, 0.1]], [0], ("x" * 40, "y"))
    draw_confusion(p, tmp_path / "c.png")
    axes = drawn[0].axes[0]
    assert axes.get_yticklabels()[0].get_text() == "x" * 23 + "…"
    assert cells(axes)[0].tolist() == [[1, 0], [0, 0]]


def test_names_are_no_mathematics(tmp_path, drawn):
    """Two dollar signs would make it of what is between, and fail of what is none."""
    names = ("a$_$b", r"$\frac$", "$c")
    draw_confusion(made(names=names), tmp_path / "c.png")
    for label, name in zip(drawn[0].axes[0].get_yticklabels(), names, strict=True):
        assert label._preprocess_math(label.get_text()) == (name, False)


def test_calibration(tmp_path, drawn):
    p = made(N=300)
    draw_calibration(p, tmp_path / "c.png", bins=5)
    upper, lower = drawn[0].axes
    found, full = p.calibration(5), p.calibration(5).counts > 0
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in upper.patches]
    expected = [(m / 5, 1 / 5, found.accuracy[m]) for m in range(5) if full[m]]
    np.testing.assert_allclose(bars, expected, atol=1e-12)
    assert [bar.get_height() for bar in lower.patches] == pytest.approx(found.counts / 300)
    points = upper.lines[1].get_xydata()
    np.testing.assert_allclose(points, np.stack([found.confidence, found.accuracy], axis=1)[full])
    assert f"calibration error {100 * found.error:.2f} %" in upper.get_title(loc="left")
    assert imread(tmp_path / "c.png").shape[0] > 400


@pytest.mark.parametrize("draw", [draw_confusion, draw_calibration])
def test_without_matplotlib(tmp_path, monkeypatch, draw):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'tinycnn\[plot\]'"):
        draw(made(), tmp_path / "c.png")


@pytest.mark.parametrize("draw", [draw_confusion, draw_calibration])
def test_a_file_that_cannot_be_written(tmp_path, draw):
    (tmp_path / "c.png").mkdir()
    with pytest.raises(OSError, match=r"c\.png"):
        draw(made(), tmp_path / "c.png")
    assert [path.name for path in tmp_path.iterdir()] == ["c.png"]
    with pytest.raises(OSError, match="nowhere"):
        draw(made(), tmp_path / "nowhere" / "c.png")
