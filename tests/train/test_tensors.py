"""Safetensors files, held to the library's reading and writing."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tinycnn.train.mapped import CheckpointError
from tinycnn.train.tensors import LONGEST_HEADER, WRITTEN, Stream, read_tensors, write_tensors


def some_arrays():
    rng = np.random.default_rng(0)
    arrays = {f"x_{dtype.name}": rng.integers(0, 2, (2, 3)).astype(dtype) for dtype in WRITTEN}
    return arrays | {
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 4), np.float32),
        "channels last": rng.standard_normal((2, 5, 4, 3)).astype(np.float32).transpose(0, 3, 1, 2),
        "reversed": np.arange(5)[::-1],
    }


def test_the_library_reads_what_is_written(tmp_path):
    arrays = some_arrays()
    write_tensors(tmp_path / "f", arrays, {"ü": "b", "a": "c"})
    found = safetensors.numpy.load_file(tmp_path / "f")
    assert found.keys() == arrays.keys()
    for name, x in arrays.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)
    with safetensors.safe_open(tmp_path / "f", "np") as file:
        assert file.metadata() == {"ü": "b", "a": "c"}


def test_the_file_is_the_librarys_but_for_the_order_of_its_metadata(tmp_path):
    arrays = {name: np.array(x, order="C") for name, x in some_arrays().items()}
    write_tensors(tmp_path / "f", arrays, {"only": "one"})
    assert (tmp_path / "f").read_bytes() == safetensors.numpy.save(arrays, metadata={"only": "one"})


def test_what_the_library_writes_is_read(tmp_path):
    arrays = {name: np.array(x, order="C") for name, x in some_arrays().items()}
    safetensors.numpy.save_file(arrays, tmp_path / "f", metadata={"a": "b"})
    found = read_tensors(tmp_path / "f")
    assert found.extra == {"a": "b"}
    assert found.keys() == arrays.keys()
    for name, x in arrays.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)


def test_numbers_that_numpy_lacks(tmp_path):
    import torch

    x = torch.tensor([[0.5, -3.0], [1e10, 7.0]])
    kinds = ["bfloat16", "float8_e4m3fn", "float8_e5m2"]
    save_file({kind: x.clamp(-100, 100).to(getattr(torch, kind)) for kind in kinds}, tmp_path / "f")
    found = read_tensors(tmp_path / "f")
    for kind in kinds:
        expected = x.clamp(-100, 100).to(getattr(torch, kind)).float().numpy()
        assert found[kind].dtype == np.float32
        np.testing.assert_array_equal(found[kind], expected)


def test_numbers_that_the_format_lacks(tmp_path):
    for dtype in (np.complex128, ml_dtypes.bfloat16, object):
        with pytest.raises(TypeError, match="the file format lacks"):
            write_tensors(tmp_path / "f", {"x": np.zeros(3, dtype)}, {})
    assert not list(tmp_path.iterdir())


def file_of(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


BAD = {
    "empty": b"",
    "no header": b"\1\0\0",
    "header longer than the file": struct.pack("<Q", 1000) + b"{}",
    "header longer than can be": struct.pack("<Q", LONGEST_HEADER + 1) + b"{" * 100,
    "header of 2⁶³ bytes": struct.pack("<Q", 1 << 63) + b"{}",
    "no JSON": file_of(b"{]"),
    "JSON that is too deep": file_of(b"[" * 100_000),
    "a list": file_of([1, 2]),
    "names twice": file_of(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "a type there is not": file_of({"a": entry("F31")}, bytes(8)),
    "negative offsets": file_of({"a": entry(offsets=(-8, 0))}, bytes(8)),
    "offsets the wrong way": file_of({"a": entry(offsets=(8, 0))}, bytes(8)),
    "offsets behind the end": file_of({"a": entry(offsets=(8, 16))}, bytes(8)),
    "offsets that are huge": file_of({"a": entry(offsets=(0, 1 << 63), shape=(1 << 61,))}, bytes(8)),
    "offsets that are no numbers": file_of({"a": entry(offsets=("0", "8"))}, bytes(8)),
    "offsets that overlap": file_of({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "a shape that does not fit": file_of({"a": entry(shape=(3,))}, bytes(8)),
    "a shape that overflows": file_of({"a": entry(shape=(1 << 32, 1 << 32))}, bytes(8)),
    "a negative shape": file_of({"a": entry(shape=(-1, -2))}, bytes(8)),
    "no numbers, and endless": file_of({"a": entry(shape=(0, 1 << 62, 8), offsets=(0, 0))}),
    "more axes than NumPy has": file_of({"a": entry(shape=(1,) * 65 + (2,))}, bytes(8)),
    "a gap": file_of({"a": entry(offsets=(4, 12))}, bytes(12)),
    "metadata that is no text": file_of({"__metadata__": {"a": 1}}),
    "bytes too many": file_of({"a": entry()}, bytes(9)),
    "bytes too few": file_of({"a": entry()}, bytes(7)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_have_one_kind_of_error(name, tmp_path):
    (tmp_path / "bad").write_bytes(BAD[name])
    with pytest.raises(CheckpointError, match=r"bad: .*: (take another copy|convert it to float32)$") as caught:
        read_tensors(tmp_path / "bad")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400


@given(data=st.data())
def test_shapes_of_all_kinds_go_out_and_in(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "shapes.safetensors"
    shapes = data.draw(st.dictionaries(st.text(max_size=5), st.lists(st.integers(0, 4), max_size=5), max_size=4))
    shapes.pop("__metadata__", None)
    rng = np.random.default_rng(1)
    arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    write_tensors(path, arrays, {})
    found = read_tensors(path)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], x) and found[name].shape == x.shape for name, x in arrays.items())


def test_an_array_may_be_computed_while_it_is_written(tmp_path):
    path, x = tmp_path / "x.safetensors", np.arange(30, dtype=np.float32).reshape(10, 3)
    write_tensors(path, {"x": Stream(x.shape, x.dtype, (x[i : i + 4] for i in range(0, 10, 4))), "y": x[0]}, {})
    found = read_tensors(path)
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["y"], x[0])


@pytest.mark.parametrize(
    ("pieces", "message"),
    [
        ([np.zeros((4, 3), np.float32)], "ended after 4 rows"),
        ([np.zeros((6, 3), np.float32)], "ended after 6 rows"),
        ([np.zeros((5, 2), np.float32)], r"came to a piece of float32 \(5, 2\)"),
        ([np.zeros((5, 3))], "came to a piece of float64"),
        ([], "ended after 0 rows"),
    ],
)
def test_a_stream_that_is_not_what_it_said_leaves_no_file(tmp_path, pieces, message):
    with pytest.raises(ValueError, match=rf"^a stream of float32 \(5, 3\) {message}"):
        write_tensors(tmp_path / "x.safetensors", {"x": Stream((5, 3), np.dtype("float32"), pieces)}, {})
    assert not list(tmp_path.iterdir())
