"""Sums of parts on a GPU."""

import numpy as np
import pytest

from tinycnn.kernels.cuda import parts as parts_module
from tinycnn.kernels.cuda.parts import add_parts


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("splits", [1, 2, 8, 9, 50])
@pytest.mark.parametrize("shape", [(3,), (70, 11)])
def test_parts_are_added_up(gpu, monkeypatch, shape, splits, backwards):
    """By two blocks, so that each does several elements after another."""
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    monkeypatch.setattr(parts_module, "blocks_for", lambda n, threads: 2)
    rng = np.random.default_rng(0)
    parts, bias, y = (rng.standard_normal(s) for s in ((splits, *shape), shape[-1], shape))
    own = gpu.full(shape, np.nan)
    add_parts(gpu.asarray(parts), None, own)
    np.testing.assert_allclose(own.get(), parts.sum(axis=0), rtol=1e-13, atol=1e-13)
    own = gpu.asarray(y)
    add_parts(gpu.asarray(parts), gpu.asarray(bias), own, add=True)
    np.testing.assert_allclose(own.get(), y + parts.sum(axis=0) + bias, rtol=1e-13, atol=1e-13)


def test_sums_are_rounded_once(gpu):
    parts = gpu.asarray(np.float32([[2048], [1], [1]]))
    y = gpu.empty(1, np.float16)
    add_parts(parts, None, y)
    assert y.get() == 2050
