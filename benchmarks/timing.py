"""Measuring: contenders take turns, round after round, and each is reported by its median and quartiles.

A machine's speed drifts by tens of per cent within minutes.  Contenders that run one after another within each round
(A B A B …) meet the same drift, so their ratio stays true where their times do not.

**The settling.**  Each turn begins with calls that are not timed, for `SETTLE` seconds.  Two things have to settle:
the other's OpenMP threads go on spinning for some 15 ms after their last region (libgomp waits 300,000 times round a
loop) and take a core meanwhile; and threads of ours that slept that long wake late at first.  Without it a LeNet-5
step of 6 ms was measured as 7 to 8; with it, within 5 % of what many steps in a row take.  OpenBLAS's own threads,
which NumPy wakes in other libraries but not here, spin for 100 ms: `SETTLE_BLAS`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

SETTLE = 0.02
"""Seconds of calls at the beginning of a turn that are not timed."""
SETTLE_BLAS = 0.13
"""The same where another contender uses NumPy's BLAS on several threads."""
TURN = 0.02
"""Seconds of a turn that are timed, at least: short calls are repeated, and their mean is one sample."""

Samples = dict[str, list[float]]
"""Seconds per call of every phase, one number per round."""


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of n samples."""

    median: float
    q1: float
    q3: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Summarize samples; quartiles are interpolated linearly between them.

        >>> Spread.of([4.0, 1.0, 2.0, 3.0, 5.0])
        Spread(median=3.0, q1=2.0, q3=4.0, n=5)
        """
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3, len(samples))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes:
        seconds: to spend on a race, roughly.
        least, most: bounds on the number of rounds.
        warmup: calls of each contender before anything counts.
        settle: seconds at the beginning of each turn that do not count.
    """

    seconds: float
    least: int
    most: int
    warmup: int
    settle: float = SETTLE

    def rounds(self, round_seconds: float) -> int:
        """Return how many rounds of ``round_seconds`` to run.

        >>> Effort(10, 5, 40, 2).rounds(0.5), Effort(10, 5, 40, 2).rounds(60), Effort(10, 5, 40, 2).rounds(0.001)
        (20, 5, 40)
        """
        return max(self.least, min(self.most, round(self.seconds / max(round_seconds, 1e-9))))

    def words(self) -> str:
        """Return it in words, for a table's notes."""
        rounds = f"{self.least} to {self.most} rounds, as many as fit {self.seconds:g} s"
        settle = f"{1e3 * self.settle:.0f} ms of its own calls before each turn"
        return f"warm-up: {self.warmup} call{'s' if self.warmup > 1 else ''}; {settle}; {rounds}."


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Contender:
    """Something to measure.

    Attributes:
        phases: functions called in this order, each timed by itself (``{"forward": …, "backward": …}``).
        prepare: called before the phases every time, not timed.
        enter: called once when its turn begins, not timed.
    """

    phases: Mapping[str, Callable[[], object]]
    prepare: Callable[[], object] = field(default=_nothing)
    enter: Callable[[], object] = field(default=_nothing)

    def sample(self, calls: int) -> dict[str, float]:
        """Return the mean seconds per call of each phase."""
        totals = dict.fromkeys(self.phases, 0.0)
        for _ in range(calls):
            self.prepare()
            for name, phase in self.phases.items():
                begin = time.perf_counter()
                phase()
                totals[name] += time.perf_counter() - begin
        return {name: total / calls for name, total in totals.items()}

    def turn(self, seconds: float, settle: float = SETTLE) -> dict[str, float]:
        """Return one sample, after the settling of the module docstring.

        Args:
            seconds: that a call takes, roughly.
            settle: seconds to spend on that; not if a single call takes ten times as long.
        """
        self.enter()
        if seconds < 10 * settle:
            self.sample(math.ceil(settle / seconds))
        return self.sample(math.ceil(TURN / seconds))


def race(contenders: Mapping[str, Contender], effort: Effort) -> dict[str, Samples]:
    """Measure all contenders in turns.

    Returns:
        For each contender and phase, one sample per round; all lists are equally long.
    """
    once: dict[str, float] = {}
    for name, contender in contenders.items():
        contender.enter()
        once[name] = [sum(contender.sample(1).values()) for _ in range(effort.warmup)][-1]
    samples: dict[str, Samples] = {name: {phase: [] for phase in c.phases} for name, c in contenders.items()}
    round_seconds = sum(max(seconds, effort.settle + TURN) for seconds in once.values())
    for _ in range(effort.rounds(round_seconds)):
        for name, contender in contenders.items():
            for phase, seconds in contender.turn(once[name], effort.settle).items():
                samples[name][phase].append(seconds)
    return samples


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Return how many times as long as ours theirs take: above 1, ours is the faster.

    The middle is the ratio of the medians; the quartiles are those of the ratios round by round.

    >>> ratio([2.0, 4.0, 6.0], [1.0, 2.0, 2.0])
    Spread(median=2.0, q1=2.0, q3=2.5, n=3)
    """
    rounds = Spread.of([a / b for a, b in zip(theirs, ours, strict=True)])
    middle = statistics.median(theirs) / statistics.median(ours)
    return Spread(middle, min(rounds.q1, middle), max(rounds.q3, middle), rounds.n)


def fastest(samples: Mapping[str, Samples], phase: str, names: Sequence[str]) -> str:
    """Return whichever of ``names`` has the least median in ``phase``."""
    return min(names, key=lambda name: statistics.median(samples[name][phase]))


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return p of the power law cost = c·size^p that fits best: least squares on the logarithms.

    >>> round(exponent([1, 2, 4, 8], [3, 12, 48, 192]), 6)
    2.0
    """
    xs, ys = [math.log(s) for s in sizes], [math.log(c) for c in costs]
    return statistics.linear_regression(xs, ys).slope
