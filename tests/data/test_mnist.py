import dataclasses
import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import data
from tinycnn.data import DataError
from tinycnn.data.mnist import FASHION_MNIST, FILES, MNIST, load_family

NAMES = [name for pair in FILES.values() for name in pair]


def contents() -> dict[str, bytes]:
    """Four small files in MNIST's format: 5 training and 3 test images."""
    rng = np.random.default_rng(0)
    files = {}
    for (images, labels), N in zip(FILES.values(), (5, 3), strict=True):
        files[images] = struct.pack(">4i", 0x0803, N, 28, 28) + rng.bytes(N * 28 * 28)
        files[labels] = struct.pack(">2i", 0x0801, N) + bytes(rng.integers(0, 10, N).tolist())
    return files


RAW = contents()
ZIPPED = {name: gzip.compress(raw, mtime=0) for name, raw in RAW.items()}


def digest(raw: bytes) -> str:
    return hashlib.md5(raw).hexdigest()


@pytest.fixture
def toy():
    """MNIST, but for the checksums."""
    return dataclasses.replace(MNIST, md5s={name: (digest(ZIPPED[name]), digest(RAW[name])) for name in NAMES})


def write(folder: Path, files: dict[str, bytes], ending: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / (name + ending)).write_bytes(raw)


def check(dataset, split: str) -> None:
    images, labels = (RAW[name] for name in FILES[split])
    N = len(labels) - 8
    assert dataset.images.shape == (N, 1, 28, 28)
    assert is_channels_last(dataset.images)
    assert dataset.images.tobytes() == images[16:]
    assert dataset.labels.dtype == np.int64
    assert dataset.labels.tolist() == list(labels[8:])
    assert (dataset.name, dataset.split, dataset.num_classes) == ("mnist", split, 10)


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw", "raw"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_every_layout(tmp_path, toy, folder, zipped, split):
    write(tmp_path / folder, *((ZIPPED, ".gz") if zipped else (RAW,)))
    check(load_family(toy, split, tmp_path), split)


def test_names_with_a_dot(tmp_path, toy):
    write(tmp_path, {name.replace("-idx", ".idx"): raw for name, raw in RAW.items()})
    check(load_family(toy, "test", tmp_path), "test")


def test_the_variable_names_the_folder(tmp_path, toy, monkeypatch):
    write(tmp_path / "mnist", ZIPPED, ".gz")
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path))
    check(load_family(toy, "train"), "train")


def test_a_browser_may_have_unzipped_the_file_and_kept_its_name(tmp_path, toy):
    write(tmp_path, RAW, ".gz")
    check(load_family(toy, "train", tmp_path), "train")


@pytest.mark.parametrize("name", FILES["train"])
@pytest.mark.parametrize("zipped", [True, False])
def test_one_changed_bit_is_noticed(tmp_path, toy, name, zipped):
    write(tmp_path, *((ZIPPED, ".gz") if zipped else (RAW,)))
    path = tmp_path / (name + ".gz" * zipped)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        load_family(toy, "train", tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {len(raw):,} bytes with MD5 {digest(raw)}, published is ")
    assert message.endswith(f"the file is damaged or another one; download it again from {MNIST.origin.url}")
    assert "\n" not in message


def test_images_under_the_name_of_labels(tmp_path, toy):
    images, labels = FILES["test"]
    write(tmp_path, {images: RAW[images], labels: RAW[images]})
    with pytest.raises(DataError, match=f"{labels}: .*: it is {images} of mnist, not {labels}; download it again"):
        load_family(toy, "test", tmp_path)


def test_files_that_disagree_in_length(tmp_path):
    """Their checksums would tell; a family that is told other checksums must find out."""
    images, labels = FILES["test"]
    short = struct.pack(">2i", 0x0801, 2) + bytes(2)
    write(tmp_path, {images: RAW[images], labels: short})
    family = dataclasses.replace(MNIST, md5s={images: (digest(RAW[images]),) * 2, labels: (digest(short),) * 2})
    with pytest.raises(
        DataError, match=rf"^mnist: {images} has shape \(3, 28, 28\) and {labels} \(2,\): .*: download both again"
    ):
        load_family(family, "test", tmp_path)


def test_every_file_can_be_downloaded():
    """Addresses and sizes, as published."""
    for family, host in ((MNIST, "amazonaws.com"), (FASHION_MNIST, "fashion-mnist")):
        files = [part.download for part in family.origin.parts]
        assert [file.name for file in files] == [f"{name}.gz" for name in family.md5s]
        for file, part in zip(files, family.origin.parts, strict=True):
            assert file.md5s == family.md5s[file.name.removesuffix(".gz")]
            assert part.names[:2] == (file.name.removesuffix(".gz"), file.name)
            assert len(file.urls) == 2
            assert all(url.startswith("http") and url.endswith(f"/{file.name}") for url in file.urls)
            assert host in file.urls[0]


def test_a_missing_file(tmp_path, toy):
    write(tmp_path, ZIPPED, ".gz")
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(
        DataError, match=r"no train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz in .*looked in mnist"
    ):
        load_family(toy, "train", tmp_path)
    check(load_family(toy, "test", tmp_path), "test")


def test_published_checksums():
    """Of the .gz files, as the publishers give them."""
    assert [MNIST.md5s[name][0] for name in NAMES] == [
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ]
    assert [FASHION_MNIST.md5s[name][0] for name in NAMES] == [
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ]


# ---- the real files ------------------------------------------------------------------------------------------

needs_data = pytest.mark.skipif(
    not os.environ.get("TINYCNN_DATA"), reason="set $TINYCNN_DATA to a folder with mnist/ and fashion-mnist/"
)


@needs_data
@pytest.mark.parametrize("family", [MNIST, FASHION_MNIST], ids=["mnist", "fashion-mnist"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_real_dataset(family, split):
    dataset = data.load(family.origin.name, split)
    assert dataset.images.shape == ({"train": 60_000, "test": 10_000}[split], 1, 28, 28)
    if split == "train":
        assert dataset.images.mean() / 255 == pytest.approx(family.mean, abs=5e-5)
        assert dataset.images.std() / 255 == pytest.approx(family.std, abs=5e-5)
    first = {
        "mnist": {"train": [5, 0, 4, 1, 9], "test": [7, 2, 1, 0, 4]},
        "fashion-mnist": {"train": [9, 0, 0, 3, 0], "test": [9, 2, 1, 1, 6]},
    }
    assert dataset.labels[:5].tolist() == first[family.origin.name][split]


@needs_data
@pytest.mark.parametrize("family", [MNIST, FASHION_MNIST], ids=["mnist", "fashion-mnist"])
def test_published_sizes(family):
    folder = Path(os.environ["TINYCNN_DATA"]) / family.origin.name
    for part in family.origin.parts:
        assert (folder / part.download.name).stat().st_size == part.download.size


@needs_data
def test_the_real_files_unzipped_and_mixed_up(tmp_path):
    real = Path(os.environ["TINYCNN_DATA"]) / "mnist"
    for name in FILES["test"]:
        raw = gzip.decompress((real / f"{name}.gz").read_bytes())
        (tmp_path / name).write_bytes(raw)
    np.testing.assert_array_equal(
        data.load("mnist", "test", tmp_path).images, data.load("mnist", "test", real.parent).images
    )
    with pytest.raises(DataError, match="it is t10k-images-idx3-ubyte of mnist, not of fashion-mnist; download"):
        data.load("fashion-mnist", "test", tmp_path)
