"""``tinycnn data``, and what other commands download."""

import dataclasses
import hashlib
import io
import struct
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tinycnn.cli import data as module
from tinycnn.data import mnist, registry
from tinycnn.data.files import Download, Part

NAMES = ["cifar10", "cifar100", "digits", "fashion-mnist", "hymenoptera", "imagefolder", "mnist"]


def files():
    """Ten training and five test images in MNIST's format."""
    rng, raws = np.random.default_rng(0), {}
    for (images, labels), N in zip(mnist.FILES.values(), (10, 5), strict=True):
        raws[images] = struct.pack(">4i", 0x0803, N, 28, 28) + rng.bytes(N * 28 * 28)
        raws[labels] = struct.pack(">2i", 0x0801, N) + bytes(range(N))
    return raws


@pytest.fixture
def web(monkeypatch, tmp_path, command):
    """MNIST of a few images, and a web that has it; the addresses asked for are returned."""
    raws, asked = files(), []
    sums = {name: (hashlib.md5(raw).hexdigest(),) * 2 for name, raw in raws.items()}
    parts = tuple(
        Part((name, f"{name}.gz"), Download(f"{name}.gz", sums[name], len(raw), (f"https://example.org/{name}.gz",)))
        for name, raw in raws.items()
    )
    origin = dataclasses.replace(mnist.MNIST.origin, parts=parts)
    family = dataclasses.replace(mnist.MNIST, origin=origin, md5s=sums)
    known = registry._published("a few digits", partial(mnist.load_family, family), origin)
    monkeypatch.setitem(registry._ENTRIES, "mnist", known)

    def get(self, url, output, _):
        asked.append(url)
        if self.progressbar:
            self.progressbar.total = 100
            self.progressbar.update(100)
        output.write(raws[url.removeprefix("https://example.org/").removesuffix(".gz")])

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", get)
    monkeypatch.delenv("TINYCNN_OFFLINE")
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "cache"))
    return asked


def photographs(folder):
    for name, N in (("ants", 3), ("bees", 2)):
        for split in ("train", "val"):
            (folder / split / name).mkdir(parents=True)
            for i in range(N):
                Image.new("RGB", (8, 8)).save(folder / split / name / f"{i}.png")
    (folder / "train" / "ants" / "notes.txt").touch()
    return folder


# ---- list and where ------------------------------------------------------------------------------------------


def test_list(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "none"))
    assert command("data", "list") == 0
    lines = command.out.splitlines()
    assert [line.split()[0] for line in lines[::2]] == NAMES
    assert "not here; tinycnn data download cifar10 (170 MB)" in lines[1]
    assert lines[5].endswith("digits.npz")
    assert command("data", "list", "--json") == 0
    rows = {row["name"]: row for row in command.json()["datasets"]}
    assert list(rows) == NAMES
    assert rows["mnist"]["files"] == []
    assert rows["mnist"]["download_bytes"] == 11_594_722
    assert rows["imagefolder"]["download_bytes"] == 0


def test_list_and_where_find_what_is_there(command, tmp_path):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in files():
        (folder / name).touch()
    assert command("data", "list", "--data-dir", tmp_path) == 0
    assert command.out.splitlines()[-1].strip() == str(folder)
    assert command.out.splitlines()[-3].strip() == "not here", "these are no photographs"
    assert command("data", "where", "mnist", "--data-dir", tmp_path) == 0
    assert command.out.splitlines() == [str(folder / name) for name in files()]
    assert command("data", "where", "mnist", "--data-dir", tmp_path, "--json") == 0
    assert command.json() == {"data": "mnist", "files": [str(folder / name) for name in files()]}


def test_where_counts_photographs(command, tmp_path):
    folder = photographs(tmp_path / "photos")
    assert command("data", "list", "--data-dir", folder) == 0
    assert command.out.splitlines()[-3].strip() == str(folder)
    assert command("data", "where", "imagefolder", "--data-dir", folder) == 0
    assert command.out.splitlines() == [
        str(folder),
        "train: 5 pictures: 3 ants, 2 bees; other files ignored: 1 .txt",
        "test: 5 pictures: 3 ants, 2 bees",
    ]
    assert command("data", "where", "imagefolder", "--data-dir", folder, "--json") == 0
    assert command.json()["splits"]["train"] == {"images": 5, "classes": {"ants": 3, "bees": 2}, "ignored": {".txt": 1}}


def test_where_of_what_is_missing_or_unknown(command, tmp_path):
    assert "mnist: no train-images-idx3-ubyte or" in command.refused("data", "where", "mnist", "--data-dir", tmp_path)
    assert "did you mean 'mnist'?" in command.refused("data", "where", "minst")


# ---- download ------------------------------------------------------------------------------------------------


def test_download(command, web, tmp_path):
    assert command("data", "download", "mnist") == 0
    folder = tmp_path / "cache" / "data" / "mnist"
    assert command.out == f"mnist: 4 files downloaded: {folder}\n"
    lines = command.err.splitlines()
    assert lines[0] == "downloading train-images-idx3-ubyte.gz (8 kB) from example.org"
    assert len(lines) == len(web) == 4
    assert command("data", "download", "mnist", "--json") == 0
    (row,) = command.json()["datasets"]
    assert (row["data"], row["fetched"], len(row["files"])) == ("mnist", [], 4)
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert command("data", "download", "mnist", "--quiet") == 0
    assert (command.out, command.err) == (f"mnist: 1 file downloaded: {folder}\n", "")


def test_download_into_a_new_folder(command, web, tmp_path):
    assert command("data", "download", "mnist", "--data-dir", tmp_path / "new") == 0
    assert len(list((tmp_path / "new" / "mnist").iterdir())) == 4
    assert not (tmp_path / "cache").exists()


def test_download_refused(command, web, tmp_path, monkeypatch):
    assert "unknown dataset 'minst'" in command.refused("data", "download", "mnist", "minst")
    assert web == []
    assert command("data", "download", "digits") == 1
    assert command.err == "tinycnn: error: digits: cannot be downloaded: it is yours or bundled\n"
    monkeypatch.setenv("TINYCNN_OFFLINE", "1")
    assert command("data", "download", "mnist") == 1
    assert "not downloaded, since $TINYCNN_OFFLINE is set" in command.err
    assert web == []


def test_no_subcommand_shows_the_help(command):
    command("data")
    assert "download" in command.out


# ---- other commands ------------------------------------------------------------------------------------------

QUICK = ("--epochs", 1, "--batch-size", 5, "--val-fraction", 0)


def test_train_and_eval_download_what_they_need_and_say_so(command, web, tmp_path):
    assert command("train", "--data", "mnist", *QUICK, "--out", "a", "--json") == 0
    assert [line.split()[0] for line in command.err.splitlines()[:5]] == ["downloading"] * 4 + ["lenet5"]
    assert len(command.out.splitlines()) == 1
    assert len(web) == 4
    assert command("eval", "a") == 0
    assert len(web) == 4
    for path in (tmp_path / "cache" / "data" / "mnist").iterdir():
        path.unlink()
    assert command("eval", "a", "--json") == 0
    assert command.json()["images"] == 5
    assert len(web) == 8


def test_train_quietly(command, web):
    assert command("train", "--data", "mnist", *QUICK, "--out", "a", "--quiet") == 0
    assert command.err == ""
    assert len(web) == 4


def test_train_offline_says_what_is_missing(command, web, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_OFFLINE", "1")
    line = command.refused("train", "--data", "mnist", "--data-dir", tmp_path, "--out", "a")
    assert f"mnist: no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in {tmp_path} (looked in " in line
    assert "nothing is downloaded, since $TINYCNN_OFFLINE is set" in line
    assert not (tmp_path / "a").exists()
    assert web == []


def test_train_makes_no_folder_that_was_mistyped(command, web, tmp_path):
    assert "is not a folder" in command.refused("train", "--data", "mnist", "--data-dir", tmp_path / "dtaa")
    assert web == []


# ---- the bar -------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal():
    stream = Terminal()
    file = Download("a.gz", ("",), 2_000_000, ("",))
    bar = module.watcher(stream, False)(file, "https://example.org/a.gz")
    assert stream.getvalue().splitlines()[0] == "downloading a.gz (2 MB) from example.org"
    bar.total = 1_000_000
    bar.update(400_000)
    task = bar.progress.tasks[0]
    assert (task.total, task.completed, bar.total) == (1_000_000, 400_000, 1_000_000)
    bar.reset()
    bar.update(1_000_000)
    assert task.finished
    bar.close()
    bar.close()
    assert module.watcher(stream, True) is None
    assert module.watcher(io.StringIO(), False)(file, "https://example.org/a.gz") is None
