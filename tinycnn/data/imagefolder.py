"""Photographs in a folder for each class, or the same in a zip file::

    photos/train/ants/0013035.jpg …       photos/val/ants/10308379.jpg …
    photos/train/bees/1092977343.jpg …    photos/val/bees/1032546534.jpg …

A class is called as its folder; classes and files come in alphabetical order.  ``val`` may be called ``valid``,
``validation`` or ``test``, and all of it may lie in one more folder (as in most archives).  Where there is no
``train``, only a folder for each class, a fifth of every class are the test images, always the same.

Every picture is brought to one size: its shorter side is resized and the middle cut out.  It becomes RGB or grey,
whatever it is (palette, CMYK, transparent: on white), and is turned as its EXIF orientation says.  Hidden files and
those of other suffixes are left alone, and counted.

``hymenoptera``, ants and bees, is such a folder: 244 + 153 photographs, the usual example of transfer learning.
"""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ..messages import some
from .dataset import Dataset, stratified_split
from .files import DataError, Origin, PathLike, missing, read_bytes, roots
from .picture import cover, open_picture
from .transforms import Normalize

HYMENOPTERA = Origin(
    "hymenoptera", "https://download.pytorch.org/tutorial/hymenoptera_data.zip", ("hymenoptera", "hymenoptera_data", "")
)
_HELD_OUT = ("val", "valid", "validation")
FOLDERS = {"train": ("train",), "test": ("test", *_HELD_OUT), **dict.fromkeys(_HELD_OUT, _HELD_OUT)}
"""What the folder of a split may be called."""
TEST_FRACTION, SPLIT_SEED = 0.2, 0
"""Of a folder that is not split: everybody's test images are the same."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
SIZE = (224, 224)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's photographs, which published weights were trained with."""
MAX_BYTES = 200_000_000
"""No picture in a zip file is unpacked that says it has more."""

Place: TypeAlias = "Path | zipfile.Path"


class FolderSource:
    """Photographs that are decoded when they are asked for: a `Source`, for more of them than memory holds.

    Attributes:
        name, split, classes, mean, std: as in `Dataset`.
        files: path of every picture.
        labels: int64 (N,).
        ignored: how many files of other kinds lie among them, by suffix; those that are hidden by ``"hidden"``.

    Raises:
        ValueError: ``size`` is no height and width; ``shorter`` is less; ``channels`` is neither 1 nor 3.
        DataError: as `open_folder`.
    """

    def __init__(
        self,
        path: PathLike,
        split: str = "train",
        size: tuple[int, int] = SIZE,
        shorter: int | None = None,
        channels: int = 3,
        name: str = "imagefolder",
    ) -> None:
        if np.shape(size) != (2,) or min(size) < 1:
            raise ValueError(f"{name}: size must be (height, width), each at least 1, got {size}")
        if shorter is not None and shorter < max(size):
            raise ValueError(f"{name}: pictures whose shorter side is {shorter} do not cover {size[0]}×{size[1]}")
        if channels not in (1, 3):
            raise ValueError(f"{name}: channels must be 3 for RGB or 1 for grey, got {channels}")
        self.name, self.split = name, split
        self._size, self._shorter, self._channels = size, shorter, channels
        self.classes, self.files, self.labels, self.ignored = _listing(_root(Path(path), name), split, name)
        self.mean: tuple[float, ...] = MEAN if channels == 3 else (float(np.mean(MEAN)),)
        self.std: tuple[float, ...] = STD if channels == 3 else (float(np.mean(STD)),)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self._channels, *self._size

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def normalize(self) -> Normalize:
        """The scaling by ImageNet's statistics."""
        return Normalize(self.mean, self.std)

    def __len__(self) -> int:
        return len(self.files)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Return the pictures at ``indices`` (n,), decoded: uint8 (n, C, H, W) on channels-last memory.

        Raises:
            DataError: one cannot be read.
        """
        x = np.empty((len(indices), *self._size, self._channels), np.uint8)
        for row, i in zip(x, indices, strict=True):
            self._decode(int(i), row)
        return x.transpose(0, 3, 1, 2)  # (n, H, W, C) -> (n, C, H, W)

    def load(self, skip_unreadable: bool = False) -> Dataset:
        """Return all pictures, decoded by a few threads.

        Args:
            skip_unreadable: leave files out that are no whole pictures, and warn.

        Raises:
            DataError: pictures that cannot be read, with their number and names.
        """
        x = np.empty((len(self), *self._size, self._channels), np.uint8)
        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(lambda i: self._problem(i, x[i]), range(len(self))))
        readable = np.array([problem is None for problem in problems])
        if not readable.all():
            _complain(
                [problem for problem in problems if problem], f"{self.name} {self.split}", len(x), skip_unreadable
            )
            x = x[readable]
        # (N, H, W, C) -> (N, C, H, W)
        images, labels = x.transpose(0, 3, 1, 2), self.labels[readable]
        return Dataset(self.name, self.split, images, labels, self.classes, self.mean, self.std)

    def _problem(self, i: int, row: np.ndarray) -> str | None:
        try:
            self._decode(i, row)
        except DataError as error:
            return str(error)
        return None

    def _decode(self, i: int, row: np.ndarray) -> None:
        """Put picture i into ``row`` (H, W, C)."""
        file = self.files[i]
        picture = open_picture(_content(file), str(file), self._channels)
        row[...] = np.asarray(cover(picture, self._size, str(file), self._shorter)).reshape(row.shape)

    def __repr__(self) -> str:
        (C, H, W), K = self.shape, self.num_classes
        return f"FolderSource({self.name} {self.split}: {len(self):,} images {C}×{H}×{W}, {K} classes)"


def open_folder(
    path: PathLike,
    split: str = "train",
    size: tuple[int, int] = SIZE,
    shorter: int | None = None,
    channels: int = 3,
    name: str = "imagefolder",
) -> FolderSource:
    """Return the photographs of one split without decoding any.

    Args:
        path: the folder, or zip file, that holds ``train`` and ``val`` (or ``test``), or folders of classes.
        split: ``"train"`` or ``"test"``, which stands for ``val`` where there is no folder ``test``; ``"val"``, however
            that is spelt, where there may be both; ``"all"`` of a folder that is not split.
        size: (H, W) of the images returned.
        shorter: what the shorter side is resized to before; by default the picture just covers (H, W).  256 for
            (224, 224) is how published weights were measured.
        channels: 3 for RGB or 1 for grey, whatever the files have.
        name: of the dataset.

    Raises:
        ValueError: ``size`` is no height and width; ``shorter`` is less; ``channels`` is neither 1 nor 3.
        DataError: no such folders; fewer than two classes; a class without pictures, or that ``train`` does not know.
    """
    return FolderSource(path, split, size, shorter, channels, name)


def load_folder(
    path: PathLike,
    split: str = "train",
    size: tuple[int, int] = SIZE,
    shorter: int | None = None,
    channels: int = 3,
    skip_unreadable: bool = False,
    name: str = "imagefolder",
) -> Dataset:
    """Return the photographs of one split, decoded: `open_folder` and `FolderSource.load`.

    Raises:
        ValueError, DataError: as `open_folder`; pictures that cannot be read.
    """
    return FolderSource(path, split, size, shorter, channels, name).load(skip_unreadable)


def load_hymenoptera(split: str, data_dir: PathLike | None = None, **options: object) -> Dataset:
    """Return ants and bees, unpacked or in their archive, from the data directory.

    Args:
        split, data_dir: as everywhere.
        options: of `load_folder`.

    Raises:
        DataError: they are not there, or damaged.
    """
    return load_folder(find_hymenoptera(data_dir), split, name=HYMENOPTERA.name, **options)  # type: ignore[arg-type]


def find_hymenoptera(data_dir: PathLike | None = None) -> Path:
    """Return their folder or archive.

    Raises:
        MissingError: there is none.
    """
    tried = roots(HYMENOPTERA, data_dir)
    for place in (root / folder for root in tried for folder in HYMENOPTERA.folders):
        for path in (place, *sorted(place.glob("hymenoptera*.zip"))):
            if path.exists() and _find(_root(path, HYMENOPTERA.name), "train") is not None:
                return path
    raise missing(HYMENOPTERA, "folder train and no hymenoptera*.zip", tried)


def load_images(split: str, data_dir: PathLike | None = None, **options: object) -> Dataset:
    """Return the photographs of ``data_dir``, which is the folder, or zip file, itself; options are `load_folder`'s."""
    return load_folder(find_images(data_dir), split, **options)  # type: ignore[arg-type]


def find_images(data_dir: PathLike | None = None) -> Path:
    """Return the folder, or zip file, that ``data_dir`` or ``$TINYCNN_DATA`` names.

    Raises:
        MissingError: there is none.
    """
    if data_dir is not None and Path(data_dir).suffix == ".zip":
        return Path(data_dir)
    return roots(Origin("imagefolder", "wherever your photographs are", ("",)), data_dir)[0]


def locate_images(data_dir: PathLike | None = None) -> Path:
    """Return what `find_images` does, if it holds folders of classes.

    Raises:
        DataError: it does not, or there is none.
    """
    path = find_images(data_dir)
    root = _root(path, "imagefolder")
    _needed(_find(root, "train") or _unsplit(root), "train", root, "imagefolder")
    return path


# ---- folders ---------------------------------------------------------------------------------------------------


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
        for called in FOLDERS.get(split, (split,)):
            if (folder / called).is_dir():
                return folder / called
    return None


def _listing(root: Place, split: str, name: str) -> tuple[tuple[str, ...], list[Place], np.ndarray, dict[str, int]]:
    """Return classes, files, their labels, and what was ignored."""
    training = _find(root, "train")
    if training is None and (whole := _unsplit(root)) is not None:
        classes = _classes(whole, name)
        files, labels, ignored = _pictures(whole, classes, name)
        if split != "all":
            _needed(whole if split in FOLDERS else None, split, root, name)
            kept = _split_of(labels, split, whole, name)
            files, labels = [files[i] for i in kept], labels[kept]
        return classes, files, labels, ignored
    classes = _classes(_needed(training, "train", root, name), name)
    return classes, *_pictures(_needed(_find(root, split), split, root, name), classes, name)


def _unsplit(root: Place) -> Place | None:
    """Return the folder, of this one and its only one, that holds folders of pictures."""
    inner = _class_folders(root)
    for folder in (root, *(inner if len(inner) == 1 else ())):
        if any(_is_picture(file) and file.is_file() for place in _class_folders(folder) for file in place.iterdir()):
            return folder
    return None


def _split_of(labels: np.ndarray, split: str, folder: Place, name: str) -> np.ndarray:
    try:
        training, test = stratified_split(labels, TEST_FRACTION, SPLIT_SEED)
    except ValueError:
        raise DataError(f"{name}: {folder}: {len(labels)} pictures cannot be split: add some") from None
    return training if split == "train" else test


def _needed(found: Place | None, split: str, root: Place, name: str) -> Place:
    if found is None:
        called = " or ".join(FOLDERS.get(split, (split,)))
        raise DataError(f"{name}: no folder {called} in {root}: it should hold a folder for each class")
    return found


def _class_folders(folder: Place) -> list[Place]:
    return sorted((p for p in folder.iterdir() if p.is_dir() and p.name[0] not in "._"), key=lambda place: place.name)


def _classes(folder: Place, name: str) -> tuple[str, ...]:
    classes = tuple(place.name for place in _class_folders(folder))
    if len(classes) < 2:
        raise DataError(
            f"{name}: {folder} has {f'one class, {classes[0]}' if classes else 'no folders of classes'}, and a network "
            "tells two or more apart: make a folder for each"
        )
    return classes


def _pictures(folder: Place, classes: tuple[str, ...], name: str) -> tuple[list[Place], np.ndarray, dict[str, int]]:
    """Return every picture, its label, and how many other files there are of each kind."""
    folders = _class_folders(folder)
    unknown = [place.name for place in folders if place.name not in classes]
    if unknown or not folders:
        what = f"there are no training images of {some(unknown)}" if unknown else "it has no folders of classes"
        raise DataError(f"{name}: {folder}: {what}: make it like the folder train, a folder for each class")
    files, labels, ignored = list[Place](), list[int](), Counter[str]()
    for place in folders:
        inside = sorted((file for file in place.iterdir() if file.is_file()), key=lambda file: file.name)
        pictures = [file for file in inside if _is_picture(file)]
        others = Counter(_kind(file) for file in inside if not _is_picture(file))
        if not pictures:
            but = f", only {_counted(others)}" if others else ""
            raise DataError(f"{name}: {place} holds no pictures ({', '.join(SUFFIXES)}){but}: fill or remove it")
        files += pictures
        labels += [classes.index(place.name)] * len(pictures)
        ignored += others
    return files, np.array(labels, np.int64), dict(ignored)


def _is_picture(file: Place) -> bool:
    return file.name.lower().endswith(SUFFIXES) and file.name[0] != "."


def _kind(file: Place) -> str:
    return "hidden" if file.name[0] == "." else Path(file.name).suffix.lower() or "without suffix"


def _counted(kinds: dict[str, int]) -> str:
    return some(f"{n} {kind}" for kind, n in sorted(kinds.items()))


def _content(file: Place) -> bytes:
    if isinstance(file, Path):
        return read_bytes(file)
    try:
        if file.root.getinfo(file.at).file_size > MAX_BYTES:
            raise DataError(f"{file}: has over {MAX_BYTES:,} bytes: shrink it")
        return file.read_bytes()
    except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: damaged in the archive ({error})") from None


def _complain(errors: list[str], where: str, total: int, skip: bool) -> None:
    words = f"{where}: {len(errors)} of {total} pictures cannot be read: {some(errors)}"
    if not skip:
        raise DataError(f"{words}: repair or remove them, or leave them out with skip_unreadable=True")
    if len(errors) == total:
        raise DataError(f"{words}: none is left")
    warnings.warn(words, stacklevel=4)
