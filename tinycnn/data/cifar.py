"""CIFAR-10 and CIFAR-100: 50,000 + 10,000 colour photographs of 32×32 pixels, in 10 or in 100 classes.

Both are published twice.  The "python version" is a pickle for each batch, the "binary version" a file of records:

    CIFAR-10    label         1024 red  1024 green  1024 blue      3,073 bytes, each plane row by row
    CIFAR-100   coarse  fine  1024 red  1024 green  1024 blue      3,074 bytes

Either is read from the folder it unpacks to or from its archive.  Batches of the python version that had to be
unpacked are kept in the cache folder, so that it is done once.  The 100 classes are grouped in 20 superclasses, the
coarse labels.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

from __future__ import annotations

import tarfile
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..messages import nearest
from ..parameter import channels_last
from .dataset import Dataset
from .files import (
    DataError,
    Download,
    Origin,
    Part,
    PathLike,
    check_md5,
    downloads_folder,
    find,
    md5,
    read_bytes,
    write_whole,
)
from .unpickle import restricted_loads

SITE = "https://www.cs.toronto.edu/~kriz/"
PIXELS = 3 * 32 * 32
MAX_BYTES = 200_000_000
"""No batch is this long (CIFAR-100's has 155 MB): a longer member of an archive is not read."""


@dataclass(frozen=True)
class Version:
    """One of the two ways in which a dataset is published.

    Attributes:
        folder: what the archive unpacks to.
        archives: names of the archive: as published, and packed again in other ways.
        md5: of the archive as published.
        batches: split -> name of the file -> MD5, in the order of the images; of the binary version none are
            published, and the number of records has to do.
    """

    folder: str
    archives: tuple[str, ...]
    md5: str
    batches: dict[str, dict[str, str | int]]


@dataclass(frozen=True)
class Labels:
    """One kind of labels: their key in a pickle, their place in a binary record, the names of the classes."""

    key: bytes
    column: int
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """One of the two datasets.

    Attributes:
        origin: where the files come from and may lie.
        python, binary: its versions.
        labels: by name, the first by default.
        mean, std: as in `Dataset`.
    """

    origin: Origin
    python: Version
    binary: Version
    labels: dict[str, Labels]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_family(family: Family, split: str, data_dir: PathLike | None = None, labels: str | None = None) -> Dataset:
    """Return the training or the test images.

    Args:
        family: which dataset.
        split: ``"train"`` or ``"test"``.
        data_dir: see `find`.
        labels: of CIFAR-100 ``"fine"`` (100 classes, the default) or ``"coarse"`` (20).

    Raises:
        ValueError: unknown labels.
        DataError: a file is missing, damaged or not the published one.
    """
    kind = next(iter(family.labels)) if labels is None else labels
    if kind not in family.labels:
        known = ", ".join(family.labels)
        raise ValueError(
            f"{family.origin.name}: unknown labels {kind!r}{nearest(kind, family.labels)} (known: {known})"
        )
    chosen, images, found = family.labels[kind], [], []
    path = find(family.origin, _names(family.python, family.binary, split), data_dir)
    for x, y in _batches(family, split, path, chosen):
        images.append(x)
        found.append(y)
    # (N, C·H·W) -> (N, C, H, W)
    planes = channels_last(np.concatenate(images).reshape(-1, 3, 32, 32))
    y = np.concatenate(found)
    return Dataset(family.origin.name, split, planes, y, chosen.classes, family.mean, family.std)


def _names(python: Version, binary: Version, split: str) -> tuple[str, ...]:
    """Return the files that show that there is a split: of a folder, an archive, or without its folder."""
    first = [next(iter(version.batches[split])) for version in (python, binary)]
    folders = [f"{version.folder}/{name}" for version, name in zip((python, binary), first, strict=True)]
    return folders[0], *python.archives, folders[1], *binary.archives, *first


def _batches(family: Family, split: str, path: Path, labels: Labels) -> Collection[tuple[np.ndarray, np.ndarray]]:
    """Return (images uint8 (n, 3072), labels int64 (n,)) of every batch of what is at ``path``."""
    is_binary = path.name in family.binary.archives or path.suffix == ".bin"
    version = family.binary if is_binary else family.python
    sums, found = version.batches[split], []
    is_archive = path.name in version.archives
    raws = _unpacked(family, version, split, path) if is_archive else {n: read_bytes(path.parent / n) for n in sums}
    for name, expected in sums.items():
        raw, where = raws.pop(name), (path if is_archive else path.parent) / name
        if isinstance(expected, int):
            found.append(parse_records(raw, where, labels, family, expected))
        else:
            check_md5(raw, (expected,), where, family.origin)
            found.append(parse_batch(raw, where, labels, family))
    return found


# ---- what is in a file -----------------------------------------------------------------------------------------


def parse_batch(raw: bytes, path: PathLike, labels: Labels, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 (n, 3072), labels int64 (n,)) of one pickled batch, ``path`` naming it in errors.

    Raises:
        DataError: the pickle is damaged, refers to anything but arrays, or is no such batch.
    """
    batch, K = restricted_loads(raw, path), len(labels.classes)
    x, y = (batch.get(b"data"), batch.get(labels.key)) if isinstance(batch, dict) else (None, None)
    if not (
        isinstance(x, np.ndarray)
        and x.dtype == np.uint8
        and x.ndim == 2
        and x.shape[1] == PIXELS
        and isinstance(y, list)
        and all(type(k) is int and 0 <= k < K for k in y)
    ):
        raise DataError(
            f"{path}: not a batch of {family.origin.name}: expected 'data' of uint8 (N, {PIXELS}) and N "
            f"'{labels.key.decode()}' of 0..{K - 1}: download {family.origin.url} again"
        )
    if len(y) != len(x):
        raise DataError(f"{path}: {len(x)} images and {len(y)} labels: download {family.origin.url} again")
    return x, np.array(y, np.int64)


def parse_records(
    raw: bytes, path: PathLike, labels: Labels, family: Family, records: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (images uint8 (n, 3072), labels int64 (n,)) of one file of the binary version.

    Raises:
        DataError: it has not so many ``records``, or labels that do not exist.
    """
    kinds = sorted(family.labels.values(), key=lambda kind: kind.column)
    size = len(kinds) + PIXELS
    if len(raw) != records * size:
        raise DataError(
            f"{path}: {len(raw):,} bytes, {records:,} records of {size:,} are {records * size:,}: "
            f"truncated, or another file: download {family.origin.url} again"
        )
    table = np.frombuffer(raw, np.uint8).reshape(records, size)
    for kind in kinds:
        if (largest := table[:, kind.column].max(initial=0)) >= len(kind.classes):
            raise DataError(
                f"{path}: a label {largest} among those of 0..{len(kind.classes) - 1}: not {family.origin.name}, or "
                f"damaged: download {family.origin.url} again"
            )
    return table[:, len(kinds) :], table[:, labels.column].astype(np.int64)


# ---- archives --------------------------------------------------------------------------------------------------


def _unpacked(family: Family, version: Version, split: str, path: Path) -> dict[str, bytes]:
    """Return the batches of an archive; those with known checksums come from the cache, or are put there."""
    sums = version.batches[split]
    if version is family.binary:
        check_md5(read_bytes(path), (version.md5,), path, family.origin)
        return read_members(path, sums, family.origin.url)
    cache = downloads_folder() / family.origin.folders[0] / version.folder
    with suppress(OSError):
        raws = {name: (cache / name).read_bytes() for name in sums}
        if all(md5(raw) == sums[name] for name, raw in raws.items()):
            return raws
    every = version.batches["train"] | version.batches["test"]
    raws = read_members(path, sums, family.origin.url, every)
    with suppress(OSError):  # the cache is a convenience
        for name in reversed(every):  # the first comes last: where it is, so are the others
            if name in raws and md5(raws[name]) == every[name]:
                write_whole(cache / name, raws[name])
    return raws


def read_members(path: Path, names: Collection[str], url: str, welcome: Collection[str] = ()) -> dict[str, bytes]:
    """Return the content of the files called ``names`` in a tar archive, compressed in any way, whatever their folder.

    The archive is read once, from its beginning to the last of them and of those that are ``welcome`` too.

    Raises:
        DataError: the archive is damaged, or lacks one of ``names``.
    """
    found: dict[str, bytes] = {}
    wanted, problem = {*names, *welcome}, ""
    try:
        with tarfile.open(path, "r|*", bufsize=1 << 20) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                file = archive.extractfile(member) if name in wanted and member.size < MAX_BYTES else None
                if file is not None:
                    found[name] = file.read()
                if len(found) == len(wanted):
                    break
    except (tarfile.TarError, EOFError, OSError) as error:
        problem = f"damaged archive ({error})"
    if missing := ", ".join(name for name in names if name not in found):
        raise DataError(f"{path}: {problem or f'the archive ends without {missing}'}: download {url} again")
    return found


# ---- what was published ----------------------------------------------------------------------------------------


def _archives(published: str, folder: str) -> tuple[str, ...]:
    stem = published.removesuffix(".tar.gz")
    return tuple(dict.fromkeys(f"{name}.tar{ending}" for name in (stem, folder) for ending in (".gz", ".xz", "")))


def _origin(name: str, size: int, folders: tuple[str, ...], python: Version, binary: Version) -> Origin:
    archive = python.archives[0]
    file = Download(archive, (python.md5,), size, (SITE + archive,))
    parts = tuple(Part(_names(python, binary, split), file) for split in ("train", "test"))
    return Origin(name, SITE + archive, folders, parts)


_PYTHON_10 = Version(
    "cifar-10-batches-py",
    _archives("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "c58f30108f718f92721af3b95e74349a",
    {
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    },
)
_BINARY_10 = Version(
    "cifar-10-batches-bin",
    ("cifar-10-binary.tar.gz",),
    "c32a1d4ab5d03f1284b67883e8d87530",
    {"train": {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)}, "test": {"test_batch.bin": 10_000}},
)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CIFAR10 = Family(
    _origin("cifar10", 170_498_071, ("cifar10", "cifar-10", "CIFAR10", ""), _PYTHON_10, _BINARY_10),
    _PYTHON_10,
    _BINARY_10,
    {"fine": Labels(b"labels", 0, CLASSES)},
    MEAN,
    STD,
)

_PYTHON_100 = Version(
    "cifar-100-python",
    _archives("cifar-100-python.tar.gz", "cifar-100-python"),
    "eb9058c3a382ffc7106e4002c42a8d85",
    {
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    },
)
_BINARY_100 = Version(
    "cifar-100-binary",
    ("cifar-100-binary.tar.gz",),
    "03b5dce01913d631647c71ecec9e9cb8",
    {"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
)
_FINE = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
    caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm
"""
FINE = tuple(_FINE.split())
_COARSE = """
    aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices household_furniture
    insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
    medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1 vehicles_2
"""
COARSE = tuple(_COARSE.split())
CIFAR100 = Family(
    _origin("cifar100", 169_001_437, ("cifar100", "cifar-100", "CIFAR100", ""), _PYTHON_100, _BINARY_100),
    _PYTHON_100,
    _BINARY_100,
    {"fine": Labels(b"fine_labels", 1, FINE), "coarse": Labels(b"coarse_labels", 0, COARSE)},
    (0.5071, 0.4865, 0.4409),
    (0.2673, 0.2564, 0.2762),
)
