"""What is particular to grouped.cu; `test_depthwise` has its convolutions."""

import numpy as np
import pytest

from tinycnn.kernels.cuda import grouped


@pytest.mark.parametrize(("count", "others"), [(0, 3), (1, 1), (5000, 1), (10**6, 9), (10**6, 5000)])
def test_sums_are_cut_by_sizes_alone(count, others):
    chunks, length = grouped.cut(count, others, 64)
    assert chunks * length >= count
    assert (chunks - 1) * length < count or chunks == 0
    assert length >= 64
    assert chunks <= max(1, grouped.WEIGHT_BLOCKS // others)


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_chunks_are_added_up_to_filters(gpu, monkeypatch, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    parts = np.random.default_rng(0).integers(-9, 10, (37, 6, 11)).astype(np.float32)
    dw = grouped.finish(gpu.asarray(parts), (11, 3, 2, 1), np.dtype(np.float32), None, False)
    np.testing.assert_array_equal(dw.get().reshape(11, 6), parts.sum(0).T)
