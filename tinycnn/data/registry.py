"""Datasets by name."""

from __future__ import annotations

from collections.abc import Callable

from ..messages import nearest
from .cifar import load_cifar10
from .dataset import Dataset
from .digits import load_digits
from .files import PathLike
from .imagefolder import load_hymenoptera, load_images
from .mnist import FASHION_MNIST, MNIST, load_family

SPLITS = ("train", "test")
_LOADERS: dict[str, Callable[[str, PathLike | None], Dataset]] = {
    "cifar10": load_cifar10,
    "digits": lambda split, data_dir: load_digits(split),
    "fashion-mnist": lambda split, data_dir: load_family(FASHION_MNIST, split, data_dir),
    "hymenoptera": load_hymenoptera,
    "imagefolder": load_images,
    "mnist": lambda split, data_dir: load_family(MNIST, split, data_dir),
}


def names() -> list[str]:
    """Return the names that `load` knows.

    >>> names()
    ['cifar10', 'digits', 'fashion-mnist', 'hymenoptera', 'imagefolder', 'mnist']
    """
    return list(_LOADERS)


def load(name: str, split: str = "train", data_dir: PathLike | None = None) -> Dataset:
    """Return a dataset as it was published, pixels 0 to 255.

    >>> load("digits", "test")
    Dataset(digits test: 359 images 1×8×8, 10 classes)

    Args:
        name: one of `names`.  ``digits`` is bundled; the others are read from files of yours.  ``imagefolder`` means
            photographs in a folder for each class, below ``train`` and ``val`` of ``data_dir`` (`load_folder`).
        split: ``"train"`` or ``"test"``.
        data_dir: folder that holds the files, directly or in a folder of the dataset's name or as torchvision
            lays them out; by default what the environment variable ``TINYCNN_DATA`` says.

    Raises:
        ValueError: unknown name or split.
        DataError: a file is missing, damaged or not the published one.
    """
    if name not in _LOADERS:
        raise ValueError(f"unknown dataset {name!r}{nearest(name, _LOADERS)} (known: {', '.join(_LOADERS)})")
    if split not in SPLITS:
        raise ValueError(f"{name}: unknown split {split!r}: choose 'train' or 'test'")
    return _LOADERS[name](split, data_dir)
