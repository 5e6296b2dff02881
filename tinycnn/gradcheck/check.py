"""The gradient checker: a layer's backward against its own forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_numpy
from .contract import check_contract
from .diagnosis import likely_cause
from .numeric import SHRINK, SLOPE, Estimate, away_from_zero, derivative, taylor_slope, tie_keeping
from .probe import Probe, norm
from .report import Entry, Finding, GradReport
from .subject import INPUT, Subject, is_array

AT_TIES = "right where there is one gradient, wrong at ties: does each of several equals get all of it?"
JACOBIAN_RTOL = 1e-5
"""The Jacobian says where a mistake is; whether there is one, directional derivatives tell more sharply."""
FINE = 2**-15
"""Where kinks are so near that only smaller steps avoid them, the Jacobian costs much and adds little."""
SAMPLE = 256
"""Entries looked at one by one to diagnose a wrong gradient of a large tensor."""


def gradcheck(
    layer: Any,
    x: Array,
    *,
    directions: int = 3,
    rtol: float = 1e-9,
    seed: int = 0,
    step: float = 2**-6,
    jacobian_entries: int = 2000,
    complex_step: bool = False,
) -> GradReport:
    """Check ``layer.backward`` against finite differences of ``layer.forward`` at ``x``.

    Args:
        layer: anything with ``forward(x)`` (or callable) and ``backward(dy)``; its parameters, if it has any, are
            found under ``parameters`` (a method or an attribute; a list or a mapping) and have arrays ``data``
            and ``grad``.  It is left exactly as it was found.
        x: a float64 input.  For layers with kinks `gapped` makes a good one.
        directions: random directions tried for each tensor.
        rtol: relative error allowed for a directional derivative.
        seed: of the cotangent and the directions.
        step: first step of the differences, relative to the tensor's spread where that is above 1.
        jacobian_entries: the full Jacobian is compared too where it has no more entries than this.
        complex_step: take the directional derivatives from Im f(x + i·10⁻¹⁰⁰·u)·10¹⁰⁰ where the layer works
            on complex numbers; for analytic layers that is exact to rounding.

    Returns:
        The report; ``print(report)`` and ``report.ok``.

    Raises:
        TypeError: x is no array, or what is found under ``parameters`` are no parameters.
        ValueError: not float64, not finite, or options out of range.

    >>> class Square:
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * x
    ...     def backward(self, dy):
    ...         return self.x * dy
    >>> report = gradcheck(Square(), np.linspace(1, 2, 6).reshape(2, 3))
    >>> report.ok, report.entries[0].cause[:22]
    (False, 'off by a factor of 1/2')
    """
    _check_arguments(x, directions, rtol, step)
    subject = Subject(layer, x)
    _check_precision(subject)
    rng = np.random.default_rng(seed)
    report = GradReport(_name(layer), tuple(x.shape), (), rtol, directions, seed)
    try:
        probe = Probe(subject, rng)
        _Check(probe, rng, directions, rtol, step, jacobian_entries, complex_step).fill(report)
        return report
    finally:
        subject.snapshot.restore()


def assert_gradients(layer: Any, x: Array, **options: Any) -> GradReport:
    """Call `gradcheck` for use in tests.

    Returns:
        The report, when all is well.

    Raises:
        AssertionError: something is wrong; the message is the report.

    >>> from tinycnn import Linear
    >>> report = assert_gradients(Linear(3, 2, dtype=np.float64), np.arange(6.0).reshape(2, 3))
    >>> [entry.name for entry in report.entries]
    ['x', 'weight', 'bias']
    """
    report = gradcheck(layer, x, **options)
    if not report.ok:
        raise AssertionError(str(report))
    return report


def _check_arguments(x: Array, directions: int, rtol: float, step: float) -> None:
    if not is_array(x):
        raise TypeError(f"gradcheck: x must be an array, got {type(x).__name__}")
    if x.dtype != np.float64:
        raise ValueError(f"gradcheck: x is {x.dtype}; differences need float64: pass x.astype(np.float64)")
    if not np.isfinite(to_numpy(x)).all():
        raise ValueError("gradcheck: x holds nan or inf")
    if directions < 1 or not rtol > 0 or not step > 0:
        raise ValueError(f"gradcheck: directions, rtol and step must be positive, got {directions}, {rtol} and {step}")


def _check_precision(subject: Subject) -> None:
    for name, p in subject.parameters.items():
        if p.data.dtype != np.float64:
            raise ValueError(
                f"gradcheck: parameter {name} is {p.data.dtype}; differences need float64: "
                "convert it, with layer.astype(np.float64) for layers of this package"
            )


@dataclass
class _Check:
    """One run of the checker."""

    probe: Probe
    rng: np.random.Generator
    directions: int
    rtol: float
    step: float
    jacobian_entries: int
    complex_step: bool

    def fill(self, report: GradReport) -> None:
        """Check the contract, then every tensor."""
        subject, y = self.probe.subject, self.probe.y
        report.y_shape = tuple(y.shape)
        if y.dtype != np.float64 or not np.isfinite(to_numpy(y)).all():
            what = f"is {y.dtype}" if y.dtype != np.float64 else "holds nan or inf"
            report.findings = [Finding("forward is float64 and finite", False, f"y {what}, for a finite float64 x")]
            return
        gradients, report.findings = check_contract(subject, y, self.probe.v, self.rng)
        report.entries = [self.entry(name, gradients.get(name)) for name in subject.values]

    def entry(self, name: str, g: Array | None) -> Entry:
        """The verdict on one gradient, None if there is no usable one."""
        entry = Entry(name, tuple(self.probe.subject.values[name].shape))
        if self.probe.subject.is_frozen(name):
            entry.note = "frozen, not checked"
        elif g is None:
            entry.fail("no gradient of the right shape and dtype came back")
        elif not np.isfinite(to_numpy(g)).all():
            entry.fail("the gradient holds nan or inf")
        else:
            step = self.compare_slopes(entry, g)
            self.compare_entries(entry, to_numpy(g), step)
            if entry.ok and not g.any():
                entry.note = entry.note or "the gradient is 0 at this point, which tests little"
        return entry

    # ---- along random directions ---------------------------------------------------------------------------

    def compare_slopes(self, entry: Entry, g: Array) -> float:
        """Compare directional derivatives; return a step at which differences are good."""
        step, slopes = self.step, []
        noise = self.probe.noise(entry.name, g)
        for _ in range(self.directions):
            u, estimate = self._estimate(entry, g, min(self.step, SHRINK * step), noise)
            if not estimate.converged:
                entry.fail(_unconverged(estimate, entry))
                return step
            step = min(step, estimate.h)
            a = float((g * u).sum())
            scale = self._scale(g, a, estimate.value)
            error = abs(a - estimate.value) / scale if scale else 0.0
            entry.error = max(entry.error, error)
            allowed = max(self.rtol, noise / (estimate.h * scale)) if scale else 0.0
            entry.ok = entry.ok and error <= allowed
            if allowed > 10 * self.rtol:
                entry.note = entry.note or f"kinks nearby force steps of {estimate.h:.0e}: known to {allowed:.0e} only"
            line = self.probe.line(entry.name, u)
            slopes.append(taylor_slope(line, estimate, a, noise + estimate.error * estimate.h))
        entry.slope = min((slope for slope in slopes if slope is not None), default=None)
        entry.ok = entry.ok and (entry.slope is None or entry.slope > SLOPE)
        return step

    def _scale(self, g: Array, *values: float) -> float:
        """What errors are relative to: the derivative, what is usual for it, or (is that 0) a little of the output."""
        return max(norm(g), 1e-3 * norm(self.probe.v * self.probe.y), *map(abs, values))

    def _estimate(self, entry: Entry, g: Array, step: float, noise: float) -> tuple[Array, Estimate]:
        """Return a direction and the derivative along it; others are tried where one meets kinks at every step."""

        def tolerance(value: float, h: float) -> float:
            return max(self.rtol * self._scale(g, value), noise / h)

        for u, note in self._directions(entry.name):
            estimate = derivative(self.probe.line(entry.name, u), step, tolerance)
            entry.kinks += estimate.kinks
            if estimate.converged:
                entry.note = entry.note or note
            if estimate.converged or not estimate.kinks:
                break
        if estimate.converged and self.complex_step:
            self._sharpen(entry, u, estimate)
        return u, estimate

    def _directions(self, name: str) -> Iterator[tuple[Array, str]]:
        """Directions of components about 1 (times the tensor's spread, where that is larger), and what to note."""
        values = self.probe.subject.values[name]
        value, xp = to_numpy(values), array_module(values)
        scale = max(1.0, float(value.std())) if value.size else 1.0
        for _ in range(3):
            yield xp.asarray(scale * away_from_zero(value.shape, self.rng)), ""
        for hold_zeros in (False, True):
            u = tie_keeping(value, self.rng, hold_zeros)
            if u.any() and (len(np.unique(u)) < u.size or not u.all()):
                held = f" and hold {(u == 0).sum()} zeros still" if not u.all() else ""
                yield xp.asarray(scale * u), f"checked only along directions that keep its ties{held}"

    def _sharpen(self, entry: Entry, u: Array, estimate: Estimate) -> None:
        """Replace the estimate by the complex step's, if the layer works on complex numbers."""
        try:
            value = self.probe.complex_slope(entry.name, u)
        except (TypeError, ValueError) as error:
            entry.note = f"no complex step: {error}"
            return
        if abs(value - estimate.value) > 1e-6 * max(abs(value), abs(estimate.value)):
            entry.note = "no complex step: the layer is not analytic (abs, conj, a cast to real?)"
        else:
            estimate.value = value

    # ---- entry by entry ------------------------------------------------------------------------------------

    def compare_entries(self, entry: Entry, a: np.ndarray, step: float) -> None:
        """Compare the Jacobian where it is small; find the worst entry, and the cause where something is wrong."""
        small = 0 < a.size * self.probe.y.size <= self.jacobian_entries and (step >= FINE or not entry.ok)
        if not small and (entry.ok or entry.cause):
            return
        everything = small or a.size <= SAMPLE
        entries = np.arange(a.size) if everything else self.rng.choice(a.size, SAMPLE, replace=False)
        numeric = self.probe.numeric_jacobian(entry.name, entries, min(step, 2**-6) / 4)
        n = np.full(a.shape, np.nan)
        n.flat[entries] = numeric @ to_numpy(self.probe.v).ravel()
        jacobians = None
        if small:
            jacobians = self.probe.analytic_jacobian(entry.name), numeric
            entry.jacobian_error = self._largest_error(*jacobians)
            entry.ok = entry.ok and (entry.jacobian_error or 0) <= JACOBIAN_RTOL
        known = np.isfinite(n)
        if known.any():
            entry.index = tuple(int(k) for k in np.unravel_index(np.nanargmax(np.abs(a - n)), a.shape))
            entry.analytic, entry.numeric = float(a[entry.index]), float(n[entry.index])
        if not entry.ok and not entry.cause:
            at_ties_only = np.isnan(numeric).any() and np.allclose(a[known], n[known], 1e-6)
            x = to_numpy(self.probe.subject.values[INPUT]) if entry.name == INPUT else None
            entry.cause = AT_TIES if at_ties_only else likely_cause(a, n, self._sizes(), jacobians, x)

    def _largest_error(self, a: np.ndarray, n: np.ndarray) -> float | None:
        known = np.isfinite(n)
        if not known.any():
            return None
        scale = max(np.abs(n[known]).max(), np.abs(a[known]).max(), 1e-3 * norm(self.probe.y))
        return float(np.abs(a[known] - n[known]).max() / scale) if scale else 0.0

    def _sizes(self) -> dict[str, int]:
        """Numbers that gradients are off by when a mean goes wrong."""
        x, y = self.probe.subject.values[INPUT].shape, self.probe.y.shape
        sizes = {"batch size N": x[0] if x else 1, "number 2": 2}
        if len(x) > 1:
            sizes |= {"channels C": x[1], "N·C": x[0] * x[1]}
        if len(x) > 2:
            pixels = int(np.prod(x[2:]))
            sizes |= {"pixels H·W": pixels, "N·H·W": x[0] * pixels, "C·H·W": x[1] * pixels}
        if len(y) > 1:
            sizes |= {"outputs per item": int(np.prod(y[1:])), "output channels": y[1]}
        return sizes | {"number of inputs": int(np.prod(x)), "number of outputs": int(np.prod(y))}


def _name(layer: Any) -> str:
    text = repr(layer)
    return type(layer).__name__ if " object at 0x" in text else text


def _unconverged(estimate: Estimate, entry: Entry) -> str:
    if estimate.kinks:
        return (
            f"not differentiable here: every step crosses a kink ({entry.kinks} tried): choose an x without ties and "
            "away from 0, see gapped(), or a smaller one where kinks are very many"
        )
    return f"differences are known only to {estimate.error:.0e}, too noisy for this rtol: raise it"
