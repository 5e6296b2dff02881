"""What a gradient check found, for people and for programs."""

from __future__ import annotations

import dataclasses
import textwrap
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Entry:
    """One tensor's gradient, the input's or a parameter's.

    Attributes:
        name, shape: of the tensor; the input is called ``x``.
        ok: whether its gradient is right.
        error: largest relative error of a directional derivative.
        slope: least order of the Taylor remainder; None where it is lost in rounding (linear layers).
        index, analytic, numeric: the entry that is furthest off, and its two values, where entries were looked at
            one by one (small layers, and whenever something is wrong).
        jacobian_error: largest error of an entry of the Jacobian, relative to the largest entry; None if too large.
        kinks: steps and directions given up because they crossed a kink.
        cause: in words, when not ``ok``.
        note: anything else to know.
    """

    name: str
    shape: tuple[int, ...]
    ok: bool = True
    error: float = 0.0
    slope: float | None = None
    index: tuple[int, ...] | None = None
    analytic: float | None = None
    numeric: float | None = None
    jacobian_error: float | None = None
    kinks: int = 0
    cause: str = ""
    note: str = ""

    def fail(self, cause: str) -> None:
        """Note that nothing could be compared, and why."""
        self.ok, self.error, self.cause = False, float("inf"), cause


@dataclass
class Finding:
    """One rule of the contract between forward and backward, whether it is kept, and if not, how it is broken."""

    rule: str
    ok: bool
    detail: str = ""

    def __post_init__(self) -> None:
        if self.ok:
            self.detail = ""


@dataclass
class GradReport:
    """The verdict on a layer's backward.  Printing it gives a table; its truth value is ``ok``.

    Attributes:
        layer: the layer's repr.
        x_shape, y_shape: of input and output.
        rtol, directions, seed: what it was checked with.
        entries: one per tensor.
        findings: one per rule of the contract.

    >>> import numpy as np
    >>> from tinycnn import Linear, gradcheck
    >>> report = gradcheck(Linear(3, 2, dtype=np.float64), np.arange(6.0).reshape(2, 3))
    >>> report.ok, report.worst < 1e-9, [finding.rule for finding in report.findings][0]
    (True, True, 'forward repeatable')
    """

    layer: str
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    rtol: float
    directions: int
    seed: int
    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every gradient is right and every rule kept."""
        return all(e.ok for e in self.entries) and all(f.ok for f in self.findings)

    @property
    def worst(self) -> float:
        """The largest relative error of all tensors."""
        return max((entry.error for entry in self.entries), default=0.0)

    def __bool__(self) -> bool:
        return self.ok

    def to_dict(self) -> dict[str, Any]:
        """Return plain Python values, ready for JSON (nan and inf as None)."""
        values = dataclasses.asdict(self) | {"ok": self.ok, "worst": self.worst}
        return _plain(values)

    def __str__(self) -> str:
        name = self.layer if "\n" not in self.layer else self.layer.partition("\n")[0] + "…)"
        lines = [
            f"gradcheck {name}: {'ok' if self.ok else 'FAILED'}",
            f"  x {self.x_shape} -> y {self.y_shape}, {self.directions} directions per tensor, "
            f"rtol {self.rtol:g}, seed {self.seed}",
            *_table(self.entries),
        ]
        kept = ", ".join(finding.rule for finding in self.findings if finding.ok)
        lines += textwrap.wrap(kept, 110, initial_indent="  kept: ", subsequent_indent="        ")
        lines += [f"  note: {entry.name}: {entry.note}" for entry in self.entries if entry.note]
        lines += [f"  BROKEN: {finding.rule}: {finding.detail}" for finding in self.findings if not finding.ok]
        lines += [f"  WRONG: {entry.name}: {entry.cause}" for entry in self.entries if not entry.ok]
        return "\n".join(lines)


def _table(entries: list[Entry]) -> list[str]:
    head = ("", "tensor", "shape", "rel. error", "slope", "Jacobian", "kinks", "worst entry", "analytic", "numeric")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return ["  " + line.rstrip() for line in lines]


def _row(entry: Entry) -> tuple[str, ...]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        "ok" if entry.ok else "WRONG",
        entry.name,
        str(entry.shape),
        number(entry.error, ".1e"),
        number(entry.slope, ".2f"),
        number(entry.jacobian_error, ".1e"),
        str(entry.kinks),
        "-" if entry.index is None else str(entry.index),
        number(entry.analytic, ".9g"),
        number(entry.numeric, ".9g"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value
