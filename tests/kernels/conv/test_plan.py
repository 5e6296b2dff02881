"""Which algorithm is taken, and that each gives what the reference gives."""

import numpy as np
import pytest
from helpers import relative_error

from tinycnn.kernels.conv import plan
from tinycnn.kernels.conv.plan import ALGORITHMS, Problem
from tinycnn.kernels.window import Window

SAME = Window((3, 3), padding=((1, 1), (1, 1)))
HALF = Window((3, 3), (2, 2), ((1, 1), (1, 1)))


@pytest.fixture(autouse=True)
def _nothing_is_preferred(monkeypatch):
    """The rule itself is looked at here, whatever the environment prefers."""
    monkeypatch.setattr(plan, "_preferred", None)


def test_float64_takes_the_exact_route_unless_another_is_named():
    wide = Problem((8, 28, 28, 128), 128, SAME)
    assert plan.choose(wide, np.float32).startswith("winograd")
    assert plan.choose(wide, np.float64) == "im2col"
    assert plan.choose(wide, np.float64, "winograd4") == "winograd4"


def test_few_channels_take_strips():
    assert plan.choose(Problem((64, 32, 32, 1), 6, Window((5, 5)))) == "strips"
    assert plan.choose(Problem((128, 32, 32, 16), 16, SAME)) == "strips"


@pytest.mark.parametrize("window", [HALF, Window((3, 3), dilation=(2, 2)), Window((5, 5)), Window((1, 1))])
def test_what_an_algorithm_cannot_do_is_im2cols(window):
    assert plan.choose(Problem((8, 28, 28, 128), 128, window), algorithm="winograd2") == "im2col"
    assert plan.choose(Problem((8, 28, 28, 128), 128, window, G=2), algorithm="strips") == "im2col"


def test_one_may_be_preferred_for_a_while():
    wide = Problem((8, 28, 28, 128), 128, SAME)
    with plan.prefer("winograd2"):
        assert plan.choose(wide, np.float64) == "winograd2"
        assert plan.choose(wide, np.float64, "im2col") == "im2col"
        assert plan.choose(Problem((8, 28, 28, 128), 128, HALF)) == "im2col"
    assert plan.choose(wide, np.float64) == "im2col"


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("window", [SAME, HALF, Window((5, 4), padding=((0, 2), (1, 0)))])
@pytest.mark.parametrize(("need_dx", "need_dw"), [(True, True), (True, False), (False, True), (False, False)])
def test_every_algorithm_gives_the_references_results(name, window, need_dx, need_dw):
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((3, 9, 12, 5)), rng.standard_normal((7, *window.kernel, 5)), rng.standard_normal(7)
    y = plan.forward(x, w, b, window, algorithm="im2col")
    assert relative_error(plan.forward(x, w, b, window, algorithm=name), y) < 1e-12
    dx, dw = plan.backward(y, x, w, window, 1, name, need_dx, need_dw)
    wanted = plan.backward(y, x, w, window, 1, "im2col")
    assert (dx is not None, dw is not None) == (need_dx, need_dw)
    for got, reference in zip((dx, dw), wanted, strict=True):
        assert got is None or relative_error(got, reference) < 1e-12


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_empty_batch_has_an_empty_output(name):
    x, w = np.zeros((0, 8, 8, 4), np.float32), np.ones((6, 3, 3, 4), np.float32)
    y = plan.forward(x, w, np.ones(6, np.float32), SAME, algorithm=name)
    assert y.shape == (0, 8, 8, 6)
    dx, dw = plan.backward(y, x, w, SAME, algorithm=name)
    assert dx.shape == x.shape
    assert not dw.any()


def test_the_wanted_way_back_depends_on_the_window():
    """col2im for a large window without padding, gathering otherwise (see `scatter`)."""
    assert plan._backward_strips(Problem((64, 14, 14, 6), 16, Window((5, 5))), True) is not None
    assert plan._backward_strips(Problem((64, 32, 32, 16), 16, SAME), True) is None
