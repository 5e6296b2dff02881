"""Photographs in folders and zip files."""

import io
import os
import sys
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from tinycnn import data
from tinycnn.data import DataError, Source, imagefolder, load_folder, open_folder

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
    message = r"^imagefolder train: 2 of 6 pictures cannot be read: .*train.ants.0\.png: not an image.*, .*c\.jpg: .*"
    with pytest.raises(DataError, match=message + "skip_unreadable=True"):
        load_folder(folder, "train", (8, 8))
    with pytest.warns(UserWarning, match=message):
        train = load_folder(folder, "train", (8, 8), skip_unreadable=True)
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert np.abs(train.images[0].mean(axis=(1, 2)) - COLOURS["ants"]).max() < 3  # 1.jpeg, not 0.png


TWO = {"train/a/1.png": b"", "train/b/1.png": b""}


@pytest.mark.parametrize("called", ["val", "valid", "validation"])
@pytest.mark.parametrize("split", ["val", "valid", "validation"])
def test_pictures_to_validate_on_beside_those_to_test_on(tmp_path, called, split):
    folder = written(tmp_path, TWO | {f"{called}/a/2.png": b"", "test/b/3.png": b""})
    for asked, file in ((split, f"{called}/a/2.png"), ("test", "test/b/3.png")):
        (found,) = open_folder(folder, asked).files
        assert found == folder / file


@pytest.mark.parametrize(
    ("files", "split", "message"),
    [
        ({"notes.txt": b""}, "train", "no folder train in .*: it should hold a folder for each class"),
        ({"a/notes.txt": b"", "b/c/d/1.png": b""}, "train", "no folder train in "),
        (TWO, "test", "no folder test or val or valid or validation in "),
        (TWO | {"test/a/1.png": b""}, "val", "no folder val or valid or validation in "),
        ({"a/1.png": b"", "a/2.png": b"", "b/1.png": b"", "b/2.png": b""}, "dev", "no folder dev in "),
        (TWO, "all", "no folder all in "),
        (TWO | {"val/c/1.png": b""}, "test", "val: there are no training images of c"),
        (TWO | {"val/1.png": b""}, "test", "val: it has no folders of classes"),
        (
            {"train/a/1.png": b"", "train/b/notes.txt": b""},
            "train",
            r"train.b holds no pictures .*, only 1 \.txt",
        ),
        ({"train/a/1.png": b"", "train/b/c/1.png": b""}, "train", r"train.b holds no pictures \(.*\): fill or remove"),
        (
            {"train/a/1.png": b"", "val/a/1.png": b""},
            "train",
            "train has one class, a, and a network tells two",
        ),
        ({"train/1.png": b""}, "train", "train has no folders of classes, and"),
        ({"ants/1.png": b"", "ants/2.png": b"", ".bees/1.png": b""}, "train", "has one class, ants, and a network"),
        ({"a/1.png": b"", "b/1.png": b""}, "train", "2 pictures cannot be split: add some"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, files, split, message):
    with pytest.raises(DataError, match=f"^imagefolder: .*{message}"):
        load_folder(written(tmp_path, files), split)


def test_all_unreadable(tmp_path):
    with pytest.raises(DataError, match=r"2 of 2 pictures cannot be read.*: none is left"):
        load_folder(written(tmp_path, TWO), "train", (8, 8), skip_unreadable=True)


# ---- a folder that is not split ------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["", "photos/"])
def test_a_folder_without_train_is_split_by_class(tmp_path, where):
    """Ten ants and five bees, each of its own grey: a fifth of either is for testing, always the same."""
    files = {}
    for i in range(15):
        picture = io.BytesIO()
        Image.new("L", (4, 4), 10 * i).save(picture, "PNG")
        files[f"{where}{'ants' if i < 10 else 'bees'}/{i:02}.png"] = picture.getvalue()
    folder = written(tmp_path, files | {"README.png": b""})
    greys = {}
    for split, N in (("train", 12), ("test", 3), ("all", 15)):
        part = load_folder(folder, split, (4, 4), channels=1)
        assert (part.classes, len(part)) == (("ants", "bees"), N)
        greys[split] = part.images[:, 0, 0, 0].tolist()
        assert part.labels.tolist() == [int(grey >= 100) for grey in greys[split]]
        assert load_folder(folder, split, (4, 4), channels=1).images.tolist() == part.images.tolist()
    assert sorted(greys["train"] + greys["test"]) == greys["all"] == list(range(0, 150, 10))
    assert np.sum(np.array(greys["test"]) >= 100) == 1


# ---- what pictures may be ------------------------------------------------------------------------------------


def test_a_photograph_is_turned_as_its_exif_data_say(tmp_path):
    picture = Image.new("RGB", (60, 40), "black")
    picture.paste("white", (0, 0, 60, 20))  # white above
    folder = tmp_path / "train"
    for name, orientation in (("a/upright", 1), ("a/turned", 6), ("b/upside", 3)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(folder / f"{name}.jpg", exif=exif, quality=95)
    turned, upright, upside = load_folder(tmp_path, "train", (8, 8), channels=1).images[:, 0]
    assert upright[0].min() > 240
    assert upright[-1].max() < 10
    assert upside[-1].min() > 240
    assert upside[0].max() < 10
    assert turned[:, -1].min() > 240, "6: what was above is at the right"
    assert turned[:, 0].max() < 10


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "CMYK", "YCbCr"])
def test_every_mode_of_pictures(tmp_path, mode):
    """A grey square, of which the last column is transparent where there is transparency."""
    grey = np.full((8, 8), 255 if mode == "1" else 100, np.uint8)
    picture, suffix = Image.fromarray(grey).convert("RGB"), "png"
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in ("CMYK", "YCbCr"):
        picture, suffix = picture.convert(mode), "tif"
    elif "A" in mode:
        picture = picture.convert("LA" if mode == "LA" else "RGBA")
        picture.putalpha(Image.fromarray(np.repeat(np.array([[255] * 7 + [0]], np.uint8), 8, axis=0)))
        picture = picture.quantize(8) if mode == "PA" else picture
    else:
        picture = picture.convert(mode)
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        picture.save(tmp_path / "train" / name / f"1.{suffix}")
    for channels in (1, 3):
        x = load_folder(tmp_path, "train", (8, 8), channels=channels).images.astype(int)
        assert x.shape == (2, channels, 8, 8)
        assert np.abs(x[..., :7] - grey[0, 0]).max() <= 2
        assert np.abs(x[..., 7] - (255 if "A" in mode else grey[0, 0])).max() <= 2


# ---- decoded when asked for ----------------------------------------------------------------------------------


def test_a_source_decodes_what_is_asked_for(photos):
    source, whole = open_folder(photos, "train", (32, 24)), load_folder(photos, "train", (32, 24))
    assert isinstance(source, Source)
    assert (len(source), source.shape, source.num_classes) == (4, (3, 32, 24), 2)
    assert source.labels.tolist() == whole.labels.tolist()
    assert source.normalize == whole.normalize
    x = source.get(np.array([2, 0, 2]))
    assert x.dtype == np.uint8
    assert x.transpose(0, 2, 3, 1).flags.c_contiguous
    assert x.tolist() == whole.images[[2, 0, 2]].tolist()
    assert repr(source) == "FolderSource(imagefolder train: 4 images 3×32×24, 2 classes)"
    assert source.ignored == {".txt": 1, "hidden": 1}


def test_a_source_opens_without_reading_pictures_and_names_those_it_cannot_read(tmp_path):
    source = open_folder(written(tmp_path, contents() | {"train/bees/c.jpg": b"text"}), "train", (8, 8))
    assert len(source.get(np.array([0, 1, 2, 3]))) == 4
    with pytest.raises(DataError, match=r"train.bees.c\.jpg: not an image that Pillow reads"):
        source.get(np.array([0, 4]))


def test_threads_may_share_a_source(photos):
    """Of a zip file too, whose handle they share."""
    source, wrong = open_folder(photos, "train", (8, 8)), []
    whole = source.get(np.arange(4))

    def take(seed):
        for i in np.random.default_rng(seed).integers(0, 4, 40):
            if not np.array_equal(source.get(np.array([i]))[0], whole[i]):
                wrong.append(i)

    threads = [threading.Thread(target=take, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("size", [(0, 8), 8, (8,)])
def test_a_size_is_a_height_and_a_width(photos, size):
    with pytest.raises(ValueError, match=r"size must be \(height, width\), each at least 1, got"):
        load_folder(photos, "test", size)


def test_channels_are_one_or_three(tmp_path):
    with pytest.raises(ValueError, match="channels must be 3 for RGB or 1 for grey, got 4"):
        open_folder(tmp_path, channels=4)


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
    with pytest.raises(DataError, match=r"1 of 4 pictures cannot be read: .*photos\.zip.train.ants.2\.png: damaged in"):
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
