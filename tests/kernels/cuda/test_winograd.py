"""Winograd's convolution on a GPU against patches on the CPU, in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels.conv import patches, phases
from tinycnn.kernels.cuda import winograd
from tinycnn.kernels.window import Window

sizes = st.integers(1, 9)
pads = st.tuples(st.integers(0, 2), st.integers(0, 2))


@st.composite
def cases(draw):
    """(shape of x, OC, window) with at least one output."""
    window = Window((3, 3), padding=(draw(pads), draw(pads)))
    H, W = (draw(st.integers(max(1, 3 - sum(p)), 9)) for p in window.padding)
    return (draw(st.integers(1, 3)), H, W, draw(st.integers(1, 5))), draw(st.integers(1, 5)), window


def close(own, wanted, tolerance):
    np.testing.assert_allclose(own.get(), wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max(initial=0)))


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize(
    ("dtype", "m", "tolerance"), [("float64", 2, 1e-12), ("float64", 4, 1e-12), ("float32", 4, 2e-5)]
)
def test_all_three_passes(gpu, monkeypatch, dtype, m, tolerance, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=15)
    @given(cases())
    def check(case):
        x_shape, OC, window = case
        rng, C = np.random.default_rng(0), x_shape[3]
        x, w, b = (rng.standard_normal(s) for s in (x_shape, (OC, 3, 3, C), OC))
        dy = rng.standard_normal((x_shape[0], *window.out_size(*x_shape[1:3]), OC))
        dx, dw = phases.backward(dy, x, x_shape, w, window)
        there = [gpu.asarray(v.astype(dtype)) for v in (x, w, b, dy)]
        close(winograd.forward(*there[:3], window, m), patches.forward(x, w, b, window), tolerance)
        close(winograd.backward_input(there[3], there[1], window, m), dx, tolerance)
        out = gpu.full(w.shape, np.nan, dtype)
        assert winograd.backward_weight(there[3], there[0], w.shape, window, m, out) is out
        close(out, dw, tolerance)

    check()


def test_empty_batches(gpu):
    window, w = Window((3, 3)), gpu.ones((2, 3, 3, 4))
    x, dy = gpu.ones((0, 5, 5, 4)), gpu.ones((0, 3, 3, 2))
    assert winograd.forward(x, w, None, window, 4).shape == (0, 3, 3, 2)
    assert winograd.backward_input(dy, w, window, 4).shape == (0, 5, 5, 4)
    assert not winograd.backward_weight(dy, x, w.shape, window, 4).get().any()


def test_what_it_can_do():
    assert winograd.supports(Window((3, 3), padding=((1, 2), (0, 1))), 1)
    for window in (
        Window((3, 3), padding=((3, 0), (0, 0))),
        Window((3, 3), (1, 2)),
        Window((3, 3), dilation=(2, 1)),
        Window((3, 2)),
    ):
        assert not winograd.supports(window, 1)
    assert not winograd.supports(Window((3, 3)), 2)
