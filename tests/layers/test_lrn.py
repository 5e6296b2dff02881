"""Local response normalisation against plain loops and against PyTorch."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, is_channels_last, poisoned, relative_error
from hypothesis import given
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.layers.base import LayerError
from tinycnn.layers.lrn import LocalResponseNorm, window_sums

SHAPE = st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 5), st.integers(1, 6))
OPTIONS = st.fixed_dictionaries(
    {
        "size": st.integers(1, 10),
        "alpha": st.sampled_from([1e-4, 0.3, 2.0]),
        "beta": st.sampled_from([0.5, 0.75, 2.0]),
        "k": st.sampled_from([0.5, 1.0, 2.0]),
    }
)


def images(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def activity(x, size, alpha, k):
    """k + alpha times the sum of squares over ``size`` channels, one more below than above where size is even."""
    s = np.full(x.shape, float(k))
    for c in range(x.shape[1]):
        for j in range(c - size // 2, c + (size - 1) // 2 + 1):
            if 0 <= j < x.shape[1]:
                s[:, c] += alpha * x[:, j] ** 2
    return s


@given(OPTIONS, SHAPE, st.integers(0, 99))
def test_it_is_pytorchs(options, shape, seed):
    assert_step_is_torchs(LocalResponseNorm(**options), torch.nn.LocalResponseNorm(**options), images(seed, shape))


@given(OPTIONS, SHAPE, st.integers(0, 99))
def test_the_papers_formula_does_not_divide_alpha(options, shape, seed):
    x = images(seed, shape)
    s = activity(x, options["size"], options["alpha"], options["k"])
    layer = LocalResponseNorm(**options, divide_alpha=False)
    assert relative_error(layer(x), x / s ** options["beta"]) < 1e-13


def test_backward_of_the_papers_formula_is_its_directional_derivative():
    layer, x, dx = (
        LocalResponseNorm(5, 0.5, 0.75, 2, divide_alpha=False),
        images(0, (2, 9, 3, 4)),
        images(1, (2, 9, 3, 4)),
    )
    dy, h = images(2, x.shape), 1e-5

    def f(x):
        return (dy * x / activity(x, 5, 0.5, 2) ** 0.75).sum()

    layer(x)
    wanted = (f(x + h * dx) - f(x - h * dx)) / (2 * h)
    np.testing.assert_allclose((layer.backward(dy) * dx).sum(), wanted, rtol=1e-8)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 2), (3, 0), (0, 9), (7, 7)])
def test_window_sums_and_the_mirrored_ones_are_adjoint_exactly_on_integers(before, after):
    x, y = np.random.default_rng(0).integers(-9, 10, (2, 3, 2, 5, 7)).astype(float)
    forth, back = np.empty_like(x), np.empty_like(y)
    window_sums(x, before, after, forth)
    window_sums(y, after, before, back)
    for c in range(7):
        np.testing.assert_array_equal(forth[..., c], x[..., max(c - before, 0) : c + after + 1].sum(axis=-1))
    assert (forth * y).sum() == (x * back).sum()


def run(dtype=np.float32, shape=(64, 6, 24, 20)):
    layer = LocalResponseNorm(3, 0.5)
    return layer(images(0, shape).astype(dtype)), layer.backward(images(1, shape).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_and_memory_order(dtype):
    for result in run(dtype):
        assert result.dtype == dtype
        assert is_channels_last(result)


def test_the_number_of_threads_changes_no_bit():
    parallel.set_num_threads(1)
    one = run()
    parallel.set_num_threads(2)
    for a, b in zip(one, run(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_uninitialised_memory_is_not_read(monkeypatch):
    clean = run()
    with poisoned(monkeypatch):
        dirty = run()
    for a, b in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalResponseNorm(0), "LocalResponseNorm: size must be at least 1, got 0"),
        (lambda: LocalResponseNorm(3)(np.ones((2, 3))), r"expected an input of shape \(N, C, H, W\), got \(2, 3\)"),
    ],
)
def test_errors_say_what_is_wrong(make, message):
    with pytest.raises(LayerError, match=message):
        make()


def test_repr_leaves_defaults_out():
    assert repr(LocalResponseNorm(5)) == "LocalResponseNorm(5)"
    assert repr(LocalResponseNorm(5, 1e-3, 0.5, 2, divide_alpha=False)) == (
        "LocalResponseNorm(5, alpha=0.001, beta=0.5, k=2, divide_alpha=False)"
    )
