"""The rules between forward and backward that no derivative shows: purity, linearity, accumulation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_numpy
from .numeric import away_from_zero
from .report import Finding
from .subject import INPUT, Subject, copy, is_array, same_bits

CLOSE = 1e-10

Gradients = dict[str, Array]


def check_contract(subject: Subject, y: Array, v: Array, rng: np.random.Generator) -> tuple[Gradients, list[Finding]]:
    """Return the gradients for the cotangent ``v``, of every tensor that has a usable one, and the findings."""
    xp = array_module(y)
    w = xp.asarray(away_from_zero(y.shape, rng))
    gradients = subject.backward(v)
    findings = [
        _forward_repeats(subject, y),
        _fits(subject, gradients),
    ]
    usable = {name: g for name, g in gradients.items() if not _misfit(subject, name, g) and not subject.is_frozen(name)}
    findings += [
        _backward_repeats(subject, usable, v, w),
        _is_linear(subject, usable, v, w),
        _zero_gives_zero(subject, usable, xp.zeros_like(v)),
        *_accumulates(subject, usable, v, rng),
    ]
    wrong = ", ".join(sorted(subject.mutated))
    findings.append(Finding("inputs unmutated", not wrong, f"forward or backward has changed {wrong} in place"))
    return usable, findings


def _forward_repeats(subject: Subject, y: Array) -> Finding:
    detail = "two forwards of the same input differ: randomness that cannot be put back (offer random_state())"
    return Finding("forward repeatable", same_bits(subject.forward(), y), detail)


def _misfit(subject: Subject, name: str, g: Any) -> str:
    """Say what is wrong with a gradient as an array; nothing if it is fine."""
    value = subject.values[name]
    if not is_array(g):
        return f"{name} is {type(g).__name__}, expected an array of shape {tuple(value.shape)}"
    if tuple(g.shape) != tuple(value.shape) or g.dtype != value.dtype:
        return f"{name} has {tuple(g.shape)} {g.dtype}, expected {tuple(value.shape)} {value.dtype}"
    return ""


def _fits(subject: Subject, gradients: Gradients) -> Finding:
    problems = [_misfit(subject, name, g) for name, g in gradients.items() if not subject.is_frozen(name)]
    detail = "; ".join(filter(None, problems))
    return Finding("shapes and dtypes", not detail, f"gradient of {detail}")


def _differing(some: Mapping[str, Array], others: Mapping[str, Array]) -> str:
    """Name the gradients whose bits differ."""
    return ", ".join(name for name in some if not is_array(others[name]) or not same_bits(some[name], others[name]))


def _backward_repeats(subject: Subject, gradients: Gradients, v: Array, w: Array) -> Finding:
    wrong = _differing(gradients, subject.backward(v))
    if not wrong:
        wrong = _differing(gradients, subject.backward_after_another(v, w))
    detail = f"{wrong}: other bits the second time: something is left over from the call before (a cache, a buffer?)"
    return Finding("backward repeatable", not wrong, detail)


def _is_linear(subject: Subject, gradients: Gradients, v: Array, w: Array) -> Finding:
    of_w, of_both = subject.backward(w), subject.backward(2 * v - 3 * w)
    largest = max((float(abs(g).max()) for g in gradients.values() if g.size), default=0.0)
    wrong = [
        name
        for name, g in gradients.items()
        # (a bias before a normalisation has the gradient 0, up to rounding of larger numbers)
        if not _equal(to_numpy(of_both[name]), 2 * to_numpy(g) - 3 * to_numpy(of_w[name]), 1e-3 * largest)
    ]
    detail = f"backward(2v − 3w) is not 2·backward(v) − 3·backward(w) for {', '.join(wrong)}"
    return Finding("linear in dy", not wrong, detail)


def _zero_gives_zero(subject: Subject, gradients: Gradients, zero: Array) -> Finding:
    got = subject.backward(zero)
    wrong = ", ".join(name for name in gradients if got[name].any())
    return Finding("zero for dy = 0", not wrong, f"{wrong}: not all zero although dy is")


def _accumulates(subject: Subject, gradients: Gradients, v: Array, rng: np.random.Generator) -> list[Finding]:
    """Parameters' gradients are added to what was there; frozen ones are left alone."""
    start = {
        name: array_module(value).asarray(away_from_zero(value.shape, rng))
        for name, value in subject.values.items()
        if name != INPUT
    }
    after = subject.backward(v, start)
    frozen = ", ".join(n for n in start if subject.is_frozen(n) and not same_bits(after[n], start[n]))
    wrong = []
    for name in start.keys() & gradients.keys():
        g, before, now = (to_numpy(copy(part[name])) for part in (gradients, start, after))
        if not _equal(now, before + g):
            how = "assigned (= where += belongs)" if _equal(now, g) else "neither added nor assigned"
            wrong.append(f"{name} is {how}")
    return [
        Finding("gradients accumulate", not wrong, "; ".join(sorted(wrong))),
        Finding("frozen untouched", not frozen, f"{frozen}: requires_grad is False, yet its grad has changed"),
    ]


def _equal(a: np.ndarray, b: np.ndarray, least_scale: float = 0.0) -> bool:
    scale = max(np.abs(a).max(initial=0), np.abs(b).max(initial=0), least_scale)
    return bool(np.abs(a - b).max(initial=0) <= CLOSE * scale)
