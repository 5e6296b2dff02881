"""Layer normalisation on a GPU against its specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.backend import to_device, to_numpy
from tinycnn.kernels.cuda import layernorm, module, norm
from tinycnn.layers.layernorm import LayerNorm, layer_norm_backward, layer_norm_forward

CASES = st.fixed_dictionaries(
    {
        "N": st.sampled_from([1, 2, 7, 40]),
        "M": st.sampled_from([1, 2, 3, 8, 40, 72, 130, 516]),
        "w": st.booleans(),
        "b": st.booleans(),
        "add": st.booleans(),
        "needs_dx": st.booleans(),
        "threads": st.sampled_from([256, 96, 32]),
        "blocks": st.sampled_from([1, 4, 1000]),
        "seed": st.integers(0, 99),
    }
)


def arrays(case, dtype=np.float64, parameters=np.float64, far=0.0):
    """x, dy, w and b."""
    rng, shape = np.random.default_rng(case["seed"]), (case["N"], case["M"])
    x = far + rng.standard_normal((shape[0], 1)) + rng.uniform(0.3, 3, (shape[0], 1)) * rng.standard_normal(shape)
    w, b = rng.uniform(0.5, 2, (2, shape[1])).astype(parameters)
    return x.astype(dtype), rng.standard_normal(shape).astype(dtype), w if case["w"] else None, b if case["b"] else None


def both_ways(case, x, dy, w, b, device):
    """y, dx, dw and db, computed on a device."""
    x, dy, w, b = (None if v is None else to_device(v.copy(), device) for v in (x, dy, w, b))
    y, statistics = layer_norm_forward(x, w, b, 1e-3)
    sinks = [None if v is None else (v * 0 + (2 if case["add"] else np.nan), case["add"]) for v in (w, b)]
    dx = layer_norm_backward(dy, x, statistics, w, tuple(sinks), case["needs_dx"])
    return [None if v is None else to_numpy(v) for v in (y, dx, *(sink and sink[0] for sink in sinks))]


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
        monkeypatch.setattr(layernorm, "THREADS", case["threads"])
        monkeypatch.setattr(norm, "THREADS", case["threads"])
        monkeypatch.setattr(layernorm, "SUMMING", case["blocks"])
        given = arrays(case)
        assert_close(both_ways(case, *given, "cuda"), both_ways(case, *given, "cpu"), 1e-12)

    check()


@pytest.mark.parametrize("far", [0, 1e3, -1e4])
def test_float32_keeps_its_digits_with_a_mean_far_from_zero(poisoned, far):
    case = {"N": 5, "M": 3000, "w": True, "b": True, "add": False, "needs_dx": True, "seed": 0}
    x, dy, *rest = arrays(case, np.float32, np.float32, far)
    got = both_ways(case, x, dy, *rest, "cuda")
    wanted = both_ways(case, x.astype(np.float64), dy.astype(np.float64), *rest, "cpu")
    assert_close(got, wanted, 1e-6)


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


@pytest.mark.parametrize("shape", [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6)])
def test_a_layer_gives_the_same_wherever_its_parameters_lie(gpu, shape):
    rng, results = np.random.default_rng(0), []
    x, dy, *values = (rng.standard_normal(s) for s in ((3, 4, 5, 6), (3, 4, 5, 6), shape, shape))
    for device in ("cpu", "cuda"):
        layer = LayerNorm(shape, dtype=np.float64)
        layer.weight.data[...], layer.bias.data[...] = values
        layer.to(device).zero_grad()
        for _ in range(2):  # the second gradient is added
            y, dx = layer(to_device(x, device)), layer.backward(to_device(dy, device))
        results.append([to_numpy(v) for v in (y, dx, layer.weight.grad, layer.bias.grad)])
    assert_close(*results, 1e-12)


def test_a_step_is_one_launch_forward_and_two_backward(gpu, monkeypatch):
    names, launch = [], module.Kernel.__call__
    monkeypatch.setattr(
        module.Kernel, "__call__", lambda self, *args, **kw: (names.append(self.name), launch(self, *args, **kw))
    )
    layer, x = LayerNorm(8).to("cuda"), gpu.zeros((3, 8), np.float32)
    layer.backward(layer(x))
    assert names == ["layer_norm_forward", "weight_gradients", "input_gradient"]
