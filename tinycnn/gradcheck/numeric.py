"""Derivatives by finite differences, to nearly all digits, and away from kinks.

For a smooth φ, the central difference is wrong by even powers of its step::

    D(h) = (φ(h) − φ(−h)) / 2h = φ' + c₁h² + c₂h⁴ + …

so two of them cancel the first error term, (4·D(h/2) − D(h))/3, two of these the second, and so on:
Richardson's extrapolation.  Rounding, about ε·|φ|/h, is smallest for the largest h.  `extrapolate` builds the
whole triangle from h, h/2, h/4, … and returns the entry whose neighbours agree best (Ridders 1982).

A **kink** (ReLU at 0, a maximum changing hands) makes all this meaningless, and betrays itself in three ways:
the layer says that its choices differ (``branches()``); the differences at h, h/2, h/4 do not converge; or the
slopes to the left and to the right differ by as much at h/16 as at h.  Then the step is made smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

EPS = float(np.finfo(np.float64).eps)
LEVELS = 5
"""Steps h, h/2, …: four halvings."""
SHRINK = 8.0
"""How much smaller the next step is when one crossed a kink."""
SMALLEST = 2.0**-27
"""No step is smaller: beyond, rounding would pass for a derivative."""
SLOPE = 1.5
"""A Taylor remainder that falls more slowly than h^1.5 belongs to a wrong derivative (1), not to a right one (2)."""
ALIKE = 1e-6
"""Numbers nearer to each other, or to 0, than this cannot be told apart by any step."""

Line: TypeAlias = Callable[[float], tuple[float, bool]]
"""t ↦ (φ(t) − φ(0), whether the layer chose as at 0)."""


def gapped(shape: int | tuple[int, ...], rng: np.random.Generator, spread: float = 2.0) -> np.ndarray:
    """Return an input without ties: random order, evenly spaced, and nowhere near 0.

    Args:
        shape: of the array, with n elements.
        rng: decides who gets which value.
        spread: values lie between ±spread; neighbours are 2·spread/n apart, the nearest to 0 half of that.

    >>> np.sort(gapped(4, np.random.default_rng(0)))
    array([-1.5, -0.5,  0.5,  1.5])
    """
    n = math.prod(shape) if isinstance(shape, tuple) else shape
    values = (np.arange(n) - n // 2 + 0.5) * (2 * spread / max(n, 1))
    return rng.permutation(values).reshape(shape)


def away_from_zero(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return random signs times U(0.5, 1.5): no component too small to show a mistake."""
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


def tie_keeping(value: np.ndarray, rng: np.random.Generator, hold_zeros: bool) -> np.ndarray:
    """Return a direction whose components are equal wherever those of ``value`` are, and 0 where they are 0.

    (Equal up to `ALIKE`; zeros only with ``hold_zeros``.)  Moving along it, ties stay ties: a maximum among equals has
    a derivative along it, though it has no gradient, and every sound way of sharing the gradient agrees with that.
    """
    distinct, which = np.unique(np.round(value / ALIKE), return_inverse=True)
    u = away_from_zero(distinct.shape, rng) * ((distinct != 0) | (not hold_zeros))
    return u[which].reshape(value.shape)


def extrapolate(differences: Sequence[float]) -> tuple[float, float]:
    """Return (derivative, estimated error) from central differences at h, h/2, h/4, …

    >>> value, error = extrapolate([math.sin(h) / h for h in (0.4, 0.2, 0.1, 0.05)])
    >>> abs(value - 1) < 1e-10, abs(math.sin(0.05) / 0.05 - 1) > 1e-4
    (True, True)
    """
    best, error = differences[-1], math.inf
    row = [differences[0]]
    for difference in differences[1:]:
        new = [difference]
        for j, previous in enumerate(row, 1):
            new.append(new[-1] + (new[-1] - previous) / (4**j - 1))
            change = max(abs(new[j] - new[j - 1]), abs(new[j] - previous))
            if change < error:
                best, error = new[j], change
        row = new
    return best, error


@dataclass
class Estimate:
    """A directional derivative φ'(0).

    Attributes:
        value, error: the derivative and how well it is known.
        h: the largest step used.
        deltas, others: φ(h/2ᵏ) − φ(0) and φ(−h/2ᵏ) − φ(0) for k = 0, 1, …
        kinks: steps given up because they crossed a kink.
        converged: whether the error is as small as was asked for.
    """

    value: float = math.nan
    error: float = math.inf
    h: float = math.nan
    deltas: tuple[float, ...] = ()
    others: tuple[float, ...] = ()
    kinks: int = 0
    converged: bool = False


def derivative(line: Line, h: float, tolerance: Callable[[float, float], float]) -> Estimate:
    """Return φ'(0), with steps from ``h`` downwards until no kink lies within and the estimate converges.

    Args:
        line: φ.
        h: first step to try.
        tolerance: (value, step) ↦ the error allowed.
    """
    best = Estimate()
    kinks = 0
    while True:
        estimate = _at_step(line, h)
        if estimate is None or _is_kinked(estimate, tolerance):
            kinks += 1
        elif estimate.error < best.error:
            best = estimate
            if best.error <= tolerance(best.value, h):
                best.converged = True
                break
        if h / SHRINK < SMALLEST:
            break
        h /= SHRINK
    best.kinks = kinks
    return best


def _at_step(line: Line, h: float) -> Estimate | None:
    """The estimate from h, h/2, …, or None where a choice differs from that at 0."""
    pairs = []
    for k in range(LEVELS):
        (plus, same_plus), (minus, same_minus) = line(h / 2**k), line(-h / 2**k)
        if not (same_plus and same_minus):
            return None
        pairs.append((plus, minus))
    value, error = extrapolate([(plus - minus) / (2 * h / 2**k) for k, (plus, minus) in enumerate(pairs)])
    deltas, others = zip(*pairs, strict=True)
    return Estimate(value, error, h, deltas, others)


def _is_kinked(estimate: Estimate, tolerance: Callable[[float, float], float]) -> bool:
    """Whether the slopes on both sides of 0 differ by a jump, which does not shrink with the step."""
    steps = [estimate.h / 2**k for k in range(LEVELS)]
    jumps = [abs(a + b) / h for a, b, h in zip(estimate.deltas, estimate.others, steps, strict=True)]
    return jumps[-1] > max(jumps[0] / 4, 10 * tolerance(estimate.value, steps[-1]))


def taylor_slope(line: Line, estimate: Estimate, analytic: float, noise: float) -> float | None:
    """Return the order of the Taylor remainder |φ(h) − φ(0) − h·φ'| in h: 2 or more when φ' is right, 1 when not.

    No tolerance decides here, only how the remainder falls over four halvings.  Where it falls too slowly, smaller
    steps are asked too: of the two causes, a large h (a third derivative, a kink just within) and a wrong φ', only the
    second remains.

    Args:
        line: φ.
        estimate: holds φ at h, h/2, ….
        analytic: φ' as the layer claims.
        noise: rounding in φ; remainders near it tell nothing.

    Returns:
        None when the remainder is lost in rounding, as it is for linear layers.
    """
    deltas, h = estimate.deltas, estimate.h
    slope = _order(deltas, h, analytic, noise)
    for _ in range(3):
        if slope is None or slope > SLOPE:
            break
        h /= SHRINK
        deltas = tuple(line(h / 2**k)[0] for k in range(LEVELS))
        slope = _order(deltas, h, analytic, noise)
    return slope


def _order(deltas: Sequence[float], h: float, analytic: float, noise: float) -> float | None:
    """The median slope over all pairs of steps (Theil–Sen): a remainder may change its sign among them."""
    steps = [h / 2**k for k in range(len(deltas))]
    remainders = [abs(delta - step * analytic) for delta, step in zip(deltas, steps, strict=True)]
    points = [(math.log2(t), math.log2(r)) for t, r in zip(steps, remainders, strict=True) if r > 100 * noise]
    if len(points) < 3:
        return None
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(points) for b in points[i + 1 :]]
    return float(np.median(slopes))
