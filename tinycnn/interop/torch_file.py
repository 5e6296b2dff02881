"""Files that ``torch.save`` writes, read without PyTorch and without running what they say.

==========  ===================================================================================================
since 1.6   a zip archive: ``NAME/data.pkl``, a pickle in which tensors refer to storages by a key; the storages'
            bytes as ``NAME/data/KEY``; ``NAME/byteorder``
before      a stream: four pickles (a magic number, 1001 for the version, what machine it was, the object), a fifth
            with the storages' keys, and for each the number of its elements (8 bytes) and those, little-endian
==========  ===================================================================================================

A tensor is (storage, offset, sizes, strides): several may share a storage, and need not be contiguous.  Each becomes
an array that is such a view too; what NumPy has no numbers for becomes float32 (`tinycnn.train.numbers`).  A view that
leaves its storage is refused.

The pickles are read by `tinycnn.interop.pickles`: `NAMES` has all that one may refer to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..train.mapped import MappedFile
from ..train.numbers import TYPES, decode
from .archive import Member, is_whole, members
from .pickles import LONGEST_NAME, Function, Global, Machine, RefusedError, plain

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
MOST_AXES = 32
MOST_REPEATED = 1 << 28
"""Elements that all tensors may have beside those of the storages: where storages are shared, or a stride is 0."""
MOST_TENSORS = 200_000
LONGEST_PICKLE = 64 << 20

STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16"},
    **{"Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"},
    **{"ComplexDouble": "complex128", "ComplexFloat": "complex64", "ComplexHalf": "complex32", "Untyped": "uint8"},
}
"""What PyTorch calls a storage -> the type of its numbers."""


# ---- what a pickle may refer to ----------------------------------------------------------------------------


@dataclass
class NumpyType:
    """A type of NumPy's, as a pickle makes it."""

    code: str

    def set_state(self, state: Any) -> None:
        """Set the byte order."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise RefusedError("the pickle has a type of numbers that makes no sense")
        self.code = state[1] + self.code


def _numpy_type(code: Any, *_: Any) -> NumpyType:
    if code not in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1"):
        raise RefusedError("the pickle has a number of a type that weights do not need")
    return NumpyType(code)


def _numpy_scalar(kind: Any, raw: Any) -> float | int | bool:
    if not isinstance(kind, NumpyType) or not isinstance(raw, bytes) or len(raw) != np.dtype(kind.code).itemsize:
        raise RefusedError("the pickle has a number that makes no sense")
    return np.frombuffer(raw, kind.code)[0].item()


def _dict(pairs: Any = ()) -> dict[Any, Any]:
    if not isinstance(pairs, dict):
        plain([key for key, _ in pairs])
    return dict(pairs)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, as protocols before 3 write them."""
    if encoding not in ("latin1", "utf-8", "ascii"):
        raise RefusedError("the pickle has bytes that make no sense")
    return text.encode(encoding)


BUILTINS = ("builtins", "__builtin__")
CONTAINERS: dict[str, Any] = {
    "collections.OrderedDict": Function(_dict),
    "collections.Counter": Function(_dict),
    "torch.Size": Function(tuple),
    "torch.device": Function(lambda *parts: ":".join(map(str, plain(parts)))),
    "_codecs.encode": Function(_encode),
    "numpy.dtype": Function(_numpy_type),
    "numpy.core.multiarray.scalar": Function(_numpy_scalar),
    "numpy._core.multiarray.scalar": Function(_numpy_scalar),
    **{f"{m}.set": Function(lambda items=(): set(plain(items))) for m in BUILTINS},
    **{f"{m}.frozenset": Function(lambda items=(): frozenset(plain(items))) for m in BUILTINS},
    **{f"{m}.complex": Function(complex) for m in BUILTINS},
    **{f"{m}.bytes": Function(lambda: b"") for m in BUILTINS},  # a number would ask for as many
    **{f"torch.{name}": Global(name) for name in TYPES},
    **{
        f"{module}.{name}Storage": Global(kind)
        for name, kind in STORAGES.items()
        for module in ("torch", "torch.storage", "torch.cuda")
    },
}


# ---- tensors -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Storage:
    """A stretch of a storage: ``count`` numbers of type ``kind`` from number ``first`` on."""

    key: str
    kind: str
    first: int
    count: int


class Tensors:
    """Makes arrays of what pickles say of tensors.

    Args:
        find: returns the bytes of the storage of a key, given how many there must be.
        big_endian: whether these are.
    """

    def __init__(self, find: Callable[[str, int], np.ndarray], big_endian: bool = False) -> None:
        self.find, self.big_endian = find, big_endian
        self.storages: dict[str, tuple[str, int]] = {}
        self.decoded: dict[tuple[str, str], np.ndarray] = {}
        self.count = self.repeated = 0

    def names(self) -> dict[str, Any]:
        """Return what a pickle may refer to."""
        parameter = Function(lambda data, *_: data)
        return {
            **CONTAINERS,
            "torch._utils._rebuild_tensor": Function(self.tensor),
            "torch._utils._rebuild_tensor_v2": Function(self.tensor),
            "torch._utils._rebuild_tensor_v3": Function(self.typed_tensor),
            "torch._utils._rebuild_parameter": parameter,
            "torch._utils._rebuild_parameter_with_state": parameter,
        }

    def persistent(self, pid: Any) -> Storage:
        """Return the storage that ("storage", type, key, device, numbers[, view]) means."""
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise RefusedError("the pickle refers to an object that is no storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if not isinstance(kind, Global) or not isinstance(key, str) or len(key) > LONGEST_NAME or not _whole(count):
            raise RefusedError("the pickle has a storage that makes no sense")
        if key not in self.storages:
            self.storages[key] = kind.value, count
        if self.storages[key] != (kind.value, count):
            raise RefusedError(f"the pickle says two things of the storage {key!r}")
        if len(pid) == 5 or pid[5] is None:
            return Storage(key, kind.value, 0, count)
        _, first, part = pid[5]
        if not (_whole(first) and _whole(part) and first + part <= count):
            raise RefusedError(f"the pickle has a view that leaves the storage {key!r}")
        return Storage(key, kind.value, first, part)

    def typed_tensor(self, storage: Any, *rest: Any) -> np.ndarray:
        """Return a tensor of a storage of bytes, whose type comes last but for the metadata."""
        offset, size, stride, _, _, kind, *metadata = rest
        if not isinstance(storage, Storage) or not isinstance(kind, Global) or kind.value not in TYPES:
            raise RefusedError("the pickle has a tensor that makes no sense")
        itemsize = TYPES[kind.value].itemsize
        if storage.kind != "uint8" or storage.first or storage.count % itemsize:
            raise RefusedError("the pickle has a tensor that does not fit its storage")
        typed = Storage(storage.key, kind.value, 0, storage.count // itemsize)
        return self.tensor(typed, offset, size, stride, False, None, *metadata)

    def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> np.ndarray:
        """Return the view (offset, sizes, strides) of a storage."""
        if not isinstance(storage, Storage) or not _whole(offset) or not _shape(size) or not _shape(stride):
            raise RefusedError("the pickle has a tensor whose offset, sizes or strides make no sense")
        if len(size) != len(stride) or len(size) > MOST_AXES:
            raise RefusedError("the pickle has a tensor with other strides than sizes, or too many")
        if len(rest) > 2 and isinstance(rest[2], dict) and any(rest[2].values()):
            raise RefusedError("the pickle has a tensor that is to be conjugated or negated: save a copy of it")
        elements = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if elements and last >= storage.count:
            raise RefusedError(f"the pickle has a tensor that leaves its storage {storage.key!r}")
        numbers = self.numbers(storage)
        self.count += 1
        self.repeated += elements
        if self.repeated > MOST_REPEATED or self.count > MOST_TENSORS:
            raise RefusedError("the pickle has tensors larger, or more, than weights can be")
        if not elements:
            return np.empty(size, numbers.dtype)
        start = (storage.first + offset) * numbers.itemsize
        return np.ndarray(size, numbers.dtype, numbers, start, [step * numbers.itemsize for step in stride])

    def numbers(self, storage: Storage) -> np.ndarray:
        """Return all numbers of a storage, a vector."""
        key = storage.key, storage.kind
        if key not in self.decoded:
            count = self.storages[storage.key][1]
            itemsize = TYPES[storage.kind].itemsize
            nbytes = count * TYPES[self.storages[storage.key][0]].itemsize
            raw = self.find(storage.key, nbytes)
            self.repeated -= nbytes // itemsize  # which are there: what a pickle says alone is no leave to repeat
            self.decoded[key] = decode(raw[: nbytes // itemsize * itemsize], storage.kind, self.big_endian)
        return self.decoded[key]


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _shape(value: Any) -> bool:
    return type(value) is tuple and all(map(_whole, value))


# ---- files -------------------------------------------------------------------------------------------------


def read_zip(file: MappedFile) -> Any:
    """Return the object in an archive.

    Raises:
        RefusedError: it is damaged, or holds or wants what weights do not need.
    """
    raw = file.bytes
    found = members(raw)
    root = _root(found)
    written = found.get(f"{root}version")
    checked = written is not None and is_whole(raw, written)  # PyTorch can be told to write no checksums at all

    def member(name: str) -> Member:
        if root + name not in found:
            raise RefusedError(f"the archive lacks {root + name!r}")
        one = found[root + name]
        if not one.stored:
            raise RefusedError(f"the archive's member {one.name!r} is compressed, which torch.save never does")
        if checked and not is_whole(raw, one):
            raise RefusedError(f"the archive is damaged: {one.name!r} does not have its checksum")
        file.release()
        return one

    def storage(key: str, nbytes: int) -> np.ndarray:
        one = member(f"data/{key}")
        if one.size != nbytes:
            raise RefusedError(f"the storage {key!r} should have {nbytes:,} bytes, and has {one.size:,}")
        return file.array(one.start, nbytes)

    order = member("byteorder") if f"{root}byteorder" in found else None
    big = order is not None and bytes(raw[order.start : order.start + min(order.size, 8)]) == b"big"
    tensors = Tensors(storage, big)
    pickle = member("data.pkl")
    if pickle.size > LONGEST_PICKLE:
        raise RefusedError(f"its pickle of {pickle.size:,} bytes is longer than that of weights can be")
    return Machine(raw[pickle.start : pickle.start + pickle.size], tensors.names(), tensors.persistent).run()


def _root(found: Mapping[str, Member]) -> str:
    """Return the folder within an archive."""
    roots = [name.removesuffix("data.pkl") for name in found if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise RefusedError("a zip archive, but not one of torch.save: it has no data.pkl, or several")
    if roots[0] + "constants.pkl" in found:
        raise RefusedError("a TorchScript program: save model.state_dict() with torch.save")
    return roots[0]


def read_stream(file: MappedFile) -> Any:
    """Return the object in a file of before PyTorch 1.6.

    The pickle with the tensors comes before the storages, so it is read twice: once to learn what storages there
    are, and once when they are found.

    Raises:
        RefusedError: it is damaged, or holds or wants what weights do not need.
    """
    raw = file.bytes
    first = Machine(raw[:LONGEST_PICKLE], CONTAINERS)
    if first.run() != MAGIC:
        raise RefusedError("a pickle, but not a file of torch.save")
    position = first.position
    for expected in (VERSION, None):
        head = Machine(raw, CONTAINERS, start=position)
        if head.run() != expected and expected is not None:
            raise RefusedError(f"a file of torch.save, but not of version {expected}")
        position = head.position
    places: dict[str, tuple[int, int]] = {}

    def storage(key: str, nbytes: int) -> np.ndarray:
        return file.array(places[key][0], nbytes)

    body = raw[: position + LONGEST_PICKLE]
    sketch = Tensors(storage)
    names = sketch.names()
    names |= {name: Function(lambda *_: None) for name in names if name.startswith("torch._utils.")}
    machine = Machine(body, names, sketch.persistent, start=position)
    machine.run()
    keys = Machine(raw[: machine.position + LONGEST_PICKLE], {}, start=machine.position)
    places.update(_places(raw, keys.run(), keys.position, sketch.storages))
    tensors = Tensors(storage)
    return Machine(body, tensors.names(), tensors.persistent, start=position).run()


def _places(raw: memoryview, keys: Any, at: int, storages: Mapping[str, tuple[str, int]]) -> Iterator[Any]:
    """Yield (key, (where its bytes begin, how many)) of every storage in a stream."""
    named = {key for key in keys if isinstance(key, str)} if isinstance(keys, list) else set()
    if named != {*storages} or len(keys) != len(storages):
        raise RefusedError("its list of storages does not fit its tensors")
    for key in keys:
        kind, count = storages[key]
        nbytes = count * TYPES[kind].itemsize
        if int.from_bytes(raw[at : at + 8], "little") != count or at + 8 + nbytes > len(raw):
            raise RefusedError(f"truncated or damaged: its storage {key!r} is not there whole")
        yield key, (at + 8, nbytes)
        at += 8 + nbytes
