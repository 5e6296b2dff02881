"""Photographs in a folder for each class, or the same in a zip file::

    photos/train/ants/0013035.jpg …       photos/val/ants/10308379.jpg …
    photos/train/bees/1092977343.jpg …    photos/val/bees/1032546534.jpg …

A class is called as its folder; classes and files come in alphabetical order.  ``val`` may be called ``test``, and all
of it may lie in one more folder (as in most archives).  Every picture is brought to one size: its shorter side is
resized and the middle cut out.  Other files are left alone.

``hymenoptera``, ants and bees, is such a folder: 244 + 153 photographs, the usual example of transfer learning.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..messages import some
from .dataset import Dataset
from .files import DataError, PathLike, Source, data_directory, read_bytes
from .picture import cover, open_picture

HYMENOPTERA = Source(
    "hymenoptera", "https://download.pytorch.org/tutorial/hymenoptera_data.zip", ("hymenoptera", "hymenoptera_data", "")
)
FOLDERS = {"train": ("train",), "test": ("test", "val", "valid")}
"""What the folder of a split may be called."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SIZE = (224, 224)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's photographs, which published weights were trained with."""
MAX_BYTES = 200_000_000
"""No picture in a zip file is unpacked that says it has more."""

Place: TypeAlias = "Path | zipfile.Path"


def load_folder(
    path: PathLike,
    split: str = "train",
    size: tuple[int, int] = SIZE,
    shorter: int | None = None,
    channels: int = 3,
    skip_unreadable: bool = False,
    name: str = "imagefolder",
) -> Dataset:
    """Return the photographs of one split.

    Args:
        path: the folder, or zip file, that holds ``train`` and ``val`` (or ``test``).
        split: ``"train"`` or ``"test"``.
        size: (H, W) of the images returned.
        shorter: what the shorter side is resized to before; by default the picture just covers (H, W).  256 for
            (224, 224) is how published weights were measured.
        channels: 3 for RGB or 1 for grey, whatever the files have.
        skip_unreadable: leave files out that are no whole pictures, and warn.
        name: of the dataset.

    Returns:
        A dataset with the mean and standard deviation of ImageNet's pixels.

    Raises:
        ValueError: ``shorter`` is less than the size.
        DataError: no such folders; a class without pictures, or that ``train`` does not know; unreadable files.
    """
    if shorter is not None and shorter < max(size):
        raise ValueError(f"{name}: pictures whose shorter side is {shorter} do not cover {size[0]}×{size[1]}")
    root = _root(Path(path), name)
    classes = [folder.name for folder in _class_folders(_split_folder(root, "train", name))]
    files = list(_files(_split_folder(root, split, name), classes, name))
    images = np.empty((len(files), *size, channels), np.uint8)
    labels, errors = list[int](), list[str]()
    for file, k in files:
        try:
            picture = cover(open_picture(_content(file), file.name, channels), size, file.name, shorter)
        except DataError as error:
            errors.append(str(error))
            continue
        images[len(labels)] = np.asarray(picture).reshape(*size, channels)
        labels.append(k)
    if errors:
        _complain(errors, len(files), f"{name}: {path}", skip_unreadable)
    mean, std = (MEAN, STD) if channels == 3 else ((float(np.mean(MEAN)),), (float(np.mean(STD)),))
    # (N, H, W, C) -> (N, C, H, W)
    x = images[: len(labels)].transpose(0, 3, 1, 2)
    return Dataset(name, split, x, np.array(labels, np.int64), tuple(classes), mean, std)


def load_hymenoptera(split: str, data_dir: PathLike | None = None) -> Dataset:
    """Return ants and bees, unpacked or in their archive, from the data directory.

    Raises:
        DataError: they are not there, or damaged.
    """
    root = data_directory(HYMENOPTERA, data_dir)
    for place in (root / folder for folder in HYMENOPTERA.folders):
        for path in (place, *sorted(place.glob("hymenoptera*.zip"))):
            if path.exists() and _find(_root(path, HYMENOPTERA.name), "train") is not None:
                return load_folder(path, split, name=HYMENOPTERA.name)
    raise DataError(
        f"{HYMENOPTERA.name}: no folder train and no hymenoptera*.zip in {root} (looked in "
        f"{', '.join(folder or '.' for folder in HYMENOPTERA.folders)}): download {HYMENOPTERA.url} into "
        f"{root / HYMENOPTERA.folders[0]}"
    )


def load_images(split: str, data_dir: PathLike | None = None) -> Dataset:
    """Return the photographs of ``data_dir``, which is the folder, or zip file, itself."""
    if data_dir is None or Path(data_dir).expanduser().suffix != ".zip":
        data_dir = data_directory(Source("imagefolder", "wherever your photographs are", ("",)), data_dir)
    return load_folder(data_dir, split)


def _root(path: Path, name: str) -> Place:
    """Return a folder, or a zip file as one."""
    path = path.expanduser()
    if path.is_dir():
        return path
    try:
        return zipfile.Path(zipfile.ZipFile(path))
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{name}: {path} is no folder and no whole zip file ({error}): check the path") from None


def _find(root: Place, split: str) -> Place | None:
    inner = [place for place in root.iterdir() if place.is_dir()]
    for folder in (root, *sorted(inner, key=lambda place: place.name)):
        for called in FOLDERS[split]:
            if (folder / called).is_dir():
                return folder / called
    return None


def _split_folder(root: Place, split: str, name: str) -> Place:
    if (found := _find(root, split)) is None:
        raise DataError(
            f"{name}: no folder {' or '.join(FOLDERS[split])} in {root}: it should hold a folder for each class"
        )
    return found


def _class_folders(folder: Place) -> list[Place]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"), key=lambda place: place.name)


def _files(folder: Place, classes: list[str], name: str) -> Iterator[tuple[Place, int]]:
    """Yield every picture with its label."""
    folders = _class_folders(folder)
    unknown = [place.name for place in folders if place.name not in classes]
    if unknown or not folders:
        what = f"there are no training images of {some(unknown)}" if unknown else "it has no folders of classes"
        raise DataError(f"{name}: {folder}: {what}: make it like the folder train, a folder for each class")
    for place in folders:
        files = sorted((f for f in place.iterdir() if _is_picture(f)), key=lambda f: f.name)
        if not files:
            raise DataError(f"{name}: {place} holds no pictures ({', '.join(SUFFIXES)}): fill or remove it")
        yield from ((file, classes.index(place.name)) for file in files)


def _is_picture(file: Place) -> bool:
    return file.name.lower().endswith(SUFFIXES) and file.name[0] != "." and file.is_file()


def _content(file: Place) -> bytes:
    if isinstance(file, Path):
        return read_bytes(file)
    try:
        if file.root.getinfo(file.at).file_size > MAX_BYTES:
            raise DataError(f"{file.name}: has over {MAX_BYTES:,} bytes: shrink it")
        return file.read_bytes()
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{file.name}: damaged in the archive ({error})") from None


def _complain(errors: list[str], total: int, where: str, skip: bool) -> None:
    words = f"{where}: {len(errors)} of {total} pictures cannot be read: {some(errors)}"
    if not skip:
        raise DataError(f"{words}: repair or remove them, or leave them out with skip_unreadable=True")
    warnings.warn(words, stacklevel=3)
