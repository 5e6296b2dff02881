"""CIFAR-10: 50,000 + 10,000 colour photographs of 32×32 pixels in ten classes.

The "python version": six pickled batches of 10,000, in a folder ``cifar-10-batches-py`` or still in their
archive, which is then read as a stream up to the last batch wanted; nothing is unpacked to disk.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np

from ..parameter import channels_last
from .dataset import Dataset
from .files import DataError, PathLike, Source, check_md5, find, read_bytes
from .unpickle import restricted_loads

SOURCE = Source(
    "cifar10",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    ("cifar10", "cifar-10", "CIFAR10", ""),
)
FOLDER = "cifar-10-batches-py"
ARCHIVES = ("cifar-10-python.tar.gz", "cifar-10-python.tar.xz", f"{FOLDER}.tar.gz", f"{FOLDER}.tar.xz")
BATCHES = {
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}
"""Split -> file name -> MD5, in the order of the images."""
BATCH_BYTES = 40_000_000
"""No batch is this long (they have 31 MB): a longer member of an archive is not read."""
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def load_cifar10(split: str, data_dir: PathLike | None = None) -> Dataset:
    """Return the training or the test images from the data directory.

    Raises:
        DataError: a file is missing, damaged or not the published one.
    """
    sums = BATCHES[split]
    path = find(SOURCE, (f"{FOLDER}/{min(sums)}", *ARCHIVES, min(sums)), data_dir)
    if path.name in ARCHIVES:
        raws = read_members(path, sums)
    else:
        raws = {name: read_bytes(path.parent / name) for name in sums}
    images, labels = [], []
    for name, digest in sums.items():
        where = (path if path.name in ARCHIVES else path.parent) / name
        check_md5(raws[name], (digest,), where, SOURCE)
        x, y = parse_batch(raws.pop(name), where)
        images.append(x)
        labels.append(y)
    # (N, C·H·W) -> (N, C, H, W)
    planes = np.concatenate(images).reshape(-1, 3, 32, 32)
    return Dataset(SOURCE.name, split, channels_last(planes), np.concatenate(labels), CLASSES, MEAN, STD)


def parse_batch(raw: bytes, path: PathLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 (N, 3072), labels int64 (N,)) of one pickled batch, ``path`` naming it in errors.

    Raises:
        DataError: the pickle is damaged, refers to anything but arrays, or is not a batch of CIFAR-10.
    """
    batch = restricted_loads(raw, path)
    x, y = (batch.get(b"data"), batch.get(b"labels")) if isinstance(batch, dict) else (None, None)
    if not (
        isinstance(x, np.ndarray)
        and x.dtype == np.uint8
        and x.ndim == 2
        and x.shape[1] == 3072
        and isinstance(y, list)
        and len(y) == len(x)
        and all(isinstance(k, int) and 0 <= k < len(CLASSES) for k in y)
    ):
        raise DataError(
            f"{path}: not a batch of CIFAR-10: expected 'data' of uint8 (N, 3072) and N 'labels' of 0..9: "
            f"download {SOURCE.url} again"
        )
    return x, np.array(y, np.int64)


def read_members(path: Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the content of the files called ``names`` in a tar archive, compressed in any way, whatever their folder.

    The archive is read once, from its beginning to the last of them.

    Raises:
        DataError: the archive is damaged, or lacks one of them.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*", bufsize=1 << 20) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if name in names and member.size < BATCH_BYTES else None
                if file is not None:
                    found[name] = file.read()
                if len(found) == len(names):
                    return found
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: damaged archive ({error}): download {SOURCE.url} again") from None
    missing = ", ".join(name for name in names if name not in found)
    raise DataError(f"{path}: the archive ends without {missing}: download {SOURCE.url} again")
