"""Photographs in folders and zip files."""

import io
import os
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from tinycnn.data import DataError, imagefolder, load_folder

COLOURS = {"ants": (200, 40, 10), "bees": (10, 90, 220)}
FILES = {
    "train/bees/b.JPG": (40, 60, "RGB"),
    "train/bees/a.png": (60, 40, "RGBA"),
    "train/ants/1.jpeg": (50, 50, "RGB"),
    "train/ants/2.png": (32, 32, "L"),
    "val/ants/x.png": (20, 30, "P"),
    "val/bees/y.jpg": (30, 90, "CMYK"),
}


def encoded(path, H, W, mode):
    picture = Image.new("RGB", (W, H), COLOURS[path.split("/")[1]]).convert(mode)
    if mode == "RGBA":
        picture.putalpha(0)
    file = io.BytesIO()
    picture.save(file, "PNG" if path.endswith("png") else "JPEG", quality=95)
    return file.getvalue()


def contents():
    return {path: encoded(path, *how) for path, how in FILES.items()}


@pytest.fixture(params=["folder", "deeper", "zip", "deeper zip"])
def photos(request, tmp_path):
    """The same photographs in each of the ways they may lie."""
    deeper = "photos/" if "deeper" in request.param else ""
    others = {
        "train/ants/notes.txt": b"text",
        "train/bees/.hidden.png": b"x",
        "__MACOSX/ants/z.png": b"x",
        "README": b"",
    }
    files = {deeper + path: raw for path, raw in (contents() | others).items()}
    if "zip" in request.param:
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for path, raw in files.items():
                archive.writestr(path, raw)
        return tmp_path / "photos.zip"
    for path, raw in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(raw)
    return tmp_path


def test_classes_files_and_pixels(photos):
    train, test = (load_folder(photos, split, (32, 24)) for split in ("train", "test"))
    assert train.classes == test.classes == ("ants", "bees")
    assert train.images.shape == (4, 3, 32, 24)
    assert train.images.transpose(0, 2, 3, 1).flags.c_contiguous
    assert train.labels.tolist() == [0, 0, 1, 1]  # 1.jpeg, 2.png, a.png, b.JPG
    for image, label, path in zip(train.images, train.labels, ["1.jpeg", "2.png", "a.png", "b.JPG"], strict=True):
        red, green, blue = COLOURS[train.classes[label]]
        grey = round(0.299 * red + 0.587 * green + 0.114 * blue)
        wanted = {"2.png": (grey,) * 3, "a.png": (255,) * 3}.get(path, (red, green, blue))
        assert np.abs(image.astype(int) - np.array(wanted)[:, None, None]).max() <= 3, path
    assert test.labels.tolist() == [0, 1]
    assert (test.name, test.split, test.shape) == ("imagefolder", "test", (3, 32, 24))
    assert train.mean == (0.485, 0.456, 0.406)


def test_by_name(photos):
    train = data.load("imagefolder", "train", photos)
    assert train.images.shape == (4, 3, 224, 224)
    assert str(train) == "Dataset(imagefolder train: 4 images 3×224×224, 2 classes)"


def test_grey(photos):
    train = load_folder(photos, "train", (8, 8), channels=1)
    assert train.images.shape == (4, 1, 8, 8)
    assert train.normalize(train.images).shape == (4, 1, 8, 8)


def test_the_shorter_side_first(photos):
    assert load_folder(photos, "test", (28, 28), shorter=32).shape == (3, 28, 28)
    with pytest.raises(ValueError, match="shorter side is 32 do not cover 40×28"):
        load_folder(photos, "test", (40, 28), shorter=32)


def written(tmp_path, files):
    for path, raw in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(raw)
    return tmp_path


def test_unreadable_files_are_named_and_counted(tmp_path):
    broken = {"train/ants/0.png": b"nothing", "train/bees/c.jpg": contents()["train/bees/b.JPG"][:300]}
    folder = written(tmp_path, contents() | broken)
    message = r"2 of 6 pictures cannot be read: 0\.png: not an image.*, c\.jpg: .*"
    with pytest.raises(DataError, match=message + "skip_unreadable=True"):
        load_folder(folder, "train", (8, 8))
    with pytest.warns(UserWarning, match=message):
        train = load_folder(folder, "train", (8, 8), skip_unreadable=True)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert np.abs(train.images[0].mean(axis=(1, 2)) - COLOURS["ants"]).max() < 3  # 1.jpeg, not 0.png


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ({"ants/1.png": b""}, "train", "no folder train in .*: it should hold a folder for each class"),
        ({"train/a/1.png": b""}, "test", "no folder test or val or valid in "),
        ({"train/a/1.png": b"", "val/b/1.png": b""}, "test", "there are no training images of b"),
        ({"train/a/1.png": b"", "val/1.png": b""}, "test", "it has no folders of classes"),
        ({"train/a/1.png": b"", "train/b/notes.txt": b""}, "train", "train/b holds no pictures"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, files, split, message):
    with pytest.raises(DataError, match=f"^imagefolder: .*{message}"):
        load_folder(written(tmp_path, files), split)


def test_what_is_no_folder_and_no_zip(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK but no more")
    for name in ("a.zip", "none"):
        with pytest.raises(DataError, match=r"is no folder and no whole zip file \("):
            load_folder(tmp_path / name)


def test_damage_within_a_zip(tmp_path, monkeypatch):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in contents().items():
            archive.writestr(name, raw)
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        place = archive.getinfo("train/ants/2.png").header_offset
    raw[place + 60 : place + 70] = b"\xff" * 10
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"1 of 4 pictures cannot be read: 2\.png: damaged in the archive"):
        load_folder(path, "train", (8, 8))
    monkeypatch.setattr(imagefolder, "MAX_BYTES", 50)
    with pytest.raises(DataError, match=r"has over 50 bytes: shrink it"):
        load_folder(path, "train", (8, 8))


def test_without_pillow(tmp_path, monkeypatch):
    folder = written(tmp_path, contents())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"needs Pillow: pip install 'tinycnn\[data\]'"):
        load_folder(folder)


@pytest.mark.parametrize("place", ["hymenoptera", "hymenoptera_data", ""])
def test_ants_and_bees_are_found_in_the_data_directory(tmp_path, place, monkeypatch):
    written(tmp_path / place, contents())
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path))
    assert data.load("hymenoptera", "test").name == "hymenoptera"


REAL = os.path.join(os.environ.get("TINYCNN_DATA", ""), "hymenoptera")


@pytest.mark.skipif(not os.path.isdir(REAL), reason="the photographs of ants and bees are not in $TINYCNN_DATA")
def test_the_published_photographs():
    train, test = (data.load("hymenoptera", split) for split in ("train", "test"))
    assert (len(train), len(test)) == (244, 153)
    assert np.bincount(train.labels).tolist() == [123, 121]
    assert np.bincount(test.labels).tolist() == [70, 83]
