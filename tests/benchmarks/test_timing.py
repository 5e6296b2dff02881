import math
import time

import numpy as np
import pytest

from benchmarks import timing
from benchmarks.timing import Contender, Effort, Spread, exponent, fastest, race, ratio


def test_quartiles_are_numpys():
    samples = list(np.random.default_rng(0).exponential(size=12))
    spread = Spread.of(samples)
    assert np.allclose((spread.q1, spread.median, spread.q3), np.percentile(samples, [25, 50, 75]))
    assert spread.n == 12


def test_one_sample_is_its_own_spread():
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 1)


def test_a_ratio_is_of_medians_and_drift_leaves_it_alone():
    drift = [1.0, 1.3, 0.8, 1.1, 0.9]
    found = ratio([3 * d for d in drift], [2 * d for d in drift])
    assert (found.q1, found.median, found.q3) == pytest.approx((1.5, 1.5, 1.5))
    assert ratio([1.0, 2.0, 9.0], [1.0, 4.0, 4.0]).median == 0.5


def test_exponents_are_those_of_polyfit():
    sizes, costs = [20, 32, 56, 110], [3.1, 4.8, 8.9, 16.0]
    assert exponent(sizes, costs) == pytest.approx(np.polyfit(np.log(sizes), np.log(costs), 1)[0])
    assert exponent([1, 2, 4], [8.0, 4.0, 2.0]) == pytest.approx(-1)


def test_contenders_take_turns_and_are_warmed_up(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 1e-9)
    log = []
    contenders = {
        name: Contender({"work": lambda name=name: log.append(name)}, prepare=lambda name=name: log.append(f"({name})"))
        for name in "AB"
    }
    samples = race(contenders, Effort(seconds=0, least=3, most=3, warmup=2, settle=0))
    assert "".join(log) == "(A)A(A)A(B)B(B)B" + 3 * "(A)A(B)B"
    assert {name: len(samples[name]["work"]) for name in "AB"} == {"A": 3, "B": 3}


def test_phases_are_timed_apart_and_preparing_is_not():
    def nap(seconds):
        return lambda: time.sleep(seconds)

    contender = Contender({"short": nap(0.005), "long": nap(0.03)}, prepare=nap(0.05))
    sample = contender.sample(2)
    assert 0.005 <= sample["short"] < 0.025
    assert 0.03 <= sample["long"] < 0.05


def test_short_calls_are_repeated_and_settled(monkeypatch):
    monkeypatch.setattr(timing, "TURN", 0.003)
    calls = []
    contender = Contender({"work": lambda: calls.append(1)})
    contender.turn(0.001, settle=0.002)
    assert len(calls) == 2 + 3
    contender.turn(0.03, settle=0.002)
    assert len(calls) == 2 + 3 + 1


def test_the_number_of_rounds_has_bounds():
    effort = Effort(seconds=10, least=5, most=40, warmup=2)
    assert [effort.rounds(s) for s in (math.inf, 0.5, 0)] == [5, 20, 40]


def test_the_fastest_is_by_median():
    samples = {"ours": {"step": [0.1] * 3}, "a": {"step": [1.0, 1.0, 9.0]}, "b": {"step": [2.0, 2.0, 0.1]}}
    assert fastest(samples, "step", ["a", "b"]) == "a"
