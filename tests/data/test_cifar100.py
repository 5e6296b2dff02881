"""CIFAR-100: two kinds of labels."""

import hashlib

import numpy as np
import pytest
from cifar_files import python2_batch, write_archive
from helpers import is_channels_last

from tinycnn import data
from tinycnn.data.cifar import CIFAR10, CIFAR100


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
