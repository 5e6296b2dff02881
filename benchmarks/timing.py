"""Measuring: contenders take turns, round after round, and each is reported by its median and quartiles.

A machine's speed drifts by tens of per cent within minutes.  Contenders that run one after another within each round
(A B A B …) meet the same drift, so their ratio stays true where their times do not.

**The pause.**  Each turn begins with a pause and, if calls are short, one call that is not timed.  PyTorch's OpenMP
threads go on spinning for some 15 ms after their last region (libgomp waits 300,000 times round a loop); without the
pause they would be taking a core from whoever comes next.  All contenders get the same pause.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

PAUSE = 0.02
"""Seconds of rest before every turn."""
TURN = 0.01
"""Seconds that a turn lasts at least: short calls are repeated within it, and their mean is one sample."""

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
    """

    seconds: float
    least: int
    most: int
    warmup: int

    def rounds(self, round_seconds: float) -> int:
        """Return how many rounds of ``round_seconds`` to run.

        >>> Effort(10, 5, 40, 2).rounds(0.5), Effort(10, 5, 40, 2).rounds(60), Effort(10, 5, 40, 2).rounds(0.001)
        (20, 5, 40)
        """
        return max(self.least, min(self.most, round(self.seconds / max(round_seconds, 1e-9))))

    def words(self) -> str:
        """Return it in words, for a table's notes."""
        rounds = f"{self.least} to {self.most} rounds, as many as fit {self.seconds:g} s"
        return f"warm-up: {self.warmup} call{'s' if self.warmup > 1 else ''}; {rounds}."


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

    def turn(self, calls: int) -> dict[str, float]:
        """Return one sample, taken after the pause of the module docstring."""
        time.sleep(PAUSE)
        self.enter()
        if calls > 1:
            self.sample(1)
        return self.sample(calls)


def race(contenders: Mapping[str, Contender], effort: Effort) -> dict[str, Samples]:
    """Measure all contenders in turns.

    Returns:
        For each contender and phase, one sample per round; all lists are equally long.
    """
    calls: dict[str, int] = {}
    round_seconds = 0.0
    for name, contender in contenders.items():
        contender.enter()
        for _ in range(effort.warmup):
            once = sum(contender.sample(1).values())
        calls[name] = max(1, math.ceil(TURN / once))
        round_seconds += PAUSE + once * (calls[name] + (calls[name] > 1))
    samples: dict[str, Samples] = {name: {phase: [] for phase in c.phases} for name, c in contenders.items()}
    for _ in range(effort.rounds(round_seconds)):
        for name, contender in contenders.items():
            for phase, seconds in contender.turn(calls[name]).items():
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
