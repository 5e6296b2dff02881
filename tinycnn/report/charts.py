"""Charts as SVG, in the colours of the page, that tell their numbers where one points."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .html import Html, join, tag

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 18, 10, 38
"""Margins, for the numbers at the axes."""
POINTED_AT = 240
"""Most places of a chart that tell their numbers; of more epochs, one in several does."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: of the line.
        kind: its class in the stylesheet, which colours it.
        points: by epoch.
    """

    name: str
    kind: str
    points: dict[int, float] = field(repr=False)


class Axis:
    """Numbers to places: of ``low``, at ``start``, to ``high``, at ``end``, in proportion or by their logarithms."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False) -> None:
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return round(self.start + (self.end - self.start) * (value - low) / (high - low), 2)

    def ticks(self, most: int = 6) -> list[float]:
        """Return round numbers along the axis."""
        return log_ticks(self.low, self.high, most) if self.log else linear_ticks(self.low, self.high, most)


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten between ``low`` and ``high``.

    >>> linear_ticks(0.5, 1)
    [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    step = 10.0 ** math.floor(math.log10((high - low) / most))
    step *= next(m for m in (1, 2, 5, 10, 20) if math.floor(high / (m * step)) - math.ceil(low / (m * step)) < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return powers of ten, with twice and five times them where there are few.

    >>> log_ticks(0.03, 2)
    [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]
    """
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = [float(f"{m}e{n}") for n in exponents for m in factors]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) <= most:
            break
    return found[:: math.ceil(len(found) / most) or 1] if len(found) > 1 else linear_ticks(low, high, most)


def number(value: float) -> str:
    """Return four digits of a number, as people write it."""
    return f"{value:.4g}"


def percent(value: float) -> str:
    """Return a fraction in per cent, with as many digits as it needs."""
    return f"{round(100 * value, 2):g} %"


def of_epochs(
    title: str,
    lines: Sequence[Line],
    *,
    log: bool = False,
    words: Callable[[float], str] = number,
    mark: int | None = None,
) -> Html:
    """Draw lines over epochs.

    Args:
        title: what is drawn.
        lines: at least one of them with a point.
        log: whether the vertical axis goes by logarithms.
        words: for numbers.
        mark: an epoch to mark.
    """
    epochs = sorted({epoch for line in lines for epoch in line.points})
    across = Axis(epochs[0], max(epochs[-1], epochs[0] + 1), LEFT, WIDTH - RIGHT)
    up = _upwards([value for line in lines for value in line.points.values()], log)
    parts = [_grid(up, words), _below(across, number, "epoch", whole=True)]
    if mark is not None:
        parts.append(tag("line", class_="mark", x1=across(mark), x2=across(mark), y1=TOP, y2=HEIGHT - BOTTOM))
    parts += [_path(line, across, up) for line in lines]
    parts.append(_pointers(epochs, lines, across, words))
    return _figure(title, parts, [(line.name, line.kind) for line in lines])


def _upwards(values: Sequence[float], log: bool) -> Axis:
    low, high = min(values), max(values)
    if log:
        low = min((value for value in values if value > 0), default=1.0)
        return Axis(low / 1.1, max(high, low) * 1.1, HEIGHT - BOTTOM, TOP, log=True)
    margin = 0.04 * (high - low) or abs(high) or 1
    return Axis(low - margin if low else 0, high + margin, HEIGHT - BOTTOM, TOP)


def _grid(up: Axis, words: Callable[[float], str]) -> Html:
    lines = []
    for value in up.ticks():
        y = up(value)
        lines.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y))
        lines.append(tag("text", words(value), x=LEFT - 8, y=y + 4, text_anchor="end"))
    return tag("g", *lines, class_="grid")


def _below(across: Axis, words: Callable[[float], str], title: str, whole: bool = False) -> Html:
    ticks = [value for value in across.ticks() if not whole or value == int(value)]
    y = HEIGHT - BOTTOM
    numbers = [tag("text", words(value), x=across(value), y=y + 18, text_anchor="middle") for value in ticks]
    name = tag("text", title, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 5, text_anchor="middle")
    return tag("g", tag("line", class_="axis", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y), *numbers, name)


def _path(line: Line, across: Axis, up: Axis) -> Html:
    places = [(across(epoch), up(value)) for epoch, value in sorted(line.points.items())]
    drawn = tag("polyline", class_=f"line {line.kind}", points=" ".join(f"{x:g},{y:g}" for x, y in places))
    dots = places if len(places) <= 40 else []
    return join([drawn, *(tag("circle", class_=f"dot {line.kind}", cx=x, cy=y, r=2.4) for x, y in dots)])


def _pointers(epochs: Sequence[int], lines: Sequence[Line], across: Axis, words: Callable[[float], str]) -> Html:
    """Return a strip over each epoch that tells its numbers."""
    strips = []
    chosen = epochs[:: math.ceil(len(epochs) / POINTED_AT)]
    width = (WIDTH - RIGHT - LEFT) / max(len(chosen) - 1, 1)
    for epoch in chosen:
        told = [f"{line.name} {words(line.points[epoch])}" for line in lines if epoch in line.points]
        x = round(across(epoch) - width / 2, 2)
        title = tag("title", " · ".join([f"epoch {epoch}", *told]))
        strips.append(tag("rect", title, x=x, y=TOP, width=round(width, 2), height=HEIGHT - BOTTOM - TOP))
    return tag("g", *strips, class_="pointers")


def _figure(title: str, parts: Sequence[Html], legend: Sequence[tuple[str, str]]) -> Html:
    names = [tag("span", tag("i", class_=kind), name, class_="name") for name, kind in legend]
    head = tag("figcaption", tag("b", title), *(names if len(names) > 1 else []))
    drawing = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title)
    return tag("figure", head, drawing, class_="chart")


def of_calibration(title: str, bins: Sequence[tuple[float, float, float, float, int]]) -> Html:
    """Draw how often predictions are right, against how sure the network is of them.

    Args:
        title: what is drawn.
        bins: (from, to, mean confidence, accuracy, number of images) of each that is not empty.
    """
    across, up = Axis(0, 1, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    parts = [_grid(up, percent), _below(across, percent, "how sure the network is")]
    strips = []
    for low, high, confidence, accuracy, count in bins:
        size = {"x": across(low) + 1, "width": round(across(high) - across(low) - 2, 2)}
        parts.append(tag("rect", class_="bar", y=up(accuracy), height=round(up(0) - up(accuracy), 2), **size))
        parts.append(tag("circle", class_="dot bin", cx=across(confidence), cy=up(accuracy), r=2.6))
        told = f"{count:,} images of which it is {percent(confidence)} sure on average: {percent(accuracy)} are right"
        strips.append(tag("rect", tag("title", told), y=TOP, height=HEIGHT - BOTTOM - TOP, **size))
    parts.append(tag("line", class_="mark", x1=across(0), x2=across(1), y1=up(0), y2=up(1)))
    return _figure(title, [*parts, tag("g", *strips, class_="pointers")], [])
