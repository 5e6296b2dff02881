"""Are the results equal?  Asserted before anything is timed, by two questions.

**Is it the same function?**  Ours in float64 against PyTorch's in float64: the errors of all arrays are at most `SAME`.

**Is float32 as good as it can be?**  Two correct float32 programs differ, for sums in another order round differently.
So ours and PyTorch's are both measured against PyTorch's float64 result,

    error = ‖a − a64‖ / ‖a64‖   for each array a,

and the largest error of ours may be at most `FACTOR` times the largest of PyTorch's (in the memory format where that
is larger), or `FLOOR`: some 80 units in the last place, more than the order of a layer's sums makes, less than any
mistake.  The factor leaves room for luck, and for Winograd's transforms, whose error is some four times that of a
plain sum.

**Gradients of networks** jump: where the input of a ReLU is all but zero, two programs may disagree about its sign,
and one such ReLU in a late layer moves the gradient of an early one by a few thousandths; who has how many is chance.
There the floor is `FLIPS`.  It is strict enough for what is left to ask: float64 has shown that the function is the
same, the continuous outputs are held to `FLOOR`, and every layer's own gradients too (``layers``).

A few arrays are zero but for rounding: the gradient of a bias before a batch normalisation, say.  An array's error is
therefore taken relative to no less than `SMALL` times the norm of all arrays of its kind together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np

SAME, FACTOR, FLOOR, FLIPS, SMALL = 1e-8, 8.0, 1e-5, 3e-2, 1e-4

Arrays = Mapping[str, np.ndarray]


class Disagreement(AssertionError):
    """Ours and theirs computed different things."""


def errors(found: Arrays, exact: Arrays) -> dict[str, float]:
    """Return each array's error (module docstring).

    Raises:
        Disagreement: names or shapes differ, or a value is not finite.
    """
    if set(found) != set(exact):
        raise Disagreement(f"names differ: {sorted(set(found) ^ set(exact))}")
    norms = {name: _norm(a) for name, a in exact.items()}
    least = SMALL * math.hypot(*norms.values())
    result = {}
    for name, a in exact.items():
        if np.shape(found[name]) != np.shape(a):
            raise Disagreement(f"{name}: shapes differ, {np.shape(found[name])} and {np.shape(a)}")
        distance = _norm(np.asarray(found[name], np.float64) - a)
        result[name] = distance / max(norms[name], least) if distance else 0.0
        if not math.isfinite(result[name]):
            raise Disagreement(f"{name}: not finite")
    return result


def _norm(a: np.ndarray) -> float:
    """Return ‖a‖, without BLAS, whose threads would go on spinning into what is timed next."""
    return math.sqrt(np.square(a, dtype=np.float64).sum())


def check_same(ours: Arrays, exact: Arrays, what: str) -> float:
    """Make sure that ours, in float64, is PyTorch's in float64; return the largest error.

    Raises:
        Disagreement: it is not.
    """
    name, error = _worst(errors(ours, exact))
    if error > SAME:
        raise Disagreement(f"{what}: in float64, {name} is off by {error:.1e}, {SAME:.0e} allowed")
    return error


def check_close(
    ours: Arrays, theirs: Iterable[Arrays], exact: Arrays, what: str, floor: float = FLOOR
) -> tuple[float, float]:
    """Make sure that ours is as near to the exact arrays as float32 can be expected to come.

    Args:
        ours: float32 results, by name.
        theirs: PyTorch's, in each memory format.
        exact: PyTorch's in float64.
        what: said in the error.
        floor: an error that is always allowed.

    Returns:
        The largest error of ours, and of theirs.

    Raises:
        Disagreement: it is not.
    """
    name, mine = _worst(errors(ours, exact))
    yours = max(_worst(errors(arrays, exact))[1] for arrays in theirs)
    allowed = max(floor, FACTOR * yours)
    if mine > allowed:
        raise Disagreement(f"{what}: {name} is off by {mine:.1e}, PyTorch by {yours:.1e}: {allowed:.1e} allowed")
    return mine, yours


def _worst(found: Mapping[str, float]) -> tuple[str, float]:
    return max(found.items(), key=lambda item: item[1])
