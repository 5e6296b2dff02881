"""Group and instance normalisation on a GPU against their specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.backend import to_device, to_numpy
from tinycnn.kernels.cuda import groupnorm
from tinycnn.kernels.norm import Running
from tinycnn.layers.norm import group_norm_backward, group_norm_forward

CASES = st.fixed_dictionaries(
    {
        "N": st.integers(1, 3),
        "P": st.sampled_from([2, 3, 5, 20, 49]),
        "groups": st.sampled_from(
            [(1, 1), (1, 5), (5, 5), (8, 8), (2, 8), (1, 64), (4, 64), (20, 40), (4, 24), (3, 132), (1, 71), (1, 132)]
        ),
        "affine": st.booleans(),
        "running": st.booleans(),
        "add": st.booleans(),
        "needs_dx": st.booleans(),
        "threads": st.sampled_from([256, 96, 33]),
        "seed": st.integers(0, 99),
    }
)


def arrays(case, dtype=np.float64, parameters=np.float64, far=0.0):
    """x, dy, w, b and running statistics."""
    rng, (G, C) = np.random.default_rng(case["seed"]), case["groups"]
    shape = case["N"], case["P"], C
    x = far + rng.standard_normal((C,)) + rng.uniform(0.3, 3, C) * rng.standard_normal(shape)
    w, b, mean, var = rng.uniform(0.5, 2, (4, C)).astype(parameters)
    running = Running(mean, var, np.array(0)) if case["running"] and G == C else None
    return (
        x.astype(dtype),
        rng.standard_normal(shape).astype(dtype),
        *((w, b) if case["affine"] else (None, None)),
        running,
    )


def both_ways(case, x, dy, w, b, running, device):
    """y, dx, dw, db and the running statistics, computed on a device."""
    x, dy, w, b = (None if v is None else to_device(v.copy(), device) for v in (x, dy, w, b))
    running = running and Running(*(to_device(v.copy(), device) for v in running))
    y, statistics = group_norm_forward(x, case["groups"][0], w, b, 1e-3, running, 0.3)
    sinks = [None if v is None else (v * 0 + (2 if case["add"] else np.nan), case["add"]) for v in (w, b)]
    dx = group_norm_backward(dy, x, statistics, w, tuple(sinks), case["needs_dx"])
    results = [y, dx, *(sink and sink[0] for sink in sinks), *(running or ())[:2]]
    return [None if v is None else to_numpy(v) for v in results]


def assert_close(got, wanted, tolerance):
    """Arrays agree, relative to the largest number of each."""
    for a, b in zip(got, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a.astype(np.float64), b, rtol=0, atol=tolerance * max(np.abs(b).max(), 1))


@pytest.fixture
def poisoned(gpu, monkeypatch):
    """CuPy, whose `empty` hands out NaN."""
    monkeypatch.setattr(gpu, "empty", lambda shape, dtype: gpu.full(shape, np.nan, dtype))
    return gpu


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_both_ways_are_the_specification(poisoned, monkeypatch, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=60)
    @given(CASES)
    def check(case):
        monkeypatch.setattr(groupnorm, "THREADS", case["threads"])
        given = arrays(case)
        assert_close(both_ways(case, *given, "cuda"), both_ways(case, *given, "cpu"), 1e-12)

    check()


@pytest.mark.parametrize("far", [0, 1e3, -1e4])
def test_float32_keeps_its_digits_with_a_mean_far_from_zero(poisoned, far):
    case = {
        "N": 2,
        "P": 300,
        "groups": (2, 8),
        "affine": False,
        "running": False,
        "seed": 0,
        "add": 0,
        "needs_dx": True,
    }
    x, dy, *rest = arrays(case, np.float32, np.float32, far)
    got = both_ways(case, x, dy, *rest, "cuda")
    wanted = both_ways(case, x.astype(np.float64), dy.astype(np.float64), *rest, "cpu")
    assert_close(got[:2], wanted[:2], 1e-6)


@pytest.mark.parametrize(("dtype", "rounding"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_is_float32_rounded(poisoned, dtype, rounding):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)

    @settings(max_examples=10)
    @given(CASES)
    def check(case):
        x, dy, *rest = arrays(case, dtype, np.float32)
        got = both_ways(case, x, dy, *rest, "cuda")
        wanted = both_ways(case, x.astype(np.float32), dy.astype(np.float32), *rest, "cuda")
        assert got[0].dtype == dtype
        assert_close(got[:2], wanted[:2], 1.01 * rounding)
        assert_close(got[2:], wanted[2:], 1e-5)

    check()


@given(st.integers(1, 40), st.integers(1, 600), st.sampled_from([np.float16, np.float32, np.float64]).map(np.dtype))
def test_tiles_are_whole_groups(G, D, dtype):
    C, N = G * D, 3
    tiles = groupnorm.cut(N, C, G, dtype)
    assert tiles.span % D == 0
    assert C % tiles.V == tiles.span % tiles.V == 0
    assert tiles.grid == N * -(-C // tiles.span)
    TX, TY = tiles.block
    assert TX * TY <= 256
    assert tiles.span == D or (tiles.span <= 64 and tiles.span // tiles.V == TX)
    assert tiles.span % tiles.V == 0
