"""Linear layers on a GPU against their specification."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.precision import precision
from tinycnn.layers import linear

features = st.sampled_from((1, 2, 3, 8, 33))


@hypothesis.settings(max_examples=15, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
@given(st.integers(0, 5), features, features, st.booleans())
def test_linear_is_its_specification(gpu, N, IN, OUT, bias):
    rng = np.random.default_rng(0)
    x, w, b, dy, dw = (rng.standard_normal(s) for s in ((N, IN), (OUT, IN), OUT, (N, OUT), (OUT, IN)))
    own_x, own_w, own_b, own_dy, own_dw = map(gpu.asarray, (x, w, b, dy, dw))
    y = linear.linear_forward(own_x, own_w, own_b if bias else None)
    np.testing.assert_allclose(y.get(), x @ w.T + b * bias, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(linear.linear_backward_input(own_dy, own_w).get(), dy @ w, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(linear.linear_backward_bias(own_dy).get(), dy.sum(axis=0), rtol=1e-12, atol=1e-12)
    linear.linear_backward_weight(own_dy, own_x, own_dw, add=True)
    np.testing.assert_allclose(own_dw.get(), dw + dy.T @ x, rtol=1e-12, atol=1e-12)
    linear.linear_backward_weight(own_dy, own_x, own_dw)
    np.testing.assert_allclose(own_dw.get(), dy.T @ x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["float32", "tf32"])
def test_a_deep_product_is_cut_into_parts(gpu, name):
    """(8, 4096) by (4096, 16), positive numbers: the sum is about 1000, of as many roundings as there are terms."""
    rng = np.random.default_rng(0)
    x, w, b = rng.random((8, 4096), np.float32), rng.random((16, 4096), np.float32), np.arange(16, dtype=np.float32)
    with precision(name):
        y = linear.linear_forward(*map(gpu.asarray, (x, w, b)))
    wanted = x.astype(np.float64) @ w.T + b
    np.testing.assert_allclose(y.get(), wanted, rtol=1e-6 if name == "float32" else 1e-3)
