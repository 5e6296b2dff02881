"""Images from files of many kinds."""

import sys

import numpy as np
import pytest
from PIL import Image

from tinycnn.cli.images import bright_border, read_image
from tinycnn.data import DataError

GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GRAY, GRAY[::-1], 255 - GRAY], axis=2)


def written(tmp_path, picture, name="a.png", **options):
    picture.save(tmp_path / name, **options)
    return tmp_path / name


def test_gray_and_colour(tmp_path):
    gray = written(tmp_path, Image.fromarray(GRAY))
    assert np.array_equal(read_image(gray, 1), GRAY[None, None])
    assert np.array_equal(read_image(gray, 3), np.stack([GRAY] * 3)[None])
    colour = written(tmp_path, Image.fromarray(COLOUR), "c.png")
    assert np.array_equal(read_image(colour, 3), COLOUR.transpose(2, 0, 1)[None])
    # ITU-R 601-2 luma
    luma = COLOUR @ np.array([0.299, 0.587, 0.114])
    assert np.abs(read_image(colour, 1)[0, 0] - luma).max() <= 1


def test_invert(tmp_path):
    path = written(tmp_path, Image.fromarray(GRAY))
    assert np.array_equal(read_image(path, 1, invert=True), 255 - GRAY[None, None])


def test_transparent_is_white(tmp_path):
    rgba = np.dstack([COLOUR, np.full_like(GRAY, 255)])
    rgba[:3, :, 3] = 0
    x = read_image(written(tmp_path, Image.fromarray(rgba)), 3)
    assert (x[0, :, :3] == 255).all()
    assert np.array_equal(x[0, :, 3:], COLOUR.transpose(2, 0, 1)[:, 3:])
    palette = Image.fromarray(np.eye(4, dtype=np.uint8), mode=None).convert("P")
    assert (
        read_image(written(tmp_path, palette, "p.png", transparency=0), 1)[0, 0][~np.eye(4, dtype=bool)] == 255
    ).all()


def test_sixteen_bits(tmp_path):
    path = written(tmp_path, Image.fromarray(GRAY.astype(np.uint16) * 257))
    assert np.array_equal(read_image(path, 1), GRAY[None, None])
    with pytest.raises(DataError, match="32 bits"):
        read_image(written(tmp_path, Image.fromarray(GRAY.astype(np.float32)), "f.tiff"), 1)


def test_orientation_of_cameras(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    path = written(tmp_path, Image.fromarray(GRAY), exif=exif)
    assert np.array_equal(read_image(path, 1)[0, 0], np.rot90(GRAY, -1))


def test_arrays(tmp_path):
    path = tmp_path / "a.npy"
    for x, channels, expected in (
        (GRAY, 1, GRAY[None]),
        (GRAY[None], 1, GRAY[None]),
        (GRAY[:, :, None], 1, GRAY[None]),
        (COLOUR, 3, COLOUR.transpose(2, 0, 1)),
        (COLOUR.transpose(2, 0, 1), 3, COLOUR.transpose(2, 0, 1)),
    ):
        np.save(path, x)
        assert np.array_equal(read_image(path, channels), expected[None])
    np.save(path, GRAY / 255)
    x = read_image(path, 1, invert=True)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[0, 0], 1 - GRAY / 255, atol=1e-7)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 3, 4, 5), np.uint8), "shape"),
        (np.zeros((5, 6, 7), np.uint8), "shape"),
        (np.zeros((0, 4), np.uint8), "shape"),
        (np.zeros((4, 4), np.int64), "must hold uint8, or floats"),
        (np.full((4, 4), 2.0), "from 2.0 to 2.0"),
        (np.full((4, 4), np.nan), "must hold uint8, or floats"),
        (np.array([[None, {}]], object), "not a whole .npy file"),
        (np.full((4, 4), "a"), "must hold uint8, or floats between 0 and 1, got <U1"),
        (np.zeros((4, 4), "u1,f4"), "must hold uint8, or floats between 0 and 1, got"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, x, words):
    np.save(tmp_path / "a.npy", x, allow_pickle=True)
    with pytest.raises(DataError, match=words):
        read_image(tmp_path / "a.npy", 1)


def test_damaged_files(tmp_path):
    path = written(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)))
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=r"a\.png: .*is it whole"):
        read_image(path, 1)
    np.save(tmp_path / "a.npy", GRAY)
    raw = (tmp_path / "a.npy").read_bytes()
    for part in (b"", raw[:30], raw[:-3]):
        (tmp_path / "a.npy").write_bytes(part)
        with pytest.raises(DataError, match=r"not a whole \.npy file"):
            read_image(tmp_path / "a.npy", 1)
    np.savez(tmp_path / "z.npz", GRAY)
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    with pytest.raises(DataError, match="not one array"):
        read_image(tmp_path / "z.npy", 1)


@pytest.mark.parametrize(
    ("written", "damaged"),
    [(b"(6, 8)", b"(6, 8("), (b"'descr'", b"'descr("), (b"(6, 8), }", b"(6, 888888888888), }")],
)
def test_damaged_headers_of_arrays(tmp_path, written, damaged):
    np.save(tmp_path / "a.npy", GRAY)
    raw = (tmp_path / "a.npy").read_bytes()
    assert written in raw
    raw = raw.replace(written, damaged)
    if len(damaged) > len(written):  # the header keeps its length
        raw = raw.replace(b" " * (len(damaged) - len(written)) + b"\n", b"\n")
    (tmp_path / "a.npy").write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.npy: not a whole \.npy file"):
        read_image(tmp_path / "a.npy", 1)


def test_large_pictures(tmp_path, monkeypatch):
    """Pillow warns above its limit (here an error: all warnings are) and refuses at twice as much."""
    path = written(tmp_path, Image.fromarray(GRAY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    assert np.array_equal(read_image(path, 1), GRAY[None, None])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(DataError, match=r"a\.png: too large, over 40 pixels: shrink it$"):
        read_image(path, 1)


def test_without_pillow_the_extra_is_named(tmp_path, monkeypatch):
    path = written(tmp_path, Image.fromarray(GRAY))
    np.save(tmp_path / "a.npy", GRAY)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'tinycnn\[data\]'"):
        read_image(path, 1)
    assert read_image(tmp_path / "a.npy", 1).shape == (1, 1, 6, 8)


def test_bright_border():
    x = np.zeros((1, 1, 5, 5), np.uint8)
    x[0, 0, 1:4, 1:4] = 255
    assert not bright_border(x)
    assert bright_border(255 - x)
    assert bright_border((1 - x / 255).astype(np.float32))
