import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tinycnn import data
from tinycnn.data import digits

ARCHIVE = Path(digits.__file__).with_name("digits.npz")
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_digits.py"


def make_digits():
    spec = importlib.util.spec_from_file_location("make_digits", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_archive_equals_scikit_learns_copy():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    with np.load(ARCHIVE, allow_pickle=False) as ours:
        assert sorted(ours.files) == ["images", "labels"]
        assert ours["images"].dtype == ours["labels"].dtype == np.uint8
        np.testing.assert_array_equal(ours["images"], theirs.images)
        np.testing.assert_array_equal(ours["labels"], theirs.target)


def test_the_script_makes_the_committed_bytes(tmp_path, capsys):
    pytest.importorskip("sklearn")
    make_digits().main(tmp_path / "digits.npz")
    assert (tmp_path / "digits.npz").read_bytes() == ARCHIVE.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["digits.npz"]
    assert "117,275 bytes" in capsys.readouterr().out


def test_attribution_names_work_licence_and_changes():
    text = ARCHIVE.with_name("ATTRIBUTION.md").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "creativecommons.org/licenses/by/4.0", "changed"):
        assert words in text


def test_the_two_parts_make_up_the_whole():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert (len(train), len(test)) == (1438, 359)
    with np.load(ARCHIVE) as archive:
        counts, labels = archive["images"], archive["labels"]
    # 0..16 -> 0..255, both ends reached, and back without loss
    images = np.concatenate([train.images, test.images])[:, 0]
    assert (images.min(), images.max()) == (0, 255)
    rows = {tuple(row) for row in np.rint(images.reshape(1797, 64) * (16 / 255)).astype(int)}
    assert rows == {tuple(row) for row in counts.reshape(1797, 64).astype(int)}
    both = np.bincount(train.labels) + np.bincount(test.labels)
    assert both.tolist() == np.bincount(labels).tolist()


def test_classes_are_represented_alike():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    share = np.bincount(test.labels) / (np.bincount(train.labels) + np.bincount(test.labels))
    assert share.min() > 0.19
    assert share.max() < 0.21


def test_statistics_are_those_of_the_training_part():
    train, test = data.load("digits", "train"), data.load("digits", "test")
    assert train.mean == test.mean
    assert train.std == test.std
    pixels = train.images.astype(np.float64) / 255
    assert train.mean[0] == pytest.approx(pixels.mean(), rel=1e-12)
    assert train.std[0] == pytest.approx(np.sqrt(((pixels - pixels.mean()) ** 2).mean()), rel=1e-12)


def test_the_test_images_never_change():
    """Accuracies are comparable between versions only if this stays."""
    test = data.load("digits", "test")
    assert test.images.transpose(0, 2, 3, 1).flags.c_contiguous
    raw = test.images.tobytes() + test.labels.astype("<i8").tobytes()
    assert hashlib.sha256(raw).hexdigest()[:16] == "83d47bfc9f131b22"
