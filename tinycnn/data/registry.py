"""Datasets by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..messages import nearest
from . import cifar, downloads, mnist
from .dataset import Dataset
from .digits import FILE as DIGITS_FILE
from .digits import load_digits
from .files import DataError, MissingError, Origin, PathLike, find
from .imagefolder import HYMENOPTERA, find_hymenoptera, load_folder, load_hymenoptera, load_images, locate_images

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Entry:
    """A dataset that `load` knows.

    Attributes:
        what: a line about it.
        load: ``load(split, data_dir, **options)``.
        locate: the files, or the folder, that would be read.
        origin: where its files come from, if it is downloaded.
        options: what `load` takes besides.
    """

    what: str
    load: Callable[..., Dataset]
    locate: Callable[[PathLike | None], list[Path]]
    origin: Origin | None = None
    options: tuple[str, ...] = ()


def _published(what: str, load: Callable[..., Dataset], origin: Origin, options: tuple[str, ...] = ()) -> Entry:
    def locate(data_dir: PathLike | None) -> list[Path]:
        return list(dict.fromkeys(find(origin, part.names, data_dir) for part in origin.parts))

    return Entry(what, load, locate, origin, options)


_OF_PHOTOS = tuple(name for name in inspect.signature(load_folder).parameters if name not in ("path", "split", "name"))
_ENTRIES = {
    "cifar10": _published(
        "50,000 + 10,000 colour photographs 32×32, 10 classes",
        partial(cifar.load_family, cifar.CIFAR10),
        cifar.CIFAR10.origin,
    ),
    "cifar100": _published(
        "50,000 + 10,000 colour photographs 32×32, 100 classes in 20 superclasses",
        partial(cifar.load_family, cifar.CIFAR100),
        cifar.CIFAR100.origin,
        ("labels",),
    ),
    "digits": Entry(
        "1,438 + 359 grey handwritten digits 8×8, 10 classes",
        lambda split, data_dir: load_digits(split),
        lambda data_dir: [DIGITS_FILE],
    ),
    "fashion-mnist": _published(
        "60,000 + 10,000 grey pictures of clothing 28×28, 10 classes",
        partial(mnist.load_family, mnist.FASHION_MNIST),
        mnist.FASHION_MNIST.origin,
    ),
    "hymenoptera": Entry(
        "244 + 153 colour photographs, ants and bees",
        load_hymenoptera,
        lambda data_dir: [find_hymenoptera(data_dir)],
        HYMENOPTERA,
        _OF_PHOTOS,
    ),
    "imagefolder": Entry(
        "your photographs, in a folder for each class",
        load_images,
        lambda data_dir: [locate_images(data_dir)],
        options=_OF_PHOTOS,
    ),
    "mnist": _published(
        "60,000 + 10,000 grey handwritten digits 28×28, 10 classes",
        partial(mnist.load_family, mnist.MNIST),
        mnist.MNIST.origin,
    ),
}


def names() -> list[str]:
    """Return the names that `load` knows.

    >>> names()
    ['cifar10', 'cifar100', 'digits', 'fashion-mnist', 'hymenoptera', 'imagefolder', 'mnist']
    """
    return list(_ENTRIES)


def entry(name: str) -> Entry:
    """Return what is known of a dataset.

    Raises:
        ValueError: unknown name.
    """
    if name not in _ENTRIES:
        raise ValueError(f"unknown dataset {name!r}{nearest(name, _ENTRIES)} (known: {', '.join(_ENTRIES)})")
    return _ENTRIES[name]


def load(
    name: str, split: str = "train", data_dir: PathLike | None = None, download: bool = False, **options: Any
) -> Dataset:
    """Return a dataset as it was published, pixels 0 to 255.

    >>> load("digits", "test")
    Dataset(digits test: 359 images 1×8×8, 10 classes)

    Args:
        name: one of `names`.  ``digits`` is bundled; the others are read from files of yours, or downloaded.
            ``imagefolder`` means photographs in a folder for each class, below ``train`` and ``val`` of ``data_dir``.
        split: ``"train"`` or ``"test"``.
        data_dir: folder that holds the files, directly or in a folder of the dataset's name or as torchvision
            lays them out; by default what the environment variable ``TINYCNN_DATA`` says, and then the downloads.
        download: fetch what is in none of these places, into ``data_dir`` or by default the cache (`download`).
        options: ``labels="coarse"`` for the 20 superclasses of ``cifar100``; those of `load_folder` for photographs.

    Raises:
        ValueError: unknown name, split or option.
        DataError: a file is missing, damaged or not the published one; or cannot be downloaded.
    """
    known = entry(name)
    if split not in SPLITS:
        raise ValueError(f"{name}: unknown split {split!r}: choose 'train' or 'test'")
    for option in options:
        if option not in known.options:
            takes = f"it takes {', '.join(known.options)}" if known.options else "it takes none"
            raise ValueError(f"{name}: unknown option {option!r}{nearest(option, known.options)}: {takes}")
    try:
        return known.load(split, data_dir, **options)
    except DataError as error:
        if not download or not _mended(name, data_dir, error):
            raise
    return known.load(split, data_dir, **options)


def _mended(name: str, data_dir: PathLike | None, error: DataError) -> bool:
    """Download what is missing or damaged, and return whether that was anything."""
    origin = entry(name).origin
    if origin is None or not origin.parts:
        return False
    _check_online(error)
    return bool(downloads.download(origin, data_dir))


def _check_online(error: DataError) -> None:
    if downloads.offline():
        raise type(error)(f"{error}; nothing is downloaded, since ${downloads.OFFLINE} is set") from None


def fetch_missing(name: str, data_dir: PathLike | None = None, watch: downloads.Watch | None = None) -> list[Path]:
    """Download a dataset of which something is missing, and return the files fetched.

    Nothing happens where all of it is there, whole or not, or where it cannot be downloaded.

    Raises:
        ValueError: unknown name.
        DataError: a folder that is named does not exist; as `download`.
        OSError: a file cannot be written.
    """
    known = entry(name)
    if known.origin is None or not known.origin.parts:
        return []
    try:
        known.locate(data_dir)
    except MissingError as error:
        _check_online(error)
        return downloads.download(known.origin, data_dir, watch)
    return []


def download(name: str, data_dir: PathLike | None = None, watch: downloads.Watch | None = None) -> list[Path]:
    """Fetch the files of a dataset that are not there, and those of an earlier download that are damaged.

    Args:
        name: one of `names`.
        data_dir: where to look, in every layout that `load` knows, and where to put them, in a folder of the dataset's
            name.  By default they are looked for where `load` does, and put into the cache: ``$TINYCNN_CACHE/data``, or
            the system's place for caches.
        watch: called with each file and its address; may return a progress bar as pooch takes them (`Bar`).

    Returns:
        The files fetched; none if all were there.

    Raises:
        ValueError: unknown name.
        DataError: there is no network, or ``$TINYCNN_OFFLINE`` forbids it; no address has the file with its published
            checksum (what came instead is kept beside it, as ``NAME.bad``); there is nothing to download.
        OSError: a file cannot be written.
    """
    origin = entry(name).origin
    if origin is None or not origin.parts:
        where_from = f"get it from {origin.url}" if origin else "it is yours or bundled"
        raise DataError(f"{name}: cannot be downloaded: {where_from}")
    return downloads.download(origin, data_dir, watch)


def where(name: str, data_dir: PathLike | None = None) -> list[Path]:
    """Return the files (or the folder of photographs) that `load` would read.

    Raises:
        ValueError: unknown name.
        DataError: some are missing.
    """
    return entry(name).locate(data_dir)
