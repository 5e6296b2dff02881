import hashlib
import io
import os
import pickle
import struct
import tarfile

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import data
from tinycnn.data import DataError, cifar
from tinycnn.data.cifar import BATCHES, FOLDER, parse_batch

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def python2_batch(x: np.ndarray, labels: list[int]) -> bytes:
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
    numbers = b"](" + b"".join(b"K" + bytes([k]) for k in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + numbers + b"u."


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
    return arrays, raws


def write_archive(path, files: dict[str, bytes], mode: str) -> None:
    with tarfile.open(path, mode) as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
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


@pytest.mark.parametrize("name", ["cifar-10-python.tar.gz", "cifar10/cifar-10-batches-py.tar.xz"])
def test_from_an_archive_in_any_order(tmp_path, toy, name):
    arrays, raws = toy
    (tmp_path / "cifar10").mkdir()
    order = ["data_batch_4", "readme.html", "test_batch", *TRAIN[:3], "data_batch_5"]
    write_archive(tmp_path / name, {n: raws.get(n, b"hello") for n in order}, "w:" + name[-2:])
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
    monkeypatch.setattr(cifar, "BATCH_BYTES", 100)
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
        {b"data": X, b"labels": [1]},
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
    with pytest.raises(DataError, match=r"^f: not a batch of CIFAR-10: expected"):
        parse_batch(pickle.dumps(batch, 4), "f")


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


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TINYCNN_DATA"), reason="set $TINYCNN_DATA to a folder with CIFAR-10")
def test_the_real_dataset():
    train = data.load("cifar10", "train")
    assert train.images.shape == (50_000, 3, 32, 32)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert [train.classes[k] for k in train.labels[:5]] == ["frog", "truck", "truck", "deer", "automobile"]
    pixels = train.images.reshape(50_000, 3, -1)
    for c in range(3):
        assert pixels[:, c].mean() / 255 == pytest.approx(train.mean[c], abs=1e-4)
        assert pixels[:, c].std() / 255 == pytest.approx(train.std[c], abs=1e-4)
