"""MNIST and Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 pixels in four IDX files each.

Sources: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition";
Xiao, Rasul & Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dataset import Dataset
from .files import DataError, Download, Origin, Part, PathLike, check_md5, find, md5, read_bytes
from .idx import parse_idx

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


@dataclass(frozen=True)
class Family:
    """One of the two: both come in files of the same names and formats.

    Attributes:
        origin: where the files come from and may lie.
        md5s: file name -> checksums of the file as published (gzipped), and of its content.
        classes, mean, std: as in `Dataset`.
    """

    origin: Origin
    md5s: dict[str, tuple[str, str]]
    classes: tuple[str, ...]
    mean: float
    std: float


def _names(name: str) -> tuple[str, ...]:
    """Return how a file may be called: plain or gzipped, and with a dot before ``idx``, as in some copies."""
    dotted = name.replace("-idx", ".idx")
    return name, f"{name}.gz", dotted, f"{dotted}.gz"


def _parts(md5s: dict[str, tuple[str, str]], sizes: tuple[int, ...], *mirrors: str) -> tuple[Part, ...]:
    return tuple(
        Part(_names(name), Download(f"{name}.gz", sums, size, tuple(f"{mirror}{name}.gz" for mirror in mirrors)))
        for (name, sums), size in zip(md5s.items(), sizes, strict=True)
    )


_MNIST_MD5S = {
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb"),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624"),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea"),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637"),
}
MNIST = Family(
    Origin(
        "mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        ("mnist", "MNIST/raw", "MNIST", "raw", ""),
        _parts(
            _MNIST_MD5S,
            (9_912_422, 28_881, 1_648_877, 4_542),
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
    ),
    _MNIST_MD5S,
    tuple("0123456789"),
    0.1307,
    0.3081,
)

_FASHION_MD5S = {
    "train-images-idx3-ubyte": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
    "train-labels-idx1-ubyte": ("25c81989df183df01b3e8a0aad5dffbe", "9018921c3c673c538a1fc5bad174d6f9"),
    "t10k-images-idx3-ubyte": ("bef4ecab320f06d8554ea6380940ec79", "8181f5470baa50b63fa0f6fddb340f0a"),
    "t10k-labels-idx1-ubyte": ("bb300cfdad3c16e7a12a480ee83cd310", "15d484375f8d13e6eb1aabb0c3f46965"),
}
FASHION_MNIST = Family(
    Origin(
        "fashion-mnist",
        "https://github.com/zalandoresearch/fashion-mnist#get-the-data",
        ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist", "fashion", "raw", ""),
        _parts(
            _FASHION_MD5S,
            (26_421_880, 29_515, 4_422_102, 5_148),
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        ),
    ),
    _FASHION_MD5S,
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    0.2860,
    0.3530,
)


def load_family(family: Family, split: str, data_dir: PathLike | None = None) -> Dataset:
    """Return the training or the test part from files in the data directory.

    Raises:
        DataError: a file is missing, damaged or not the published one.
    """
    images, labels = (_read(family, name, data_dir) for name in FILES[split])
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{family.origin.name}: {FILES[split][0]} has shape {images.shape} and {FILES[split][1]} {labels.shape}: "
            f"they are of different datasets: download both again from {family.origin.url}"
        )
    # (N, H, W) -> (N, 1, H, W); one channel: C-contiguous is channels-last too
    return Dataset(
        family.origin.name,
        split,
        images[:, None],
        labels.astype(np.int64),
        family.classes,
        (family.mean,),
        (family.std,),
    )


def _read(family: Family, name: str, data_dir: PathLike | None) -> np.ndarray:
    """Return the content of one file."""
    path = find(family.origin, _names(name), data_dir)
    raw = read_bytes(path)
    check_md5(raw, family.md5s[name], path, family.origin, _whose(raw, name, family))
    return parse_idx(raw, path)


def _whose(raw: bytes, wanted: str, family: Family) -> str:
    """Return 'it is X, not Y' when ``raw`` is some other file of the two families, or an empty string."""
    found = md5(raw)
    for other in (family, MNIST, FASHION_MNIST):
        for name, sums in other.md5s.items():
            if found in sums:
                meant = wanted if other is family else f"of {family.origin.name}"
                return f"it is {name} of {other.origin.name}, not {meant}"
    return ""
