"""What loaders take images from."""

import io
import itertools
import signal
import threading

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn.data import ArraySource, DataError, Source, open_images, write_images
from tinycnn.data import source as module

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
Y = np.array([0, 1, 0, 2, 1, 1, 0])
TAKEN = np.array([5, 0, 5, 6])


def check(source):
    assert isinstance(source, Source)
    assert (len(source), source.shape, source.labels.dtype) == (7, (3, 4, 5), np.int64)
    assert source.labels.tolist() == Y.tolist()
    x = source.get(TAKEN)
    assert (x.dtype, type(x), x.shape) == (np.uint8, np.ndarray, (4, 3, 4, 5))
    assert is_channels_last(x)
    for image, i in zip(x, TAKEN, strict=True):
        assert image.tolist() == X[i].tolist()
    x[...] = 0  # the caller's own
    assert source.get(TAKEN[:1]).tolist() == X[5:6].tolist()
    assert source.get(np.array([], np.int64)).shape == (0, 3, 4, 5)


@pytest.mark.parametrize("order", ["channels last", "contiguous", "backwards"])
def test_arrays_in_memory(order):
    images = {
        "channels last": np.ascontiguousarray(X.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "contiguous": X,
        "backwards": np.ascontiguousarray(X[::-1])[::-1],
    }[order]
    check(ArraySource(images, Y.astype(np.uint8)))


def test_a_mapped_file(tmp_path):
    np.save(tmp_path / "x.npy", X.transpose(0, 2, 3, 1))
    np.save(tmp_path / "y.npy", Y)
    source = open_images(tmp_path / "x.npy", str(tmp_path / "y.npy"))
    check(source)
    assert isinstance(source._images, np.memmap), "not read into memory"


def test_a_mapped_file_of_grey_images(tmp_path):
    np.save(tmp_path / "x.npy", X[:, 1])
    np.save(tmp_path / "y.npy", Y)
    source = open_images(tmp_path / "x.npy", tmp_path / "y.npy")
    assert source.shape == (1, 4, 5)
    assert source.get(TAKEN)[:, 0].tolist() == X[TAKEN, 1].tolist()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (X.astype(np.float32), Y, r"must be uint8 \(N, C, H, W\), got float32"),
        (X[0], Y, r"got uint8 \(3, 4, 5\)"),
        (X, Y[:-1], r"7 images need as many integer labels, got int64 \(6,\)"),
        (X, Y[:, None], r"got int64 \(7, 1\)"),
        (X, Y * 1.0, "got float64"),
    ],
)
def test_arrays_that_do_not_fit(images, labels, message):
    with pytest.raises(ValueError, match=message):
        ArraySource(images, labels)


NHWC = X.transpose(0, 2, 3, 1)


def files(tmp_path, images=NHWC, labels=Y):
    paths = tmp_path / "x.npy", tmp_path / "y.npy"
    for path, array in zip(paths, (images, labels), strict=True):
        np.save(path, array)
    return paths


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (NHWC.astype(np.int16), Y, r"x\.npy: images must be uint8 .*, got int16"),
        (X[0, 0], Y, r"x\.npy: .*got uint8 \(4, 5\)"),
        (NHWC, Y[:5], r"y\.npy: 7 images in .*x\.npy need as many integer labels, got int64 \(5,\)"),
        (NHWC, Y / 2, r"y\.npy: .*got float64"),
    ],
)
def test_files_that_do_not_fit(tmp_path, images, labels, message):
    with pytest.raises(DataError, match=message):
        open_images(*files(tmp_path, images, labels))


def test_files_that_are_missing_truncated_or_something_else(tmp_path):
    x, y = files(tmp_path)
    with pytest.raises(DataError, match=r"none: cannot be read \(No such file"):
        open_images(tmp_path / "none", y)
    whole = x.read_bytes()
    for raw in (whole[:-1], whole[:100], whole[:4], b"", b"<html>", b"cos\nsystem\n(S'true'\ntR."):
        x.write_bytes(raw)
        with pytest.raises(DataError, match=r"x\.npy: (not a whole \.npy file|cannot be read)"):
            open_images(x, y)
    x.write_bytes(whole)
    np.savez(tmp_path / "z.npz", a=Y)
    with pytest.raises(DataError, match=r"z\.npz: several arrays"):
        open_images(x, tmp_path / "z.npz")
    np.save(tmp_path / "o.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"o\.npy: not a whole"):
        open_images(x, tmp_path / "o.npy")


def test_no_damaged_header_is_a_surprise(tmp_path):
    """NumPy reads it as Python; whatever that says of it, the file is named."""
    x, y = files(tmp_path)
    whole, refused = x.read_bytes(), set()
    for at, byte in itertools.product(range(128), b"\0({[:'\\9"):
        x.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
        try:
            open_images(x, y)
        except DataError as error:
            refused.add((at, str(x) in str(error)))
    assert len(refused) > 60
    assert all(named for _, named in refused)


@pytest.mark.parametrize("chunk", [1, 130, 1 << 20])
def test_any_source_becomes_a_mapped_file(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    write_images(ArraySource(X, Y), tmp_path / "x.npy")
    assert np.load(tmp_path / "x.npy").tolist() == X.transpose(0, 2, 3, 1).tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    raw = io.BytesIO()
    np.save(raw, np.ascontiguousarray(X.transpose(0, 2, 3, 1)))
    assert (tmp_path / "x.npy").read_bytes() == raw.getvalue()


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system limits no files")
def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path):
    """And not the end of the process, as of one that writes to a mapped file."""
    import resource

    (tmp_path / "x.npy").write_bytes(b"old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
        with pytest.raises(OSError, match=r"too large.*/x\.npy'$"):
            write_images(ArraySource(X, Y), tmp_path / "x.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / "x.npy").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


def test_an_image_that_cannot_be_read_leaves_the_old_file(tmp_path):
    class Broken(ArraySource):
        def get(self, indices):
            if 5 in indices:
                raise DataError("five.jpg: damaged")
            return super().get(indices)

    (tmp_path / "x.npy").write_bytes(b"old")
    with pytest.raises(DataError, match=r"five\.jpg"):
        write_images(Broken(X, Y), tmp_path / "x.npy")
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]
    assert (tmp_path / "x.npy").read_bytes() == b"old"


def test_threads_may_share_a_source(tmp_path):
    source, wrong = open_images(*files(tmp_path)), []

    def take(seed):
        for indices in np.random.default_rng(seed).integers(0, 7, (200, 3)):
            if not np.array_equal(source.get(indices), X[indices]):
                wrong.append(indices)

    threads = [threading.Thread(target=take, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
