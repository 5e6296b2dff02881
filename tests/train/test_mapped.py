"""Files as arrays."""

import os

import numpy as np
import pytest

from tinycnn.train.mapped import CheckpointError, MappedFile, Weights, pieces


def test_arrays_are_the_bytes_and_cannot_be_written_to(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(np.arange(10, dtype="<i4").tobytes())
    file = MappedFile(path)
    x = file.array(4, 3, "<i4")
    np.testing.assert_array_equal(x, [1, 2, 3])
    assert not x.flags.writeable
    file.release()
    np.testing.assert_array_equal(x, [1, 2, 3])
    assert file.array(3, 2, "<u2").tolist() == [256, 0]  # wherever it begins
    with pytest.raises(ValueError, match="buffer"):
        file.array(36, 2, "<i4")


def test_a_file_may_be_replaced_while_its_arrays_are_used(tmp_path):
    (tmp_path / "f").write_bytes(b"old")
    file = MappedFile(tmp_path / "f")
    (tmp_path / "g").write_bytes(b"new")
    os.replace(tmp_path / "g", tmp_path / "f")
    file.release()
    assert bytes(file.bytes) == b"old"


def test_empty(tmp_path):
    (tmp_path / "f").write_bytes(b"")
    file = MappedFile(tmp_path / "f")
    file.release()
    assert len(file.bytes) == len(file.array(0, 0)) == 0


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("nothing", "there is no such file"), (".", "not a file"), ("pipe", "not a file")]:
        with pytest.raises(CheckpointError, match=words):
            MappedFile(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        MappedFile("a\0b")


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (1,), (1000, 7), (5, 1000)])
def test_pieces_cover_an_array_and_are_small(shape):
    x = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    parts = [np.atleast_1d(x[index]) for index in pieces(x, 4000)]
    assert all(part.nbytes <= 4000 for part in parts)
    np.testing.assert_array_equal(np.concatenate(parts or [x]), np.atleast_1d(x))


def test_weights_keep_their_extras_under_other_names(tmp_path):
    (tmp_path / "f").write_bytes(b"abcd")
    file = MappedFile(tmp_path / "f")
    weights = Weights({"a": file.array(0, 4)}, file, {"epoch": 3})
    assert weights.renamed({"b": weights["a"]}).extra == {"epoch": 3}
    weights.release()
    assert bytes(weights["a"]) == b"abcd"
