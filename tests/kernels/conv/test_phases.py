"""The phases of a stride against counting, and the backward through them against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.conv import phases
from tinycnn.kernels.window import Window


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 5), st.integers(1, 4))
def test_every_pixel_meets_the_outputs_that_read_it(size, taps, stride, before, dilation):
    out = 40  # more outputs than there are: those past the last read only padding
    wanted = {(stride * o + dilation * k - before, o, k) for o in range(-40, out) for k in range(taps)}
    met = set()
    for phase in phases.phases(size, taps, stride, before, dilation):
        cells = range(taps)[phase.cells]
        assert len(cells) == phase.reach.taps
        for i, pixel in enumerate(range(size)[phase.pixels]):
            for j, k in enumerate(cells):
                met.add((pixel, phase.reach.start + i + phase.reach.dilation * j, k))
    assert met == {(h, o, k) for h, o, k in wanted if 0 <= h < size}


@pytest.mark.parametrize("strips", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "G"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1), 1),
        ((3, 2), (2, 3), (1, 0), (1, 1), 1),
        ((1, 1), (2, 2), (0, 0), (1, 1), 1),
        ((3, 3), (4, 2), (5, 4), (2, 3), 1),
        ((2, 3), (2, 4), (0, 1), (2, 2), 2),
        ((5, 5), (1, 1), (6, 0), (1, 2), 3),
    ],
)
def test_both_gradients_are_pytorchs(kernel, stride, padding, dilation, G, strips, monkeypatch):
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((3, 13, 12, 6)), rng.standard_normal((12, *kernel, 6 // G))
    window = Window(kernel, stride, tuple((p, p) for p in padding), dilation)
    # (N, H, W, C) -> (N, C, H, W)
    x_torch, w_torch = (torch.from_numpy(v).permute(0, 3, 1, 2).requires_grad_() for v in (x, w))
    y = torch.nn.functional.conv2d(x_torch, w_torch, None, stride, padding, dilation, G)
    dy = rng.standard_normal((3, *y.shape[2:], 12))
    y.backward(torch.from_numpy(dy).permute(0, 3, 1, 2))
    with poisoned(monkeypatch):
        dx, dw = phases.backward(dy, x, x.shape, w, window, G, strips)
        alone, nothing = phases.backward(dy, None, x.shape, w, window, G, strips)
    assert relative_error(dx, x_torch.grad.permute(0, 2, 3, 1).numpy()) < 1e-12
    assert relative_error(dw, w_torch.grad.permute(0, 2, 3, 1).numpy()) < 1e-12
    np.testing.assert_array_equal(alone, dx)
    assert nothing is None
