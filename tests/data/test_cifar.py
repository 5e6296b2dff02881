import dataclasses
import hashlib
import os
import shutil
import tarfile

import numpy as np
import pytest
from cifar_files import python2_batch, write_archive
from helpers import is_channels_last

from tinycnn import data
from tinycnn.data import DataError, cifar, registry
from tinycnn.data.cifar import CIFAR10

BATCHES, FOLDER = CIFAR10.python.batches, CIFAR10.python.folder

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache of its own for each test: what is unpacked is kept there."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("TINYCNN_CACHE", str(folder))
    return folder / "data"


@pytest.fixture
def toy(monkeypatch):
    """Six batches of four images in the published format, and `cifar` told their checksums."""
    rng = np.random.default_rng(0)
    arrays, raws = {}, {}
    for name in [*TRAIN, "test_batch"]:
        x, y = rng.integers(0, 256, (4, 3072), dtype=np.uint8), rng.integers(0, 10, 4).tolist()
        arrays[name], raws[name] = (x, y), python2_batch(x, y)
    for names, split in ((TRAIN, "train"), (["test_batch"], "test")):
        sums = {name: hashlib.md5(raws[name]).hexdigest() for name in names}
        monkeypatch.setitem(BATCHES, split, sums)
        monkeypatch.setitem(CIFAR10.binary.batches, split, {f"{name}.bin": 4 for name in names})
    return arrays, raws


def binary(arrays) -> dict[str, bytes]:
    """The same batches in the binary version: label, then planes, image by image."""
    return {
        f"{name}.bin": b"".join(bytes([k]) + row.tobytes() for row, k in zip(x, y, strict=True))
        for name, (x, y) in arrays.items()
    }


def check(dataset, arrays, names) -> None:
    """Pixel by pixel: planes of red, green and blue, each row by row."""
    assert dataset.images.shape == (4 * len(names), 3, 32, 32)
    assert is_channels_last(dataset.images)
    i = 0
    for name in names:
        x, y = arrays[name]
        for row, label in zip(x, y, strict=True):
            for c, h, w in ((0, 0, 0), (1, 0, 0), (2, 31, 31), (0, 3, 7), (2, 17, 1)):
                assert dataset.images[i, c, h, w] == row[1024 * c + 32 * h + w]
            assert dataset.labels[i] == label
            i += 1


@pytest.mark.parametrize("where", [FOLDER, f"cifar10/{FOLDER}", f"CIFAR10/{FOLDER}", ""])
def test_from_a_folder(tmp_path, toy, where):
    arrays, raws = toy
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    for name, raw in raws.items():
        (tmp_path / where / name).write_bytes(raw)
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])


@pytest.mark.parametrize(
    "name", ["cifar-10-python.tar.gz", "cifar10/cifar-10-batches-py.tar.xz", "cifar-10-python.tar"]
)
def test_from_an_archive_in_any_order(tmp_path, toy, name):
    arrays, raws = toy
    (tmp_path / name).parent.mkdir(exist_ok=True)
    order = ["data_batch_4", "readme.html", "test_batch", *TRAIN[:3], "data_batch_5"]
    write_archive(tmp_path / name, {n: raws.get(n, b"hello") for n in order}, "w:" + name[-2:].replace("ar", ""))
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [name.split("/")[-1]]  # nothing unpacked


def refusal(tmp_path, split: str = "test") -> str:
    with pytest.raises(DataError) as caught:
        data.load("cifar10", split, tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path) in message
    assert "download" in message
    return message


def test_archive_without_a_batch(tmp_path, toy):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, {n: toy[1][n] for n in (TRAIN[0], "test_batch")}, "w:gz")
    assert "ends without data_batch_2, data_batch_3, data_batch_4, data_batch_5" in refusal(tmp_path, "train")
    assert len(data.load("cifar10", "test", tmp_path)) == 4


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_archive_truncated_or_damaged(tmp_path, toy, kind):
    path = tmp_path / f"cifar-10-batches-py.tar.{kind}"
    write_archive(path, toy[1], f"w:{kind}")
    raw = path.read_bytes()
    for n in (0, 1, 5, 20, len(raw) // 3, len(raw) // 2):
        path.write_bytes(raw[:n])
        refusal(tmp_path)
    damaged = bytearray(raw)
    damaged[len(raw) * 11 // 12] ^= 0xFF  # in the last member, the one asked for
    path.write_bytes(damaged)
    refusal(tmp_path)


def test_archive_that_is_something_else(tmp_path):
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"<html>not found</html>" * 100)
    assert "damaged archive" in refusal(tmp_path)


def test_members_too_long_links_and_folders_are_not_read(tmp_path, toy, monkeypatch):
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, {"test_batch": toy[1]["test_batch"]}, "w:gz")
    monkeypatch.setattr(cifar, "MAX_BYTES", 100)
    assert "ends without test_batch" in refusal(tmp_path)
    monkeypatch.undo()
    for kind in (tarfile.DIRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo("test_batch")
            member.type = kind
            archive.addfile(member)
        assert "ends without test_batch" in refusal(tmp_path)


def test_one_changed_bit_and_a_missing_batch(tmp_path, toy):
    _, raws = toy
    (tmp_path / FOLDER).mkdir()
    for name in TRAIN:
        (tmp_path / FOLDER / name).write_bytes(raws[name])
    path = tmp_path / FOLDER / "data_batch_3"
    path.write_bytes(raws["data_batch_3"][:-3] + b"\0" + raws["data_batch_3"][-2:])
    assert refusal(tmp_path, "train").startswith(f"{path}: ")
    path.unlink()
    with pytest.raises(DataError, match="data_batch_3: cannot be read"):
        data.load("cifar10", "train", tmp_path)
    assert "no cifar-10-batches-py/test_batch or cifar-10-python.tar.gz" in refusal(tmp_path, "test")


def test_a_hostile_batch_is_refused_even_with_the_right_checksum(tmp_path, monkeypatch):
    raw = b"cos\nsystem\n(S'touch " + str(tmp_path / "victim").encode() + b"'\ntR."
    monkeypatch.setitem(BATCHES, "test", {"test_batch": hashlib.md5(raw).hexdigest()})
    (tmp_path / "test_batch").write_bytes(raw)
    assert "refused: the pickle refers to os.system" in refusal(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_published_checksums():
    """MD5s of the members of the published archive, as torchvision lists them."""
    assert list(BATCHES["train"].values()) == [
        "c99cafc152244af753f735de768cd75f",
        "d4bba439e000b95fd0a9bffe97cbabec",
        "54ebc095f3ab1f0389bbae665268c751",
        "634d18415352ddfa80567beed471001a",
        "482c414d41f54cd18b22e5b47cb7c3cb",
    ]
    assert BATCHES["test"] == {"test_batch": "40351d587109b95175f43aff81a1287e"}


# ---- what had to be unpacked is kept ---------------------------------------------------------------------------


def test_an_archive_is_unpacked_once(tmp_path, toy, cache, monkeypatch):
    arrays, raws = toy
    path = tmp_path / "cifar-10-python.tar.gz"
    write_archive(path, raws, "w:gz")
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)
    kept = cache / "cifar10" / FOLDER
    assert sorted(file.name for file in kept.iterdir()) == [*TRAIN, "test_batch"]
    monkeypatch.setattr(cifar, "read_members", None)
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])


def test_a_process_killed_while_it_keeps_them(tmp_path, toy, cache, monkeypatch):
    """Wherever it stops, the archive is read again: half a folder is not taken for a whole one."""
    arrays, raws = toy
    (cache / "cifar10").mkdir(parents=True)
    write_archive(cache / "cifar10" / "cifar-10-python.tar.gz", raws, "w:gz")
    monkeypatch.delenv("TINYCNN_DATA", raising=False)
    for n in range(6):
        written = []

        def write(path, raw, n=n, written=written):
            if len(written) == n:
                raise KeyboardInterrupt
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(raw)
            written.append(path)

        with monkeypatch.context() as patch:
            patch.setattr(cifar, "write_whole", write)
            with pytest.raises(KeyboardInterrupt):
                data.load("cifar10", "train")
        check(data.load("cifar10", "train"), arrays, TRAIN)
        shutil.rmtree(cache / "cifar10" / FOLDER)


def test_what_is_kept_is_checked(tmp_path, toy, cache):
    arrays, raws = toy
    write_archive(tmp_path / "cifar-10-python.tar.gz", raws, "w:gz")
    kept = cache / "cifar10" / FOLDER / "test_batch"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(raws["data_batch_1"])
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])
    assert kept.read_bytes() == raws["test_batch"]


def test_a_cache_that_cannot_be_written_does_not_matter(tmp_path, toy, cache):
    arrays, raws = toy
    write_archive(tmp_path / "cifar-10-python.tar.gz", raws, "w:gz")
    cache.write_bytes(b"a file where a folder should be")
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])


def test_a_wrong_batch_of_an_archive_is_not_kept(tmp_path, toy, cache):
    write_archive(tmp_path / "cifar-10-python.tar.gz", {"test_batch": toy[1]["data_batch_2"]}, "w:gz")
    assert "test_batch: " in refusal(tmp_path)
    assert not (cache / "cifar10" / FOLDER).exists()


# ---- the binary version ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["cifar-10-batches-bin", "cifar10/cifar-10-batches-bin", "CIFAR10", ""])
def test_the_binary_version_from_a_folder(tmp_path, toy, where):
    arrays, _ = toy
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    for name, raw in binary(arrays).items():
        (tmp_path / where / name).write_bytes(raw)
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)
    check(data.load("cifar10", "test", tmp_path), arrays, ["test_batch"])


def test_the_binary_version_from_its_archive(tmp_path, toy, monkeypatch):
    arrays, _ = toy
    path = tmp_path / "cifar-10-binary.tar.gz"
    write_archive(path, binary(arrays), "w:gz", "cifar-10-batches-bin")
    assert f"published is {CIFAR10.binary.md5}" in refusal(tmp_path)
    told = dataclasses.replace(CIFAR10.binary, md5=hashlib.md5(path.read_bytes()).hexdigest())
    family = dataclasses.replace(CIFAR10, binary=told)
    check(cifar.load_family(family, "train", tmp_path), arrays, TRAIN)
    check(cifar.load_family(family, "test", tmp_path), arrays, ["test_batch"])


def test_the_python_version_is_preferred(tmp_path, toy):
    arrays, raws = toy
    for folder, files in ((FOLDER, raws), ("cifar-10-batches-bin", dict.fromkeys(binary(arrays), b""))):
        (tmp_path / folder).mkdir()
        for name, raw in files.items():
            (tmp_path / folder / name).write_bytes(raw)
    check(data.load("cifar10", "train", tmp_path), arrays, TRAIN)


# ---- downloaded ------------------------------------------------------------------------------------------------


def test_load_downloads_and_reads_what_came(tmp_path, toy, cache, monkeypatch):
    """By way of a file:// of a kind: pooch's downloader is told to copy."""
    arrays, raws = toy
    write_archive(tmp_path / "cifar-10-python.tar.gz", raws, "w:gz")
    content = (tmp_path / "cifar-10-python.tar.gz").read_bytes()
    part = CIFAR10.origin.parts[0]
    file = dataclasses.replace(part.download, md5s=(hashlib.md5(content).hexdigest(),), size=len(content))
    parts = tuple(dataclasses.replace(part, download=file) for part in CIFAR10.origin.parts)
    origin = dataclasses.replace(CIFAR10.origin, parts=parts)
    known = dataclasses.replace(registry.entry("cifar10"), origin=origin)
    monkeypatch.setitem(registry._ENTRIES, "cifar10", known)
    monkeypatch.setattr("pooch.HTTPDownloader.__call__", lambda self, url, output, _: output.write(content))
    monkeypatch.delenv("TINYCNN_OFFLINE")
    monkeypatch.delenv("TINYCNN_DATA", raising=False)
    check(data.load("cifar10", "train", download=True), arrays, TRAIN)
    archive = cache / "cifar10" / "cifar-10-python.tar.gz"
    assert archive.read_bytes() == content
    shutil.rmtree(cache / "cifar10" / FOLDER)
    archive.write_bytes(content[:-50])
    check(data.load("cifar10", "test", download=True), arrays, ["test_batch"])
    assert archive.read_bytes() == content
    assert archive.with_name(f"{archive.name}.bad").read_bytes() == content[:-50]


# ---- the real files --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYCNN_DATA"), reason="set $TINYCNN_DATA to a folder with CIFAR-10")
def test_the_real_dataset(kept_cache):
    train = data.load("cifar10", "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert [train.classes[k] for k in train.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    pixels = train.images.reshape(50_000, 3, -1)
    for c in range(3):
        assert pixels[:, c].mean() / 255 == pytest.approx(train.mean[c], abs=1e-4)
        assert pixels[:, c].std() / 255 == pytest.approx(train.std[c], abs=1e-4)
