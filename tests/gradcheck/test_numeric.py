"""Derivatives of known functions, kinks found and avoided, inputs with gaps."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.gradcheck import gapped
from tinycnn.gradcheck.numeric import Estimate, away_from_zero, derivative, extrapolate, taylor_slope, tie_keeping


def rng(seed=0):
    return np.random.default_rng(seed)


def line(f, tells=None):
    """A line through 0 of the function f; ``tells`` says which branch is taken."""
    return lambda t: (f(t) - f(0.0), tells is None or tells(t) == tells(0.0))


def tight(value, h):
    return max(1e-10 * abs(value), 1e-13 / h)


SMOOTH = {
    "exp": (math.exp, 1.0),
    "sin 3t + t": (lambda t: math.sin(3 * t) + t, 4.0),
    "1 / (2 + t)": (lambda t: 1 / (2 + t), -0.25),
    "linear": (lambda t: 5 * t + 7, 5.0),
    "constant": (lambda t: 7.0, 0.0),
    "quadratic": (lambda t: (t - 3) ** 2, -6.0),
    "on a scale of 1e-3": (lambda t: math.tanh(1000 * t), 1000.0),
}


@pytest.mark.parametrize(("f", "slope"), SMOOTH.values(), ids=SMOOTH)
def test_derivatives_of_smooth_functions(f, slope):
    estimate = derivative(line(f), 2**-6, tight)
    assert estimate.converged
    assert estimate.value == pytest.approx(slope, rel=2e-10, abs=1e-11)


def test_extrapolation_cancels_the_even_powers():
    # D(h) = 2 + h² + 5h⁴: three steps are enough, and the fourth agrees
    value, error = extrapolate([2 + h**2 + 5 * h**4 for h in (1.0, 0.5, 0.25, 0.125)])
    assert value == pytest.approx(2, abs=1e-13)
    assert error < 1e-13


@pytest.mark.parametrize("place", [1e-2, 1e-3, 1e-4, 3e-5, -1e-3])
@pytest.mark.parametrize("tells", [True, False])
def test_steps_shrink_until_no_kink_lies_within(place, tells):
    f = lambda t: 3 * t + 2 * max(t - place, 0)  # noqa: E731
    estimate = derivative(line(f, (lambda t: t > place) if tells else None), 2**-6, tight)
    assert estimate.converged
    assert estimate.h < 2**-6 or place == 1e-2  # beyond all steps but the first
    assert estimate.value == pytest.approx(3 if place > 0 else 5, rel=1e-9)


@pytest.mark.parametrize("f", [abs, lambda t: max(t, 0.0), lambda t: t + abs(t) + t * t])
def test_a_kink_at_the_point_itself_is_noticed(f):
    # central differences of |t| are 0 at every step, as consistent as can be
    estimate = derivative(line(f), 2**-6, tight)
    assert not estimate.converged
    assert estimate.kinks > 0


def test_a_noisy_function_does_not_converge():
    noise = rng()
    estimate = derivative(line(lambda t: t + 1e-6 * noise.normal()), 2**-6, lambda value, h: 1e-12)
    assert not estimate.converged


@pytest.mark.parametrize(("claimed", "order"), [(1.0, 2), (1.5, 1), (-1.0, 1), (0.0, 1)])
def test_the_order_of_the_remainder(claimed, order):
    estimate = derivative(line(math.exp), 2**-6, tight)
    assert taylor_slope(line(math.exp), estimate, claimed, 1e-16) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("zero", [2.0**-k for k in range(6, 11)])
def test_the_order_of_a_remainder_that_changes_sign(zero):
    # t² − t³/zero all but vanishes at one of the steps
    f = lambda t: t**2 - 0.999999 * t**3 / zero  # noqa: E731
    deltas = tuple(f(2.0 ** -(6 + k)) for k in range(5))
    assert taylor_slope(line(f), Estimate(h=2**-6, deltas=deltas), 0.0, 1e-20) > 1.5


@pytest.mark.parametrize("place", [0.7, 0.1, 0.03])
def test_the_order_beside_a_kink(place):
    # the estimate has left out the steps that cross the kink; so must the slope
    f = lambda t: t + max(t - place * 2**-6, 0)  # noqa: E731
    estimate = derivative(line(f), 2**-6, tight)
    assert estimate.value == pytest.approx(1, rel=1e-9)
    right = taylor_slope(line(f), estimate, 1.0, 1e-16)
    assert right is None or right > 1.5
    assert taylor_slope(line(f), estimate, 2.0, 1e-16) == pytest.approx(1, abs=0.1)


def test_no_order_where_rounding_is_all_there_is():
    estimate = derivative(line(lambda t: 3 * t), 2**-6, tight)
    assert taylor_slope(line(lambda t: 3 * t), estimate, 3.0, 1e-16) is None


@given(st.lists(st.integers(1, 6), max_size=4).map(tuple), st.integers(0, 99), st.sampled_from([0.5, 2.0]))
def test_gapped_values_are_gapped(shape, seed, spread):
    x = gapped(shape, rng(seed), spread)
    assert x.shape == shape
    assert x.dtype == np.float64
    gap = 2 * spread / x.size
    assert np.abs(x).min() >= 0.499 * gap
    assert np.abs(x).max() <= spread
    assert np.diff(np.sort(x, axis=None)).min(initial=gap) >= 0.999 * gap


def test_gapped_values_are_shuffled_by_the_generator():
    a, b, c = gapped(50, rng(0)), gapped(50, rng(0)), gapped((50,), rng(1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert not np.array_equal(a, np.sort(a))
    assert gapped((0, 3), rng()).shape == (0, 3)


def test_directions_have_no_small_component():
    u = away_from_zero((1000,), rng())
    assert 0.5 <= np.abs(u).min() < np.abs(u).max() <= 1.5
    assert (u > 0).any()
    assert (u < 0).any()


def test_tie_keeping_directions():
    x = np.array([[1.0, 0.0, 1.0], [0.0, -2.0, 3.0]])
    u = tie_keeping(x, rng(), hold_zeros=False)
    assert u[0, 0] == u[0, 2]
    assert u[0, 1] == u[1, 0] != 0
    assert len(np.unique(u)) == 4
    x[1] += 1e-9  # nearly is enough
    assert tie_keeping(x, rng(), hold_zeros=False)[1, 0] == u[0, 1]
    held = tie_keeping(x, rng(), hold_zeros=True)
    assert held[0, 1] == held[1, 0] == 0
    assert (held[abs(x) > 1e-3] != 0).all()
