"""The layer seen along lines and along single entries: what differences are made of."""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module, to_numpy
from .numeric import EPS, SHRINK, Line, away_from_zero
from .subject import Subject, copy, is_array, same_bits


def norm(a: Array) -> float:
    """Return the square root of the sum of squares."""
    return float((a * a).sum()) ** 0.5


class Probe:
    """A subject with its output y at the point, the choices made there, and the cotangent v; L = ⟨v, y⟩.

    Raises:
        TypeError: forward returns no array.
    """

    def __init__(self, subject: Subject, rng: np.random.Generator) -> None:
        self.subject = subject
        y = subject.forward()
        if not is_array(y):
            raise TypeError(f"gradcheck: forward returned {type(y).__name__}, expected an array")
        self.y = copy(y)
        self.branches = subject.branches()
        self.v = array_module(y).asarray(away_from_zero(y.shape, rng))

    def noise(self, name: str, g: Array) -> float:
        """What rounding may do to L: that of the outputs, and that of x + h·u times the gradient g."""
        return 32 * EPS * (norm(self.v * self.y) + norm(g * self.subject.values[name]))

    def line(self, name: str, u: Array) -> Line:
        """t ↦ L at tensor + t·u minus L at 0 (subtracted before summing, which keeps the digits)."""
        value = self.subject.values[name]

        def line(t: float) -> tuple[float, bool]:
            change = self._change(name, value + t * u)
            return (float("nan"), False) if change is None else (float((self.v * change).sum()), True)

        return line

    def complex_slope(self, name: str, u: Array) -> float:
        """dL/dt along u by the complex step, Im L(i·h)/h: no difference, so no rounding, and h may be 1e-100.

        Raises:
            TypeError, ValueError: the layer does not work on complex numbers.
        """
        h = 1e-100
        y = self.subject.forward(name, self.subject.values[name] + 1j * h * u)
        if y.dtype.kind != "c":
            raise TypeError("it returns real numbers for complex ones")
        return float((self.v * y.imag).sum()) / h

    def analytic_jacobian(self, name: str) -> np.ndarray:
        """∂y_j/∂t_i as backward has it, (entries, outputs): one backward for each output."""
        columns = []
        for j in range(self.y.size):
            unit = array_module(self.y).zeros(self.y.size)
            unit[j] = 1
            columns.append(to_numpy(self.subject.backward(unit.reshape(self.y.shape))[name]).ravel())
        return np.stack(columns, axis=1)

    def numeric_jacobian(self, name: str, entries: np.ndarray, h: float) -> np.ndarray:
        """∂y_j/∂t_i by differences for i in ``entries``, (entries, outputs); nan where a kink is too near."""
        rows = [self._row(name, int(i), h) for i in entries]
        return np.array([np.full(self.y.size, np.nan) if row is None else row for row in rows])

    def _row(self, name: str, i: int, h: float) -> np.ndarray | None:
        for _ in range(4):
            first, second = self._differences(name, i, h), self._differences(name, i, h / 2)
            if first is not None and second is not None:
                tolerance = 1e-3 * np.abs(second[0]).max() + 1e4 * EPS * norm(self.y) / h
                converged = np.abs(second[0] - first[0]).max() <= tolerance
                kinked = second[1] > max(0.75 * first[1], tolerance)
                if converged and not kinked:
                    return second[0] + (second[0] - first[0]) / 3
            h /= SHRINK
        return None

    def _differences(self, name: str, i: int, h: float) -> tuple[np.ndarray, float] | None:
        """((y(h) − y(−h))/2h, largest jump from the slope on one side to that on the other), or None at a kink."""
        sides = []
        for t in (h, -h):
            value = copy(self.subject.values[name])
            value[np.unravel_index(i, value.shape)] += t
            sides.append(self._change(name, value))
        plus, minus = sides
        if plus is None or minus is None:
            return None
        return to_numpy(plus - minus).ravel() / (2 * h), float(abs(plus + minus).max() / h)

    def _change(self, name: str, value: Array) -> Array | None:
        """Return y − y(0) with the tensor holding ``value``; None where the layer chooses otherwise than at 0."""
        y = self.subject.forward(name, value)
        now = self.subject.branches()
        alike = len(now) == len(self.branches) and all(map(same_bits, now, self.branches))
        return y - self.y if alike and y.shape == self.y.shape else None
