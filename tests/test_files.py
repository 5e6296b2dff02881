"""Files are there whole or not at all."""

import json
import os
import stat

import pytest

from tinycnn import files


def test_replaces_in_one_step_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")
    files.write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_content_in_pieces_is_read_one_at_a_time(tmp_path):
    path, there = tmp_path / "a.bin", []

    def pieces():
        for piece in (b"one", memoryview(b"two"), b""):
            there.append((tmp_path / ".a.bin.tmp").exists())
            yield piece

    files.write_chunks(path, pieces())
    assert path.read_bytes() == b"onetwo"
    assert there == [True] * 3


def test_failing_half_way_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def pieces():
        yield b"new"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        files.write_chunks(path, pieces())
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_failing_to_replace_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    files.write_bytes(path, b"old")

    def fail(source, target):
        raise OSError("no")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        files.write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    order = []
    sync, replace = files.os.fsync, files.os.replace
    monkeypatch.setattr(files.os, "fsync", lambda fd: (order.append("fsync"), sync(fd)))
    monkeypatch.setattr(files.os, "replace", lambda a, b: (order.append("replace"), replace(a, b)))
    files.write_bytes(tmp_path / "a", b"x")
    assert order[:2] == ["fsync", "replace"]


def test_json(tmp_path):
    files.write_json(tmp_path / "a.json", {"ü": [1, 2.5]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ü": [1, 2.5]}
    files.write_json_lines(tmp_path / "b.jsonl", [{"epoch": 1, "loss": 0.1 + 0.2}, {"epoch": 2}])
    rows = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert rows == [{"epoch": 1, "loss": 0.30000000000000004}, {"epoch": 2}]


def test_an_error_names_the_file_that_was_meant(tmp_path):
    with pytest.raises(OSError, match=r"result.json") as caught:
        files.write_bytes(tmp_path / "missing" / "result.json", b"")
    assert caught.value.filename == str(tmp_path / "missing" / "result.json")
    assert str(caught.value).endswith(f"{str(caught.value.filename)!r}"), "and no other"


def test_an_error_of_the_renaming_names_the_file_alone(tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(13, "Permission denied", source, None, target)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(PermissionError) as caught:
        files.write_bytes(tmp_path / "a", b"new")
    assert str(caught.value) == f"[Errno 13] Permission denied: {str(tmp_path / 'a')!r}"


def test_what_is_no_file_is_left_alone(tmp_path):
    """A rename over /dev/null would take it away from everybody, if root did it."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(OSError, match="no file: name another") as caught:
            files.write_bytes(tmp_path / name, b"new")
        assert caught.value.filename == str(tmp_path / name)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
