"""Safetensors files: read as views of the mapped file, written array by array.

The format: the length of the header (8 bytes, little-endian), the header (JSON: type, shape and place of every array,
and a text metadata), the arrays' bytes.  The library ``safetensors`` makes sure that a file is well formed: no places
that leave the file, overlap or leave gaps, no sizes that do not fit shapes.  It reads and writes all at once, though,
which takes the memory of another copy or two; so places are looked up here, and the bytes go their way in pieces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array, to_numpy
from ..files import write_chunks
from .mapped import CheckpointError, MappedFile, PathLike, Weights, pieces
from .numbers import TYPES, decode

LONGEST_HEADER = 32 << 20
"""Bytes.  A header of real weights has some 100 for each array; JSON takes ten times its own length in memory."""
CODES = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "C64": "complex64"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"},
    **{"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"},
}
"""The format's names of types -> PyTorch's."""
WRITTEN = {TYPES[name].stored.newbyteorder("="): code for code, name in CODES.items() if TYPES[name].convert is None}
WRITTEN |= {np.dtype(bool): "BOOL"}
"""NumPy's types -> the format's names."""
ORDER = ("U64", "I64", "F64", "C64", "F32", "U32", "I32", "F16", "U16", "I16", "I8", "U8", "BOOL")
"""In which types are written, the widest first, so that all are aligned: the library's own order."""


# ---- reading -----------------------------------------------------------------------------------------------


def read_tensors(path: PathLike) -> Weights:
    """Map a safetensors file; ``extra`` is its metadata, text by text.

    Raises:
        CheckpointError: the file is missing, damaged, truncated, no safetensors file, or of a type of numbers unknown.
    """
    file = MappedFile(path)
    size, rest = int.from_bytes(file.bytes[:8], "little"), len(file.bytes) - 8
    if rest < 0 or rest < size <= LONGEST_HEADER:
        raise _broken(path, True, "its header is longer than the file")
    if size > LONGEST_HEADER:
        raise _broken(path, False, f"a header of {size:,} bytes is longer than one can be")
    header = _header(path, bytes(file.bytes[8 : 8 + size]))
    metadata = header.pop("__metadata__", None) or {}
    return Weights({name: _view(file, 8 + size, name, entry) for name, entry in header.items()}, file, metadata)


def _broken(path: PathLike, truncated: bool, words: str) -> CheckpointError:
    what = "truncated, or has bytes too many" if truncated else "damaged, or not a safetensors file"
    return CheckpointError(f"{path}: {what} ({words}): take another copy")


def _header(path: PathLike, text: bytes) -> dict[str, Any]:
    """Return the header of a file that the library finds well formed."""
    from safetensors import SafetensorError, safe_open

    try:
        header = json.loads(text.decode(), object_pairs_hook=_distinct)
        with safe_open(path, framework="np"):
            return header
    except SafetensorError as error:
        words = str(error)
        cut = any(sign in words for sign in ("not fully covered", "invalid header length", "too small"))
        raise _broken(path, cut, words.split(": ", 1)[-1]) from None
    except (ValueError, RecursionError) as error:
        raise _broken(path, False, str(error) or "nested too deeply") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): check the path and its permissions") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        raise ValueError("a name appears twice in its header")
    return named


def _view(file: MappedFile, start: int, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in CODES:
        raise CheckpointError(
            f"{file.path}: {name} holds numbers of type {entry['dtype']}, which NumPy lacks: convert it to float32"
        )
    begin, end = entry["data_offsets"]
    try:
        return decode(file.array(start + begin, end - begin), CODES[entry["dtype"]]).reshape(entry["shape"])
    except ValueError as error:  # more axes than NumPy has, or empty in one direction and endless in others
        raise _broken(file.path, False, f"{name}: {error}") from None


# ---- writing -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """An array to be written that is computed on the way, piece by piece along its first axis."""

    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: PathLike, arrays: Mapping[str, Array | Stream], metadata: Mapping[str, str]) -> None:
    """Write arrays, in C order, and metadata to a safetensors file, atomically; equal contents are equal bytes.

    Arrays on a GPU or on other memory than C's are brought over one at a time.

    Raises:
        TypeError: numbers of a type that the format lacks.
        ValueError: a `Stream` that is not what it said.
        OSError: the file cannot be written.
    """
    codes = {name: _code(name, x) for name, x in arrays.items()}
    names = sorted(arrays, key=lambda name: (ORDER.index(codes[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        x = arrays[name]
        header[name] = {"dtype": codes[name], "shape": list(x.shape), "data_offsets": [end, end := end + x.nbytes]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # arrays stay aligned
    parts = (part for name in names for part in parts_of(arrays[name]))
    write_chunks(Path(path), _with_header(text, parts))


def _with_header(text: bytes, parts: Iterator[memoryview]) -> Iterator[bytes | memoryview]:
    yield len(text).to_bytes(8, "little") + text
    yield from parts


def _code(name: str, x: Array) -> str:
    if np.dtype(x.dtype) not in WRITTEN:
        raise TypeError(f"{name} is {x.dtype}, which the file format lacks: convert it with astype")
    return WRITTEN[np.dtype(x.dtype)]


def parts_of(x: Array | Stream) -> Iterator[memoryview]:
    """Yield the bytes of an array in C order, a piece at a time."""
    if isinstance(x, Stream):
        rows = 0
        for piece in x.pieces:
            rows += len(piece)
            if (piece.shape[1:], piece.dtype) != (x.shape[1:], x.dtype):
                raise ValueError(f"a stream of {x.dtype} {x.shape} came to a piece of {piece.dtype} {piece.shape}")
            yield from parts_of(piece)
        if rows != x.shape[0]:
            raise ValueError(f"a stream of {x.dtype} {x.shape} ended after {rows} rows")
        return
    x = to_numpy(x)
    for index in pieces(x):
        part = np.ascontiguousarray(x[index])
        yield part.reshape(-1).view(np.uint8).data
