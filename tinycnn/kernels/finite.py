"""Whether numbers are finite."""

from __future__ import annotations

from ..backend import Array, array_module
from .cuda import twin


@twin("clip")
def all_finite(x: Array) -> Array:
    """Return, where ``x`` lives, whether no element of it is infinite or not a number."""
    return array_module(x).isfinite(x).all()
