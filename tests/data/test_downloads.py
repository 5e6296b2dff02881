"""Downloads, from a server on this machine that behaves as badly as servers do."""

import errno
import gzip
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time

import pytest

from tinycnn.data import DataError, downloads
from tinycnn.data.downloads import download, fetch, folder_of, offline
from tinycnn.data.files import Download, MissingError, Origin, Part

CONTENT = bytes(range(256)) * 1200
"""307,200 bytes: several chunks, of which whole ones are kept."""


def digest(raw):
    return hashlib.md5(raw).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """What it sends, and what it was asked for.

    Attributes:
        files: by path.
        break_after: for each request to come, how many bytes are sent before the connection is cut.
        ranges: it takes transfers up again.
        log: (path, Range header) of every request.
        accepted: encodings, in the last one.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.break_after, self.ranges, self.encoding, self.log, self.accepted = {}, [], True, None, [], None
        self.wait = threading.Event()

    def url(self, path="/file.bin"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.log.append((self.path, wanted))
        server.accepted = self.headers["Accept-Encoding"]
        raw = server.files.get(self.path)
        if raw is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if start >= len(raw):
            return self.send_error(416)
        self.send_response(206 if wanted and server.ranges else 200)
        if wanted and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(raw) - 1}/{len(raw)}")
        if server.encoding:
            self.send_header("Content-Encoding", server.encoding)
        self.send_header("Content-Length", str(len(raw) - start))
        self.end_headers()
        n = server.break_after.pop(0) if server.break_after else None
        if n == "hang":
            self.wfile.write(raw[start : (start + len(raw)) // 2])
            self.wfile.flush()
            server.wait.wait(30)
            return
        self.wfile.write(raw[start : len(raw) if n is None else start + n])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv("TINYCNN_OFFLINE", raising=False)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        running.files["/file.bin"] = CONTENT
        yield running
        running.wait.set()
        running.shutdown()
        thread.join()


def wanted(*urls, raw=CONTENT):
    return Download("file.bin", (digest(raw),), len(raw), urls)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- the file comes ----------------------------------------------------------------------------------------


def test_the_right_file(server, tmp_path):
    folder = tmp_path / "new" / "folder"
    assert fetch(wanted(server.url()), folder) == folder / "file.bin"
    assert (folder / "file.bin").read_bytes() == CONTENT
    assert names(folder) == ["file.bin"]
    fetch(wanted(server.url()), folder)
    assert server.log == [("/file.bin", None)], "what is there is not asked for again"
    assert server.accepted == "identity", "offsets count the file's bytes"


def test_the_next_address_is_tried(server, tmp_path):
    fetch(wanted(server.url("/gone"), server.url()), tmp_path)
    assert [path for path, _ in server.log] == ["/gone", "/file.bin"]
    assert names(tmp_path) == ["file.bin"]


def test_a_bar_sees_every_byte(server, tmp_path):
    class Bar:
        total, seen, closed = 0, 0, 0

        def update(self, n):
            self.seen += n

        def reset(self):
            self.seen = 0

        def close(self):
            self.closed += 1

    bar, told = Bar(), []
    file = wanted(server.url("/gone"), server.url())
    fetch(file, tmp_path, lambda *what: told.append(what) or bar)
    assert told == [(file, server.url("/gone")), (file, server.url())]
    assert (bar.total, bar.seen) == (len(CONTENT), len(CONTENT))
    assert bar.closed >= 2, "also after an error"


def test_a_server_that_unzips(server, tmp_path):
    """Some serve .gz files as compressed pages, and the client unzips them: the content has a checksum too."""
    server.files["/file.bin"], server.encoding = gzip.compress(CONTENT), "gzip"
    file = Download("file.bin", (digest(gzip.compress(CONTENT)), digest(CONTENT)), 1, (server.url(),))
    assert fetch(file, tmp_path).read_bytes() == CONTENT


# ---- interrupted transfers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_a_transfer_that_breaks_is_taken_up_where_it_stopped(server, tmp_path, ranges):
    server.break_after, server.ranges = [100_000, 70_000], ranges
    if ranges:
        fetch(wanted(server.url()), tmp_path)
        assert server.log == [("/file.bin", None), ("/file.bin", "bytes=98304-"), ("/file.bin", "bytes=163840-")]
    else:  # the second piece is shorter than the first, so there is no progress
        with pytest.raises(DataError, match=r"the connection broke off; .* has 65,536 of 307,200 bytes"):
            fetch(wanted(server.url()), tmp_path)
        assert names(tmp_path) == ["file.bin.part"]
        fetch(wanted(server.url()), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


def test_a_later_process_takes_it_up(server, tmp_path):
    server.break_after = [50_000] + [0] * 9
    with pytest.raises(DataError, match=r"file\.bin: not downloaded: http.*: the connection broke off; .*has 49,152"):
        fetch(wanted(server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin.part"], "nothing half-written under the final name"
    assert (tmp_path / "file.bin.part").read_bytes() == CONTENT[:49_152]
    server.break_after.clear()
    server.log.clear()
    fetch(wanted(server.url()), tmp_path)
    assert server.log == [("/file.bin", "bytes=49152-")]
    assert (tmp_path / "file.bin").read_bytes() == CONTENT


def test_a_process_killed_in_the_middle(server, tmp_path):
    server.break_after = ["hang"]
    code = (
        "from tinycnn.data.downloads import fetch; from tinycnn.data.files import Download; from pathlib import Path;"
        f"fetch(Download('file.bin', ({digest(CONTENT)!r},), 1, ({server.url()!r},)), Path({str(tmp_path)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    part = tmp_path / "file.bin.part"
    for _ in range(400):
        if part.exists() and part.stat().st_size > 60_000:
            break
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert names(tmp_path) == ["file.bin.part"]
    server.wait.set()
    server.log.clear()
    fetch(wanted(server.url()), tmp_path)
    assert server.log[0][1].startswith("bytes=")
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("stale", [b"of another file", CONTENT[:-1] + b"?", CONTENT + b"and more", CONTENT])
def test_what_an_earlier_transfer_left_is_not_trusted(server, tmp_path, stale):
    (tmp_path / "file.bin.part").write_bytes(stale)
    fetch(wanted(server.url()), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert names(tmp_path) == ["file.bin"]
    assert (stale == CONTENT) == (server.log == [])


def test_two_at_once(server, tmp_path):
    errors = []

    def one():
        try:
            fetch(wanted(server.url()), tmp_path)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(server.log) == 1, "the others waited"
    assert names(tmp_path) == ["file.bin"]


# ---- something else comes ----------------------------------------------------------------------------------


def test_a_wrong_file_is_kept_aside_and_named(server, tmp_path):
    server.files["/file.bin"] = b"<html>Log in to this network</html>"
    with pytest.raises(DataError) as caught:
        fetch(wanted(server.url()), tmp_path)
    words = str(caught.value)
    assert words.startswith(f"file.bin: not downloaded: {server.url()}: sent 35 bytes with MD5 ")
    assert f"published is {digest(CONTENT)} with 307,200: kept as {tmp_path / 'file.bin.bad'}" in words
    assert "\n" not in words
    assert names(tmp_path) == ["file.bin.bad"]
    assert (tmp_path / "file.bin.bad").read_bytes() == b"<html>Log in to this network</html>"
    server.files["/file.bin"] = CONTENT
    fetch(wanted(server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin", "file.bin.bad"]


def test_a_wrong_file_at_the_first_address(server, tmp_path):
    server.files["/other"] = b"other"
    fetch(wanted(server.url("/other"), server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin", "file.bin.bad"]


def test_a_damaged_file_that_is_there_already(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    fetch(wanted(server.url()), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == CONTENT
    assert (tmp_path / "file.bin.bad").read_bytes() == CONTENT[:-1]


def test_nothing_there(server, tmp_path):
    with pytest.raises(DataError, match=r"/gone: the server answers 404; http.*/lost: the server answers 404: check"):
        fetch(wanted(server.url("/gone"), server.url("/lost")), tmp_path)
    assert names(tmp_path) == []


def test_no_route(tmp_path):
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/x: no connection: check the connection, or put"):
        fetch(wanted("http://127.0.0.1:9/x"), tmp_path)
    assert names(tmp_path) == []


def test_no_answer(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.2)
    server.break_after = ["hang"] * 9
    with pytest.raises(DataError, match=r"no answer within 0\.2 s; .*part has [0-9,]+ of 307,200 bytes"):
        fetch(wanted(server.url()), tmp_path)
    assert names(tmp_path) == ["file.bin.part"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(server, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError):
        fetch(wanted(server.url()), tmp_path)


def test_a_full_disk(server, tmp_path, monkeypatch):
    def write(self, url, file, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", write)
    with pytest.raises(OSError, match=r"No space left on device: '.*file\.bin\.part'"):
        fetch(wanted(server.url()), tmp_path)


def test_without_pooch(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(DataError, match=r"^file\.bin: downloading needs pooch: pip install 'tinycnn\[data\]', or get"):
        fetch(wanted(server.url()), tmp_path / "new")
    assert names(tmp_path) == []


# ---- what a dataset lacks ----------------------------------------------------------------------------------


def origin(server):
    """Two files, of which one may also lie about unzipped."""
    server.files |= {"/a.gz": b"a zipped", "/b": b"b"}
    a = Download("a.gz", (digest(b"a zipped"), digest(b"a")), 8, (server.url("/a.gz"),))
    b = Download("b", (digest(b"b"),), 1, (server.url("/b"),))
    return Origin("toy", "https://example.org", ("toy", "Toy/raw", ""), (Part(("a", "a.gz"), a), Part(("b",), b)))


def test_only_what_lacks_is_downloaded(server, tmp_path):
    (tmp_path / "Toy" / "raw").mkdir(parents=True)
    (tmp_path / "Toy" / "raw" / "a").write_bytes(b"a")
    assert download(origin(server), tmp_path) == [tmp_path / "toy" / "b"]
    assert download(origin(server), tmp_path) == []
    assert [path for path, _ in server.log] == ["/b"]


def test_into_a_new_folder(server, tmp_path):
    assert download(origin(server), tmp_path / "new") == [tmp_path / "new/toy/a.gz", tmp_path / "new/toy/b"]


def test_into_the_cache(server, tmp_path, monkeypatch):
    monkeypatch.delenv("TINYCNN_DATA", raising=False)
    monkeypatch.setenv("TINYCNN_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "data" / "toy"
    assert folder_of(origin(server)) == folder
    assert download(origin(server)) == [folder / "a.gz", folder / "b"]
    assert download(origin(server)) == []
    (folder / "b").write_bytes(b"rotten")
    assert download(origin(server)) == [folder / "b"]
    assert names(folder) == ["a.gz", "b", "b.bad"]


def test_offline(server, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYCNN_OFFLINE", "1")
    with pytest.raises(MissingError, match=r"^toy: a\.gz, b: not downloaded, since \$TINYCNN_OFFLINE is set: unset it"):
        download(origin(server), tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        download(origin(server), tmp_path / "new")
    assert server.log == []
    assert names(tmp_path) == []
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    assert download(origin(server), tmp_path) == [], "nothing lacks"


@pytest.mark.parametrize(
    ("value", "meant"), [(None, False), ("", False), ("0", False), ("no", False), ("1", True), ("true", True)]
)
def test_what_offline_is(monkeypatch, value, meant):
    monkeypatch.delenv("TINYCNN_OFFLINE") if value is None else monkeypatch.setenv("TINYCNN_OFFLINE", value)
    assert offline() is meant
