"""Jacobians and lines of layers whose derivatives are known."""

import numpy as np
import pytest
from tiny_layers import Dropout, Linear, Max, ReLU, Tanh, TellingReLU, normal

from tinycnn.gradcheck.probe import Probe
from tinycnn.gradcheck.subject import Subject


def probe(layer, x):
    return Probe(Subject(layer, x), np.random.default_rng(0))


def test_jacobians_of_a_linear_layer():
    layer, x = Linear(), normal(2, 3)
    p = probe(layer, x)
    wanted = np.kron(np.eye(2), layer.weight.data.T)
    np.testing.assert_allclose(p.analytic_jacobian("x"), wanted, atol=1e-15)
    np.testing.assert_allclose(p.numeric_jacobian("x", np.arange(6), 2**-8), wanted, atol=1e-11)
    # ∂y[n, p] / ∂w[o, k] = [o = p]·x[n, k]
    wanted = np.einsum("nk,op->oknp", x, np.eye(3)).reshape(9, 6)
    np.testing.assert_allclose(p.analytic_jacobian("weight"), wanted, atol=1e-15)
    np.testing.assert_allclose(p.numeric_jacobian("weight", np.arange(9), 2**-8), wanted, atol=1e-11)


def test_a_sample_of_entries():
    x = normal(3, 4)
    wanted = np.diag(1 - np.tanh(x.ravel()) ** 2)
    numeric = probe(Tanh(), x).numeric_jacobian("x", np.array([7, 2]), 2**-8)
    np.testing.assert_allclose(numeric, wanted[[7, 2]], atol=1e-9)


@pytest.mark.parametrize("make", [ReLU, TellingReLU])
def test_entries_at_a_kink_are_not_known(make):
    x = np.array([[1.0, 0.0, -1.0, 1e-3]])
    numeric = probe(make(), x).numeric_jacobian("x", np.arange(4), 2**-8)
    assert np.isnan(numeric[1]).all()
    np.testing.assert_allclose(numeric[[0, 2, 3]], np.diag([1.0, 0, 0, 1])[[0, 2, 3]], atol=1e-9)


def test_entries_at_ties_are_not_known():
    numeric = probe(Max(), np.array([[1.0, 1.0, 0.0]])).numeric_jacobian("x", np.arange(3), 2**-8)
    assert np.isnan(numeric[:, 0]).tolist() == [True, True, False]


def test_lines_draw_the_same_mask_at_every_point():
    line = probe(Dropout(), normal(3, 4)).line("x", np.ones((3, 4)))
    (one, _), (two, _) = line(1.0), line(2.0)
    assert two == pytest.approx(2 * one, rel=1e-12)


def test_lines_tell_when_a_branch_changes():
    line = probe(TellingReLU(), np.array([[0.5]])).line("x", np.array([[1.0]]))
    assert line(0.25)[1]
    assert line(-0.25)[1]
    assert not line(-0.75)[1]


def test_the_complex_step():
    x = normal(3, 4)
    p = probe(Tanh(), x)
    assert p.complex_slope("x", np.ones((3, 4))) == pytest.approx((p.v * (1 - np.tanh(x) ** 2)).sum(), rel=1e-14)


def test_rounding_is_estimated_in_proportion():
    p = probe(Tanh(), normal(3, 4))
    assert 1e-16 < p.noise("x", np.zeros((3, 4))) < 1e-12
    assert p.noise("x", 1e6 * np.ones((3, 4))) > 1e4 * p.noise("x", np.zeros((3, 4)))
