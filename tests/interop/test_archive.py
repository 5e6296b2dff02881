"""Zip archives of stored members, held to the standard library's."""

import io
import struct
import warnings
import zipfile

import pytest

from tinycnn.interop.archive import is_whole, members
from tinycnn.interop.pickles import RefusedError

CONTENT = {"a/data.pkl": b"pickle", "a/empty": b"", "a/ü": b"x" * 1000}


def archive(content=CONTENT, method=zipfile.ZIP_STORED, comment=b"", zip64=False):
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", method) as z:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in content.items() if isinstance(content, dict) else content:
            info = zipfile.ZipInfo(name)
            info.compress_type = method
            with z.open(info, "w", force_zip64=zip64) as member:
                member.write(data)
        z.comment = comment
    return file.getvalue()


@pytest.mark.parametrize("zip64", [False, True])
@pytest.mark.parametrize("comment", [b"", b"a comment"])
def test_members_are_where_the_standard_library_finds_them(comment, zip64):
    raw = memoryview(archive(comment=comment, zip64=zip64))
    found = members(raw)
    assert found.keys() == CONTENT.keys()
    for name, data in CONTENT.items():
        one = found[name]
        assert bytes(raw[one.start : one.start + one.size]) == data
        assert is_whole(raw, one)


def with_zip64_directory(raw):
    """The same archive, its directory told in 64 bits, as PyTorch writes large ones."""
    at = raw.rfind(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HII", raw, at + 10)
    directory = bytearray(raw[start : start + size])
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, start)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, start + size, 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return raw[:start] + bytes(directory) + end64 + locator + end


def with_zip64_entry(name, data):
    """An archive of one member whose sizes and place are told in 64 bits."""
    import zlib

    crc, wide = zlib.crc32(data), 0xFFFFFFFF
    header = struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, len(data), len(data), len(name), 0)
    body = header + name + data
    extra = struct.pack("<HHHHQQQ", 0x7777, 0, 1, 24, len(data), len(data), 0)
    entry = struct.pack(
        "<4s6H3I5H2I",
        *(b"PK\x01\x02", 45, 45, 0, 0, 0, 0, crc, wide, wide, len(name), len(extra), 0, 0, 0, 0, wide),
    )
    size = len(entry) + len(name) + len(extra)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 1, 1, size, len(body), 0)
    return body + entry + name + extra + end


def test_directories_in_64_bits():
    raw = with_zip64_directory(archive())
    assert members(memoryview(raw)).keys() == CONTENT.keys()
    assert zipfile.ZipFile(io.BytesIO(raw)).namelist() == list(CONTENT)
    raw = with_zip64_entry(b"a/data.pkl", b"content")
    assert zipfile.ZipFile(io.BytesIO(raw)).read("a/data.pkl") == b"content"
    (one,) = members(memoryview(raw)).values()
    assert raw[one.start : one.start + one.size] == b"content"


def changed(raw, where, form, value):
    raw = bytearray(raw)
    struct.pack_into(form, raw, where, value)
    return bytes(raw)


RAW = archive()
DIRECTORY, END = RAW.find(b"PK\x01\x02"), RAW.rfind(b"PK\x05\x06")
BAD = {
    "no directory": (RAW[:-30], "truncated"),
    "bytes behind the end": (RAW + b"x", "bytes behind its end"),
    "empty": (b"PK\x03\x04", "truncated"),
    "both sizes are a lie": (changed(RAW, DIRECTORY + 20, "<II".replace("II", "Q"), (1 << 30) * (1 + 2**32)), "behind"),
    "two of one name": (archive([("a", b"1"), ("a", b"2")]), "two members 'a'"),
    "overlapping": (changed(RAW, RAW.find(b"PK\x01\x02", DIRECTORY + 1) + 42, "<I", 0), "not where the directory says"),
    "a place outside": (changed(RAW, DIRECTORY + 42, "<I", 1 << 31), "lies outside"),
    "a place inside of another": (changed(RAW, DIRECTORY + 42, "<I", 3), "not where the directory says"),
    "more members than bytes": (changed(RAW, END + 10, "<H", 0xFFFE), "directory damaged"),
    "a directory outside": (changed(RAW, END + 16, "<I", 1 << 31), "directory damaged"),
    "a name longer than the directory": (changed(RAW, DIRECTORY + 28, "<H", 60_000), "ends too early"),
    "no entries": (changed(RAW, DIRECTORY, "<I", 0), "ends too early"),
}


NOT_STORED = {
    "compressed": archive(method=zipfile.ZIP_DEFLATED),
    "a bomb": archive({"a/data.pkl": bytes(1 << 20)}, zipfile.ZIP_DEFLATED),
    "a size that is a lie": changed(RAW, DIRECTORY + 24, "<I", 1 << 30),
    "encrypted": changed(RAW, DIRECTORY + 8, "<H", 1),
}


@pytest.mark.parametrize("what", NOT_STORED)
def test_what_is_not_stored_as_it_is(what):
    assert not members(memoryview(NOT_STORED[what]))["a/data.pkl"].stored
    assert members(memoryview(RAW))["a/data.pkl"].stored


@pytest.mark.parametrize("what", BAD)
def test_bad_archives_are_refused(what):
    raw, words = BAD[what]
    with pytest.raises(RefusedError, match=words):
        members(memoryview(raw))


def test_members_that_lie_over_each_other_are_refused():
    """The second begins within the first, whose content is its header: each by itself is right."""
    inner = archive({"b": b"data"})
    outer = archive({"a": inner[: inner.find(b"PK\x01\x02")], "b": b"data"})
    directory = outer.find(b"PK\x01\x02", outer.find(b"PK\x01\x02") + 1)
    raw = changed(outer, directory + 42, "<I", 31)
    assert zipfile.ZipFile(io.BytesIO(raw)).getinfo("b").header_offset == 31
    with pytest.raises(RefusedError, match="'b' lies over another one"):
        members(memoryview(raw))


def test_a_changed_member_is_not_whole():
    raw = RAW.replace(b"pickle", b"Pickle")
    found = members(memoryview(raw))
    assert not is_whole(memoryview(raw), found["a/data.pkl"])
    assert is_whole(memoryview(raw), found["a/ü"])
