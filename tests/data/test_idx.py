import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinycnn.data import DataError, read_idx
from tinycnn.data.idx import parse_idx

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(x: np.ndarray) -> bytes:
    """The format, written as its description reads: one value at a time."""
    letter = {"uint8": "B", "int8": "b", "int16": "h", "int32": "i", "float32": "f", "float64": "d"}[x.dtype.name]
    header = bytes([0, 0, CODES[x.dtype.name], x.ndim]) + b"".join(struct.pack(">i", n) for n in x.shape)
    return header + b"".join(struct.pack(">" + letter, value) for value in x.ravel().tolist())


IMAGES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
RAW = idx_bytes(IMAGES)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    x=st.sampled_from(sorted(CODES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    ),
    zipped=st.booleans(),
)
def test_every_type_and_shape_comes_back(x, zipped):
    raw = idx_bytes(x)
    y = parse_idx(gzip.compress(raw) if zipped else raw, "file")
    assert y.dtype == x.dtype
    assert y.dtype.isnative
    np.testing.assert_array_equal(y, x)


def test_a_known_file_byte_by_byte(tmp_path):
    raw = bytes.fromhex("00 00 0B 02  00 00 00 02  00 00 00 03  0001 0002 0003  FFFF 0100 8000".replace(" ", ""))
    (tmp_path / "f").write_bytes(raw)
    assert read_idx(tmp_path / "f").tolist() == [[1, 2, 3], [-1, 256, -32768]]


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_content_says_whether_it_is_gzipped_not_the_name(tmp_path, name, zipped):
    (tmp_path / name).write_bytes(gzip.compress(RAW) if zipped else RAW)
    x = read_idx(str(tmp_path / name))
    np.testing.assert_array_equal(x, IMAGES)
    x[0] = 0  # the caller's own


def refusal(tmp_path, raw: bytes) -> str:
    path = tmp_path / "t10k-images"
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "download" in message
    return message.removeprefix(f"{path}: ")


def test_truncated_anywhere(tmp_path):
    for n in range(len(RAW)):
        message = refusal(tmp_path, RAW[:n])
        assert ("truncated" in message) == (n >= 4), message
    assert "(2, 3, 4) of uint8, announces 24 bytes of values and 23 follow" in refusal(tmp_path, RAW[:-1])


def test_longer_than_announced(tmp_path):
    assert "longer than it should be" in refusal(tmp_path, RAW + b"\0")


def test_sizes_too_large_for_any_file(tmp_path):
    message = refusal(tmp_path, b"\0\0\x08\x03" + b"\xff" * 12 + b"\0" * 100)
    assert "truncated" in message


def test_gzip_truncated_anywhere(tmp_path):
    zipped = gzip.compress(RAW)
    for n in range(2, len(zipped)):
        message = refusal(tmp_path, zipped[:n])
        assert "truncated" in message or "damaged" in message, message


@pytest.mark.parametrize("place", [-1, -5, -9, 3, 12])
def test_gzip_damaged(tmp_path, place):
    """In its length (-1), CRC (-5), data (-9 and 12) and flags (3)."""
    zipped = bytearray(gzip.compress(RAW))
    zipped[place] ^= 0xFF
    assert "damaged" in refusal(tmp_path, bytes(zipped)) or place == 3


def test_gzip_with_something_after_it(tmp_path):
    assert "damaged" in refusal(tmp_path, gzip.compress(RAW) + b"<html>")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<!DOCTYPE html>",
        b"\x89PNG\r\n\x1a\n",
        b"\x93NUMPY\x01\x00",
        b"\0\0\x07\x03" + RAW[4:],
        b"\0\0\x08\x00\x05",
        b"\0\x01" + RAW[2:],
        gzip.compress(b"text", mtime=0),
    ],
)
def test_foreign_files(tmp_path, raw):
    message = refusal(tmp_path, raw)
    assert "not an IDX file: it starts with" in message
    assert "00 00 08 03" in message


def test_missing(tmp_path):
    with pytest.raises(DataError, match="gone: cannot be read"):
        read_idx(tmp_path / "gone")


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    head=st.sampled_from([b"", b"\0\0", b"\0\0\x08\x01", b"\0\0\x08\x03", RAW[:8], RAW, b"\x1f\x8b\x08"]),
    tail=st.binary(max_size=64),
)
def test_any_bytes_are_an_array_or_refused(head, tail):
    try:
        x = parse_idx(head + tail, "f")
    except DataError:
        return
    assert x.nbytes == len(head + tail) - 4 - 4 * x.ndim


@settings(derandomize=True, deadline=None, max_examples=100)
@given(place=st.integers(0, len(RAW) - 1), value=st.integers(0, 255))
def test_one_byte_of_the_file_changed(place, value):
    raw = RAW[:place] + bytes([value]) + RAW[place + 1 :]
    try:
        x = parse_idx(raw, "f")
    except DataError:
        assert place < 16, "a wrong header is refused"
    else:
        assert place >= 16 or (x.shape, x.dtype) in [((2, 3, 4), np.uint8), ((2, 3, 4), np.int8)] or raw == RAW


def test_more_dimensions_than_an_array_can_have():
    for D in (33, 65, 255):
        with pytest.raises(DataError, match=rf"^f: an array of {D} dimensions: not an IDX file of images or labels"):
            parse_idx(bytes([0, 0, 8, D]) + b"\0\0\0\1" * D + b"x", "f")
