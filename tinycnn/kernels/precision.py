"""How products are taken on a GPU: exactly, or on tensor cores.

============  ======================================================================================================
``float32``   float32 arrays are multiplied in float32 (the default)
``tf32``      tensor cores multiply float32 arrays: factors are rounded to 11 significant bits, sums stay float32
============  ======================================================================================================

float64 arrays are always multiplied in float64, and on a CPU everything in its own type.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

PRECISIONS = ("float32", "tf32")

_precision = "float32"


def get_precision() -> str:
    """Return the precision in force."""
    return _precision


def set_precision(name: str) -> None:
    """Let products be taken in the precision ``name`` from now on, in the whole process.

    Raises:
        ValueError: there is no such precision.
    """
    global _precision
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}: choose one of {', '.join(PRECISIONS)}")
    _precision = name


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Let products be taken in the precision ``name`` within the block."""
    before = _precision
    set_precision(name)
    try:
        yield
    finally:
        set_precision(before)
