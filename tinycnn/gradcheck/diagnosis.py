"""From a wrong gradient to its likely cause.

Mistakes in a backward leave fingerprints.  Here each is a comparison between the analytic gradient a and the
numeric one n: a is a multiple of n, a is n transposed, a − n is constant over the batch, …  They are tried from the
most specific to the least, and the first that fits is reported.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np

CLOSE = 1e-5


def likely_cause(
    a: np.ndarray,
    n: np.ndarray,
    sizes: Mapping[str, int],
    jacobians: tuple[np.ndarray, np.ndarray] | None = None,
    x: np.ndarray | None = None,
) -> str:
    """Return in words why ``a`` differs from ``n``.

    Args:
        a: analytic gradient.
        n: numeric gradient, nan where it is not known.
        sizes: numbers that a gradient may be off by, "batch size N" → 4.
        jacobians: analytic and numeric, (entries of the tensor, outputs), where they were computed.
        x: the input, when the gradient is its own.
    """
    if not np.isfinite(a).all():
        return "the gradient holds nan or inf"
    if not a.any():
        return "no gradient arrives: a term, or the whole computation, is missing (or it is never written to grad)"
    known = np.isfinite(n)
    if not known.any():
        return "the numeric gradient is known nowhere"
    causes = itertools.chain(
        _nearly_right(a, n),
        _factor(a[known], n[known], sizes),
        _rearranged(a, n),
        _contributions(jacobians),
        _per_slice_factor(a, n),
        _constant_error(a, n),
        _affine_error(a, n, x),
        _somewhere(a, n),
    )
    return next(causes)


def _close(p: np.ndarray, q: np.ndarray) -> bool:
    """Whether p equals q wherever q is known, and q is not all zero there."""
    known = np.isfinite(q)
    scale = np.abs(q[known]).max(initial=0)
    return bool(scale > 0 and np.abs(p[known] - q[known]).max() <= CLOSE * scale)


def _nearly_right(a: np.ndarray, n: np.ndarray) -> Iterator[str]:
    """A = n, to a few digits."""
    if _close(a, n):
        yield "slightly off: a term too small to see, an epsilon left out, or a float32 step in between?"


def _factor(a: np.ndarray, n: np.ndarray, sizes: Mapping[str, int]) -> Iterator[str]:
    """A = c·n."""
    if not n.any():
        return
    c = float(a @ n / (n @ n))
    if c == 0 or not _close(a / c, n):
        return
    if np.isclose(c, -1, rtol=CLOSE):
        yield "sign: the gradient is the negative of the right one"
        return
    sign = " and of the wrong sign" if c < 0 else ""
    c = abs(c)
    times = [name for name, size in sizes.items() if size > 1 and np.isclose(c, size, rtol=CLOSE)]
    parts = [name for name, size in sizes.items() if size > 1 and np.isclose(c, 1 / size, rtol=CLOSE)]
    if times:
        yield f"off by a factor of {c:.6g}{sign}, the {' or the '.join(times)}: a sum where a mean belongs?"
    elif parts:
        yield f"off by a factor of 1/{1 / c:.6g}{sign}, the {' or the '.join(parts)}: mean taken twice?"
    else:
        yield f"off by a factor of {c:.6g}{sign} everywhere: a scale left out or applied twice (dropout's 1/(1 − p)?)"


def _rearranged(a: np.ndarray, n: np.ndarray) -> Iterator[str]:
    """The entries of a are those of n in other places."""
    if n.ndim == 2 and _close(a.reshape(a.shape[::-1]).T, n):
        yield "transposed: rows and columns have changed places"
    for i, j in itertools.combinations(range(n.ndim), 2):
        if n.shape[i] == n.shape[j] > 1 and _close(a.swapaxes(i, j), n):
            yield f"transposed: axes {i} and {j} have changed places"
    if n.ndim > 1 and _close(a[..., ::-1, ::-1], n):
        yield "flipped in space: the kernel is turned by 180°, convolution where cross-correlation belongs, or back"
    for axis in range(n.ndim):
        if _close(np.flip(a, axis), n):
            yield f"reversed along axis {axis}"
    for axis, shift in itertools.product(range(n.ndim), (1, -1, 2, -2, 3, -3)):
        if 2 * abs(shift) <= n.shape[axis]:
            inner = [slice(None)] * n.ndim
            inner[axis] = slice(max(-shift, 0), n.shape[axis] - max(shift, 0))
            if _close(np.roll(a, -shift, axis)[tuple(inner)], n[tuple(inner)]):
                yield f"shifted by {shift} along axis {axis}: padding cut off the wrong side, or an offset forgotten?"
    if np.isfinite(n).all() and n.size > 2 and _close(np.sort(a, axis=None), np.sort(n, axis=None)):
        yield "the right numbers in the wrong places: check index arithmetic (stride, dilation, order of a reshape)"


def _contributions(jacobians: tuple[np.ndarray, np.ndarray] | None) -> Iterator[str]:
    """Each entry of the Jacobian is right, or one of the two is zero."""
    if jacobians is None:
        return
    a, n = jacobians
    known = np.isfinite(n)
    small = CLOSE * np.abs(n[known]).max(initial=0)
    a, n = a[known], n[known]
    wrong = np.abs(a - n) > small
    if wrong.any() and (np.abs(a[wrong]) <= small).all():
        yield (
            f"{wrong.sum()} of {(np.abs(n) > small).sum()} contributions are missing, the others right: "
            "overlapping ones overwritten (= where += belongs), or dropped"
        )
    elif wrong.any() and (np.abs(n[wrong]) <= small).all():
        yield f"{wrong.sum()} contributions too many, the others right: a mask or a winner's index is ignored"


def _per_slice_factor(a: np.ndarray, n: np.ndarray) -> Iterator[str]:
    """A = c·n with another c for each index of one axis."""
    for axis in range(n.ndim):
        rest = tuple(k for k in range(n.ndim) if k != axis)
        if n.shape[axis] > 1 and n.size > n.shape[axis]:
            known_n = np.where(np.isfinite(n), n, 0)
            known_a = np.where(np.isfinite(n), a, 0)
            c = (known_a * known_n).sum(rest, keepdims=True) / np.maximum((known_n**2).sum(rest, keepdims=True), 1e-300)
            if _close(known_a, c * known_n):
                yield f"off by a factor that depends on axis {axis} alone: a scale (gamma, a weight) is missing"


def _constant_error(a: np.ndarray, n: np.ndarray) -> Iterator[str]:
    """A − n does not change along some axes."""
    e = a - n
    if not np.isfinite(e).all():
        return
    for count in range(n.ndim, 0, -1):
        for axes in itertools.combinations(range(n.ndim), count):
            if all(n.shape[k] > 1 for k in axes) and _close(np.broadcast_to(e.mean(axes, keepdims=True), e.shape), e):
                yield f"the error is the same all along axes {axes}: a mean or sum over them is missing or too much"


def _affine_error(a: np.ndarray, n: np.ndarray, x: np.ndarray | None) -> Iterator[str]:
    """A − n is, for each channel, a + b·x: what a forgotten path through mean or variance leaves."""
    if x is None or x.ndim < 2 or not np.isfinite(n).all():
        return
    for axis, what in ((1, "channel"), (0, "item")):
        # (N, C, H, W) -> (C, N·H·W)
        e, rows = (np.moveaxis(v, axis, 0).reshape(x.shape[axis], -1) for v in (a - n, x))
        if rows.shape[1] < 4:
            continue
        centred = rows - rows.mean(1, keepdims=True)
        slope = (centred * e).sum(1, keepdims=True) / np.maximum((centred**2).sum(1, keepdims=True), 1e-300)
        if _close(e.mean(1, keepdims=True) + slope * centred, e):
            yield f"for each {what} the error is a + b·x: the path through its mean or its variance is missing"


def _somewhere(a: np.ndarray, n: np.ndarray) -> Iterator[str]:
    """How much of it is wrong."""
    known = np.isfinite(n)
    scale = max(np.abs(n[known]).max(), np.abs(a[known]).max())
    wrong = known & (np.abs(a - n) > CLOSE * scale)
    if wrong.sum() < known.sum():
        low, high = (tuple(int(i) for i in f(np.argwhere(wrong), axis=0)) for f in (np.min, np.max))
        yield f"wrong in {wrong.sum()} of {known.sum()} entries, between {low} and {high}: a border or a special case?"
    yield "wrong in every entry, with no pattern known here: check the formula itself"
