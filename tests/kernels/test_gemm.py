"""Products in blocks against plain ones."""

import numpy as np
import pytest
from helpers import poisoned

from tinycnn.kernels import gemm

# (M, K, N): fewer rows than a block, blocks and a rest, whole blocks, too wide for blocks
SIZES = [(5, 3, 2), (4097, 30, 20), (1666 * 2, 30, 20), (300, 400, 120), (0, 3, 2), (40, 1, 1)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_and_inner_are_the_products(size, dtype, monkeypatch):
    M, K, N = size
    rng = np.random.default_rng(0)
    a, b, dy = (rng.integers(-3, 4, shape).astype(dtype) for shape in ((M, K), (K, N), (M, N)))
    with poisoned(monkeypatch):
        out = np.empty((M, N), dtype)
        gemm.rows(a, b, out)
        np.testing.assert_array_equal(out, a @ b)
        np.testing.assert_array_equal(gemm.inner(a, dy), a.T @ dy)
    assert gemm.inner(a, dy).dtype == dtype


def test_operands_need_not_be_contiguous():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-3, 4, (4100, 2, 15)).astype(float), rng.integers(-3, 4, (20, 15)).astype(float)
    out = np.empty((4100, 20))
    gemm.rows(a[:, 1], b.T, out)
    np.testing.assert_array_equal(out, a[:, 1] @ b.T)
    np.testing.assert_array_equal(gemm.inner(a[:, 1], out), a[:, 1].T @ out)
