import dataclasses
import hashlib
import io
import os
import pickle
import shutil
import struct
import tarfile

import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import data
from tinycnn.data import DataError, cifar, registry
from tinycnn.data.cifar import CIFAR10, CIFAR100, parse_batch, parse_records

BATCHES, FOLDER = CIFAR10.python.batches, CIFAR10.python.folder

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def python2_batch(x: np.ndarray, labels: list[int], key: bytes = b"labels", **others: list[int]) -> bytes:
    """The pickle that Python 2's NumPy writes for {'data': x, 'labels': labels}, opcode by opcode."""

    def text(s: bytes) -> bytes:
        return b"U" + bytes([len(s)]) + s

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text(b"b") + b"tR"
    dtype = (
        b"cnumpy\ndtype\n("
        + text(b"u1")
        + b"K\x00K\x01tR(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = b"(J" + struct.pack("<i", x.shape[0]) + b"J" + struct.pack("<i", x.shape[1]) + b"t"
    state = b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", x.nbytes) + x.tobytes() + b"tb"
    lists = {key: labels} | {name.encode(): values for name, values in others.items()}
    items = (text(name) + b"](" + b"".join(b"K" + bytes([k]) for k in values) + b"e" for name, values in lists.items())
    return b"\x80\x02}(" + text(b"data") + array + state + b"".join(items) + b"u."


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


def write_archive(path, files: dict[str, bytes], mode: str, folder: str = FOLDER) -> None:
    with tarfile.open(path, mode) as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


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


X = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": X},
        {b"labels": [1, 2]},
        {b"data": X, b"labels": [1, True]},
        {b"data": X, b"labels": [1, 10]},
        {b"data": X, b"labels": [1, -1]},
        {b"data": X, b"labels": [1, 2.0]},
        {b"data": X, b"labels": (1, 2)},
        {b"data": X.astype(np.float32), b"labels": [1, 2]},
        {b"data": X[:, :-1], b"labels": [1, 2]},
        {b"data": X.reshape(2, 3, 32, 32), b"labels": [1, 2]},
        {b"data": b"", b"labels": []},
        {b"data": X, b"fine_labels": [1, 2]},
        [X, [1, 2]],
        None,
    ],
)
def test_pickles_that_are_no_batch(batch):
    with pytest.raises(DataError, match=r"^f: not a batch of cifar10: expected"):
        parse_batch(pickle.dumps(batch, 4), "f", CIFAR10.labels["fine"], CIFAR10)


def test_labels_that_disagree_in_length():
    raw = pickle.dumps({b"data": X, b"labels": [1, 2, 3]}, 4)
    with pytest.raises(DataError, match=r"^f: 2 images and 3 labels: download .* again$"):
        parse_batch(raw, "f", CIFAR10.labels["fine"], CIFAR10)


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


@settings(max_examples=60)
@given(raw=st.binary(max_size=3 * 3074), records=st.integers(0, 3), family=st.sampled_from([CIFAR10, CIFAR100]))
def test_any_bytes_are_records_or_refused(raw, records, family):
    for labels in family.labels.values():
        try:
            x, y = parse_records(raw, "f", labels, family, records)
        except DataError:
            continue
        assert (x.shape, y.shape) == ((records, 3072), (records,))
        assert all(0 <= k < len(labels.classes) for k in y)


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_records_too_short_or_too_long(change):
    raw = bytes(2 * 3073 + max(change, 0))[: 2 * 3073 + change]
    with pytest.raises(DataError, match=r"^f: [0-9,]+ bytes, 2 records of 3,073 are 6,146: truncated, or another"):
        parse_records(raw, "f", CIFAR10.labels["fine"], CIFAR10, 2)


def test_records_with_labels_that_do_not_exist():
    raw = bytes([9]) + bytes(3072) + bytes([10]) + bytes(3072)
    with pytest.raises(DataError, match=r"^f: a label 10 among those of 0..9: not cifar10, or damaged"):
        parse_records(raw, "f", CIFAR10.labels["fine"], CIFAR10, 2)
    for pair, wrong in (((20, 3), 20), ((3, 100), 100)):
        with pytest.raises(DataError, match=rf"a label {wrong} among"):
            parse_records(bytes(pair) + bytes(3072), "f", CIFAR100.labels["fine"], CIFAR100, 1)


@settings(max_examples=60)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_pickle_with_one_bit_changed_is_a_batch_or_refused(place, bit):
    raw = bytearray(python2_batch(X, [1, 2]))
    raw[place % len(raw)] ^= 1 << bit
    try:
        x, y = parse_batch(bytes(raw), "f", CIFAR10.labels["fine"], CIFAR10)
    except DataError:
        return
    assert (x.shape[1], len(y)) == (3072, len(x))


# ---- CIFAR-100 -------------------------------------------------------------------------------------------------


@pytest.fixture
def hundred(monkeypatch):
    """Train and test of six images each, in both versions, with the labels of either kind."""
    rng, arrays, raws = np.random.default_rng(1), {}, {}
    for name in ("train", "test"):
        x = rng.integers(0, 256, (6, 3072), dtype=np.uint8)
        fine, coarse = rng.permutation(100)[:6].tolist(), rng.permutation(20)[:6].tolist()
        arrays[name] = x, fine, coarse
        raws[name] = python2_batch(x, coarse, b"coarse_labels", fine_labels=fine)
        monkeypatch.setitem(CIFAR100.python.batches, name, {name: hashlib.md5(raws[name]).hexdigest()})
        monkeypatch.setitem(CIFAR100.binary.batches, name, {f"{name}.bin": 6})
    return arrays, raws


def check_hundred(folder, arrays):
    for split, (x, fine, coarse) in arrays.items():
        for labels, wanted, K in ((None, fine, 100), ("fine", fine, 100), ("coarse", coarse, 20)):
            options = {} if labels is None else {"labels": labels}
            dataset = data.load("cifar100", split, folder, **options)
            assert (dataset.name, dataset.split, dataset.num_classes) == ("cifar100", split, K)
            assert dataset.labels.tolist() == wanted
            assert is_channels_last(dataset.images)
            assert [image.ravel().tolist() for image in dataset.images] == x.tolist()


@pytest.mark.parametrize("where", ["cifar-100-python", "cifar100/cifar-100-python", "CIFAR100"])
def test_a_hundred_classes_from_a_folder(tmp_path, hundred, where):
    (tmp_path / where).mkdir(parents=True)
    for name, raw in hundred[1].items():
        (tmp_path / where / name).write_bytes(raw)
    check_hundred(tmp_path, hundred[0])


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_hundred_classes_from_an_archive(tmp_path, hundred, kind):
    path = tmp_path / f"cifar-100-python.tar.{kind}"
    write_archive(path, {"meta": b"no pickle"} | hundred[1], f"w:{kind}", "cifar-100-python")
    check_hundred(tmp_path, hundred[0])


def test_a_hundred_classes_from_the_binary_version(tmp_path, hundred):
    (tmp_path / "cifar-100-binary").mkdir()
    for name, (x, fine, coarse) in hundred[0].items():
        raw = b"".join(bytes([c, f]) + row.tobytes() for row, f, c in zip(x, fine, coarse, strict=True))
        (tmp_path / "cifar-100-binary" / f"{name}.bin").write_bytes(raw)
    check_hundred(tmp_path, hundred[0])


def test_unknown_labels(tmp_path):
    with pytest.raises(ValueError, match=r"^cifar100: unknown labels 'corse'; did you mean 'coarse'\? \(known"):
        data.load("cifar100", "test", tmp_path, labels="corse")


def test_published_names_and_sums():
    assert [len(CIFAR100.labels[kind].classes) for kind in ("fine", "coarse")] == [100, 20]
    for kind in CIFAR100.labels.values():
        assert list(kind.classes) == sorted(set(kind.classes))
    fine = CIFAR100.labels["fine"].classes
    assert [fine[k] for k in (0, 19, 29, 51, 99)] == ["apple", "cattle", "dinosaur", "mushroom", "worm"]
    assert (CIFAR10.python.md5, CIFAR10.binary.md5) == (
        "c58f30108f718f92721af3b95e74349a",
        "c32a1d4ab5d03f1284b67883e8d87530",
    )
    assert CIFAR100.python.md5 == "eb9058c3a382ffc7106e4002c42a8d85"
    for family in (CIFAR10, CIFAR100):
        (download,) = {part.download for part in family.origin.parts}
        assert download.md5s == (family.python.md5,)
        assert download.urls == (f"https://www.cs.toronto.edu/~kriz/{family.python.archives[0]}",)


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
