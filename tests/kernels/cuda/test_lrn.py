"""Local response normalisation on a GPU against its specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels.cuda import lrn
from tinycnn.layers.lrn import Constants, normalize_response, normalize_response_backward

CASES = st.tuples(
    st.tuples(*[st.integers(1, 4)] * 3, st.sampled_from([1, 2, 5, 32, 70])),
    st.builds(
        Constants,
        st.integers(0, 6),
        st.integers(0, 6),
        *[st.sampled_from([0.1, 0.75, 1.0])] * 2,
        st.sampled_from([1.0, 2.0]),
    ),
    st.sampled_from([lrn.SHARED, 0]),
)


def both_ways(x, dy, constants, move):
    """y and dx."""
    y = normalize_response(move(x), constants)
    return y, normalize_response_backward(move(dy), move(x), constants)


@pytest.fixture
def poisoned(gpu, monkeypatch):
    """CuPy, whose `empty` hands out NaN."""
    monkeypatch.setattr(gpu, "empty", lambda shape, dtype: gpu.full(shape, np.nan, dtype))
    return gpu


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5), ("float16", 2e-3)])
def test_both_ways_are_the_specification(poisoned, monkeypatch, backwards, dtype, tolerance):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=20)
    @given(CASES)
    def check(case):
        shape, constants, shared = case
        monkeypatch.setattr(lrn, "SHARED", shared)
        x, dy = np.random.default_rng(0).standard_normal((2, *shape)).astype(dtype)
        got = both_ways(x, dy, constants, poisoned.asarray)
        wanted = both_ways(x.astype(np.float64), dy.astype(np.float64), constants, np.asarray)
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a.get().astype(np.float64), b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1))

    check()


def test_neighbourhoods_wider_than_the_channels_and_more_elements_than_threads(poisoned, monkeypatch):
    monkeypatch.setattr(lrn, "blocks_for", lambda n: 3)  # blocks go on to further elements
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 5, 7, 33))
    constants = Constants(50, 1000, 0.3, 0.75, 1.0)
    for a, b in zip(*(both_ways(x, dy, constants, move) for move in (poisoned.asarray, np.asarray)), strict=True):
        np.testing.assert_allclose(a.get() if hasattr(a, "get") else a, b, rtol=0, atol=1e-12)
