from pathlib import Path

import pytest

from tinycnn.data import DataError
from tinycnn.data.files import (
    Download,
    MissingError,
    Origin,
    Part,
    check_md5,
    downloads_folder,
    find,
    md5_of_file,
    read_bytes,
    roots,
    write_whole,
)

ORIGIN = Origin("toy", "https://example.org/toy", ("toy", "Toy/raw", ""))
MD5_OF_HELLO = "5d41402abc4b2a76b9719d911017c592"  # printf hello | md5sum


def test_data_directory_prefers_the_argument_to_the_variable(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "b"))
    assert roots(ORIGIN, tmp_path / "a") == [tmp_path / "a"]
    assert roots(ORIGIN, str(tmp_path / "a")) == [tmp_path / "a"]
    assert roots(ORIGIN) == [tmp_path / "b"]


def test_downloads_are_looked_through_last_and_unless_a_folder_is_named(tmp_path, monkeypatch):
    downloads = tmp_path / "cache" / "data"
    (tmp_path / "b").mkdir()
    downloads.mkdir(parents=True)
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "b"))
    assert downloads_folder() == downloads
    assert roots(ORIGIN) == [tmp_path / "b", downloads]
    assert roots(ORIGIN, tmp_path / "b") == [tmp_path / "b"]
    monkeypatch.delenv("TINYCNN_DATA")
    assert roots(ORIGIN) == [downloads]


def test_the_cache_is_where_the_system_has_caches(tmp_path, monkeypatch):
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("TINYCNN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert downloads_folder() == pooch.os_cache("tinycnn") / "data"


def test_data_directory_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert roots(ORIGIN, "~") == [tmp_path]


@pytest.fixture
def no_downloads(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "no cache"))


@pytest.mark.parametrize("value", [None, ""])
def test_no_data_directory_says_how_to_name_one(monkeypatch, no_downloads, value):
    if value is None:
        monkeypatch.delenv("TINYCNN_DATA", raising=False)
    else:
        monkeypatch.setenv("TINYCNN_DATA", value)
    with pytest.raises(
        DataError,
        match=r"^toy: no data directory, and nothing in .*no cache.data: download it .*--data-dir.*\$TINYCNN_DATA$",
    ):
        roots(ORIGIN)


def test_a_data_directory_that_is_none_says_where_its_name_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone \(\$TINYCNN_DATA\) is not a folder: create it"):
        roots(ORIGIN)
    with pytest.raises(DataError, match=r"away \(data_dir\) is not a folder"):
        roots(ORIGIN, tmp_path / "away")


def test_find_tries_folders_in_order_then_names(tmp_path):
    for place in ("z", "toy/b", "Toy/raw/a"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert find(ORIGIN, ("a", "b"), tmp_path) == tmp_path / "toy/b"
    assert find(ORIGIN, ("a",), tmp_path) == tmp_path / "Toy/raw/a"
    assert find(ORIGIN, ("z",), tmp_path) == tmp_path / "z"


def test_find_takes_no_folder_for_a_file(tmp_path):
    (tmp_path / "toy/a").mkdir(parents=True)
    (tmp_path / "a").touch()
    assert find(ORIGIN, ("a",), tmp_path) == tmp_path / "a"


def test_find_says_where_it_looked_and_where_to_get_the_file(tmp_path):
    with pytest.raises(DataError) as caught:
        find(ORIGIN, ("a", "a.gz"), tmp_path)
    assert str(caught.value) == (
        f"toy: no a or a.gz in {tmp_path} (looked in toy, Toy/raw, .): download it from https://example.org/toy "
        f"into {tmp_path / 'toy'}, or name another folder by data_dir (--data-dir) or $TINYCNN_DATA"
    )


def test_read_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"\0\1")
    assert read_bytes(tmp_path / "a") == b"\0\1"
    with pytest.raises(DataError, match=r"gone: cannot be read .*: check the path"):
        read_bytes(tmp_path / "gone")
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(tmp_path)


def test_check_md5():
    check_md5(b"hello", (MD5_OF_HELLO,), "f", ORIGIN)
    check_md5(b"hello", ("0" * 32, MD5_OF_HELLO), "f", ORIGIN)
    with pytest.raises(
        DataError, match=r"^dir.f: 6 bytes with MD5 .*is damaged or another one; download it again from"
    ):
        check_md5(b"hello!", (MD5_OF_HELLO,), Path("dir/f"), ORIGIN)
    with pytest.raises(DataError, match="it is another's; download"):
        check_md5(b"", (MD5_OF_HELLO,), "f", ORIGIN, hint="it is another's")


def test_a_dataset_that_can_be_downloaded_says_so(tmp_path):
    origin = Origin("toy", "https://example.org", ("toy",), (Part(("a",), Download("a", (MD5_OF_HELLO,), 5, ("u",))),))
    with pytest.raises(
        MissingError, match="run 'tinycnn data download toy' or load it with download=True; or download"
    ):
        find(origin, ("a",), tmp_path)


def test_two_folders_are_both_named(tmp_path, monkeypatch):
    for folder in ("cache/data", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "mine"))
    with pytest.raises(MissingError, match=rf"no a in {tmp_path}.mine or {tmp_path}.cache.data \(looked in toy"):
        find(ORIGIN, ("a",))
    (tmp_path / "cache/data/toy").mkdir()
    (tmp_path / "cache/data/toy/a").touch()
    assert find(ORIGIN, ("a",)) == tmp_path / "cache/data/toy/a"


def test_md5_of_a_file(tmp_path):
    (tmp_path / "f").write_bytes(b"hello")
    assert md5_of_file(tmp_path / "f") == MD5_OF_HELLO


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    write_whole(tmp_path / "new" / "f", b"one")
    write_whole(tmp_path / "new" / "f", b"two")
    assert (tmp_path / "new" / "f").read_bytes() == b"two"
    (tmp_path / "new" / "g").mkdir()
    with pytest.raises(OSError):  # noqa: PT011
        write_whole(tmp_path / "new" / "g", b"over a folder")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["f", "g"]
