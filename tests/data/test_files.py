from pathlib import Path

import pytest

from tinycnn.data import DataError
from tinycnn.data.files import Source, check_md5, data_directory, find, read_bytes

SOURCE = Source("toy", "https://example.org/toy", ("toy", "Toy/raw", ""))
MD5_OF_HELLO = "5d41402abc4b2a76b9719d911017c592"  # printf hello | md5sum


def test_data_directory_prefers_the_argument_to_the_variable(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "b"))
    assert data_directory(SOURCE, tmp_path / "a") == tmp_path / "a"
    assert data_directory(SOURCE, str(tmp_path / "a")) == tmp_path / "a"
    assert data_directory(SOURCE) == tmp_path / "b"


def test_data_directory_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert data_directory(SOURCE, "~") == tmp_path


@pytest.mark.parametrize("value", [None, ""])
def test_no_data_directory_says_how_to_name_one(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("TINYCNN_DATA", raising=False)
    else:
        monkeypatch.setenv("TINYCNN_DATA", value)
    with pytest.raises(DataError, match=r"^toy: no data directory: .*example\.org/toy.*--data-dir.*\$TINYCNN_DATA$"):
        data_directory(SOURCE)


def test_a_data_directory_that_is_none_says_where_its_name_came_from(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_DATA", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"gone \(\$TINYCNN_DATA\) is not a folder: create it"):
        data_directory(SOURCE)
    with pytest.raises(DataError, match=r"away \(data_dir\) is not a folder"):
        data_directory(SOURCE, tmp_path / "away")


def test_find_tries_folders_in_order_then_names(tmp_path):
    for place in ("z", "toy/b", "Toy/raw/a"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert find(SOURCE, ("a", "b"), tmp_path) == tmp_path / "toy/b"
    assert find(SOURCE, ("a",), tmp_path) == tmp_path / "Toy/raw/a"
    assert find(SOURCE, ("z",), tmp_path) == tmp_path / "z"


def test_find_takes_no_folder_for_a_file(tmp_path):
    (tmp_path / "toy/a").mkdir(parents=True)
    (tmp_path / "a").touch()
    assert find(SOURCE, ("a",), tmp_path) == tmp_path / "a"


def test_find_says_where_it_looked_and_where_to_get_the_file(tmp_path):
    with pytest.raises(DataError) as caught:
        find(SOURCE, ("a", "a.gz"), tmp_path)
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
    check_md5(b"hello", (MD5_OF_HELLO,), "f", SOURCE)
    check_md5(b"hello", ("0" * 32, MD5_OF_HELLO), "f", SOURCE)
    with pytest.raises(
        DataError, match=r"^dir.f: 6 bytes with MD5 .*is damaged or another one; download it again from"
    ):
        check_md5(b"hello!", (MD5_OF_HELLO,), Path("dir/f"), SOURCE)
    with pytest.raises(DataError, match="it is another's; download"):
        check_md5(b"", (MD5_OF_HELLO,), "f", SOURCE, hint="it is another's")
