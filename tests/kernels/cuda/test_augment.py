"""Batches formed on a GPU against their specification: the same bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.data.augment import assemble


def bits(x):
    return x.view(f"u{x.itemsize}")


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_assemble_is_its_specification(gpu, monkeypatch, backwards, dtype):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16

    @settings(max_examples=30)
    @given(
        *(st.integers(0 if i == 0 else 1, most) for i, most in enumerate((4, 6, 7, 5))),
        *(st.booleans() for _ in range(2)),
        st.integers(0, 99),
    )
    def check(N, H, W, C, moving, colouring, seed):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (6, H, W, C), dtype=np.uint8)
        indices = rng.integers(0, 6, N)
        moves = np.concatenate([rng.integers(-8, 9, (2, N)), rng.integers(0, 2, (2, N))]) if moving and N else None
        colours = rng.uniform(-0.6, 1, (N, C, C + 1)).astype(np.float32) if colouring else None
        if colouring:
            colours[..., -1] *= 90
        scale = rng.uniform(0.3, 3, (2, C)).astype(np.float64 if dtype == "float64" else np.float32)
        arguments = images, indices, moves, colours, scale
        y = np.full((N, H, W, C), np.nan, dtype)
        own = gpu.asarray(y)
        assemble(*arguments, y)
        assemble(*(a if a is None else gpu.asarray(a) for a in arguments), own)
        np.testing.assert_array_equal(bits(own.get()), bits(y))

    check()


def test_more_rows_than_blocks_and_more_elements_than_threads(gpu):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1100, 2, 101, 3), dtype=np.uint8)
    indices, scale = rng.permutation(1100), np.ones((2, 3), np.float32)
    y = np.empty(images.shape, np.float32)
    own = gpu.full(y.shape, np.nan, np.float32)
    assemble(images, indices, None, None, scale, y)
    assemble(gpu.asarray(images), gpu.asarray(indices), None, None, gpu.asarray(scale), own)
    np.testing.assert_array_equal(own.get(), y)


def test_no_product_is_fused_with_a_sum(gpu):
    """Colours for which t + m·p, each step rounded, is half a level, and rounded once is not."""
    rng = np.random.default_rng(0)
    images = rng.integers(1, 256, (500, 1, 1, 1), dtype=np.uint8)
    m = rng.uniform(0.1, 0.5, 500).astype(np.float32)
    t = rng.integers(150, 200, 500).astype(np.float32) + np.float32(0.5) - m * images.ravel()
    colours = np.stack([m, t], axis=1)[:, None]
    arguments = images, np.arange(500), None, colours, np.array([[0], [1]], np.float32)
    y = np.empty(images.shape, np.float32)
    own = gpu.asarray(y)
    assemble(*arguments, y)
    assemble(*(a if a is None else gpu.asarray(a) for a in arguments), own)
    np.testing.assert_array_equal(own.get(), y)
    fused = np.rint(m.astype(np.float64) * images.ravel() + t)
    assert (fused != y.ravel()).any()


def test_what_it_cannot_write_is_refused(gpu):
    images, indices = gpu.zeros((2, 3, 4, 1), np.uint8), gpu.zeros(2, np.int64)
    scale = gpu.zeros((2, 1), np.float32)
    with pytest.raises(ValueError, match="assemble writes contiguous images"):
        assemble(images, indices, None, None, scale, gpu.zeros((2, 4, 3, 1), np.float32))
    with pytest.raises(ValueError, match="contiguous"):
        assemble(images, indices, None, None, scale, gpu.zeros((2, 3, 8, 1), np.float32)[:, :, ::2])
    with pytest.raises(TypeError, match="images points to unsigned char, got an array of float32"):
        assemble(images.astype(np.float32), indices, None, None, scale, gpu.zeros((2, 3, 4, 1), np.float32))
