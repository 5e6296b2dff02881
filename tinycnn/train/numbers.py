"""How files write numbers, and what NumPy makes of them.

NumPy knows most types that tensors are saved in.  Those it lacks become float32, which holds every one of their
values exactly: bfloat16, which is the upper half of a float32, and the five kinds of 8 bits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NumberType:
    """A type of number in a file.

    Attributes:
        stored: what its bytes are read as, little-endian.
        convert: makes an array that NumPy can compute with of what was read; None where that is one already.
        parts: how many of ``stored`` make one number.
    """

    stored: np.dtype
    convert: Callable[[np.ndarray], np.ndarray] | None = None
    parts: int = 1

    @property
    def itemsize(self) -> int:
        """Bytes of a number in a file."""
        return self.stored.itemsize * self.parts


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 whose upper halves are ``bits``."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _from_complex32(halves: np.ndarray) -> np.ndarray:
    return halves.astype(np.float32).view(np.complex64)


def float8_table(exponent_bits: int, bias: int, not_numbers: Callable[[int], float | None]) -> np.ndarray:
    """Return the values of the 256 patterns sign | exponent e | mantissa m of 8 bits, as float32.

    ±(1 + m/M)·2^(e − bias) with M the number of mantissas; ±m/M·2^(1 − bias) where e = 0.

    Args:
        exponent_bits: how many e has; m has the rest.
        bias: of the exponent.
        not_numbers: pattern → infinity or NaN, or None for an ordinary one.
    """
    M = 1 << (7 - exponent_bits)
    values = []
    for pattern in range(256):
        sign = -1.0 if pattern & 128 else 1.0
        e, m = divmod(pattern & 127, M)
        value = sign * ((e > 0) + m / M) * 2.0 ** (max(e, 1) - bias)
        special = not_numbers(pattern)
        values.append(value if special is None else special)
    return np.array(values, np.float32)


def _e5m2_specials(pattern: int) -> float | None:
    if pattern & 127 < 0x7C:
        return None
    return math.nan if pattern & 3 else math.copysign(math.inf, -1 if pattern & 128 else 1)


def _only(*patterns: int) -> Callable[[int], float | None]:
    return lambda pattern: math.nan if pattern in patterns else None


def _lookup(table: np.ndarray) -> NumberType:
    return NumberType(np.dtype("u1"), lambda bits: table[bits])


_POWERS_OF_2 = np.array([*(2.0 ** (e - 127) for e in range(255)), math.nan], np.float32)
TYPES: dict[str, NumberType] = {
    **{n: NumberType(np.dtype(n).newbyteorder("<")) for n in ("float64", "float32", "float16")},
    **{n: NumberType(np.dtype(n).newbyteorder("<")) for n in ("int64", "int32", "int16", "int8")},
    **{n: NumberType(np.dtype(n).newbyteorder("<")) for n in ("uint64", "uint32", "uint16", "uint8")},
    **{n: NumberType(np.dtype(n).newbyteorder("<")) for n in ("complex128", "complex64")},
    "bool": NumberType(np.dtype("u1"), lambda bits: bits != 0),
    "bfloat16": NumberType(np.dtype("<u2"), from_bfloat16),
    "complex32": NumberType(np.dtype("<f2"), _from_complex32, parts=2),
    "float8_e4m3fn": _lookup(float8_table(4, 7, _only(0x7F, 0xFF))),
    "float8_e4m3fnuz": _lookup(float8_table(4, 8, _only(0x80))),
    "float8_e5m2": _lookup(float8_table(5, 15, _e5m2_specials)),
    "float8_e5m2fnuz": _lookup(float8_table(5, 16, _only(0x80))),
    "float8_e8m0fnu": _lookup(_POWERS_OF_2),
}
"""By PyTorch's name."""


def decode(raw: np.ndarray, name: str, big_endian: bool = False) -> np.ndarray:
    """Return the numbers of type ``name`` that the bytes ``raw`` (a vector of uint8) say: a view where that can be."""
    kind = TYPES[name]
    x = raw.view(kind.stored.newbyteorder(">") if big_endian else kind.stored)
    if big_endian or sys.byteorder == "big":
        x = x.astype(x.dtype.newbyteorder("="))
    return x if kind.convert is None else kind.convert(x)
