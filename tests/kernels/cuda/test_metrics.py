"""Running sums of an epoch on a GPU against their specification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.kernels.metrics import count_batch

DTYPES = ["float64", "float32", "float16", "bfloat16"]
SHAPES = st.sampled_from([(1, 1), (5, 3), (9, 33), (2, 70), (3, 4, 5, 2), (600, 10), (0, 4), (130, 64)])


def dtype_of(name):
    return pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else np.dtype(name)


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_counts(gpu, monkeypatch, dtype, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    kind = dtype_of(dtype)

    @settings(max_examples=15)
    @given(SHAPES, st.integers(0, 99), st.sampled_from(["int64", "uint8", "float32"]), st.booleans())
    def check(shape, seed, labels, odd):
        rng = np.random.default_rng(seed)
        logits = rng.integers(-3, 4, shape).astype(np.float64)  # many are equal
        if odd:
            logits[rng.random(shape) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
        targets = rng.integers(0, shape[1], (shape[0], *shape[2:])).astype(labels)
        loss = np.array(rng.normal(), np.float64 if dtype == "float64" else np.float32)
        own, wanted = [(xp.ones(1) * 7.5, xp.full(1, 3, np.int64)) for xp in (gpu, np)]
        count_batch(logits, targets, loss, *wanted)
        count_batch(gpu.asarray(logits.astype(kind)), gpu.asarray(targets), gpu.asarray(loss), *own)
        for a, b in zip(own, wanted, strict=True):
            np.testing.assert_array_equal(a.get(), b)

    check()


def test_pixels_on_channels_last_memory(gpu):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(2, 3, 4, 5)).transpose(0, 3, 1, 2), rng.integers(0, 5, (2, 3, 4))
    own, wanted = [(xp.zeros(1), xp.zeros(1, np.int64)) for xp in (gpu, np)]
    count_batch(logits, targets, np.array(1.0), *wanted)
    on_gpu = gpu.asarray(np.ascontiguousarray(logits.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    count_batch(on_gpu, gpu.asarray(targets), gpu.asarray(1.0), *own)
    assert int(own[1][0]) == int(wanted[1][0]) > 0
