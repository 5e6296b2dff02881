"""Per-pixel mean, contrast normalisation and whitening."""

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn.backend import to_device
from tinycnn.data import GCN, ZCA, PerPixelMean
from tinycnn.data import whitening as module


def photos(N=40, C=3, H=3, W=2, seed=0):
    """With correlations between the pixels."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(N, 1, 1, 1)) * 40
    return np.clip(128 + common + rng.normal(size=(N, C, H, W)) * 25, 0, 255).astype(np.uint8)


kinds = pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])


def of(dtype, x):
    return x if dtype == "uint8" else (x / 255).astype(dtype)


@kinds
@pytest.mark.parametrize(
    "make", [PerPixelMean.fit, lambda x: GCN(), lambda x: ZCA.fit(x, 0.01)], ids=["mean", "gcn", "zca"]
)
def test_types_memory_and_input(make, dtype):
    x = of(dtype, photos())
    before = x.copy()
    y = make(x)(x)
    assert y.dtype == ("float64" if dtype == "float64" else "float32")
    assert is_channels_last(y)
    assert y.shape == x.shape
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(y, make(photos() / 255)(photos() / 255), atol=0.1 if dtype == "float16" else 2e-4)


@kinds
def test_mean_of_each_pixel(dtype, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 7)  # 40 images are six chunks
    x = of(dtype, photos())
    fitted = PerPixelMean.fit(x)
    assert fitted.mean.dtype == np.float64
    np.testing.assert_allclose(
        fitted.mean, photos().mean(axis=0) / 255, rtol=0, atol=1e-3 if dtype == "float16" else 1e-6
    )
    y = fitted(x[:3])
    np.testing.assert_allclose(y, photos()[:3] / 255 - photos().mean(axis=0) / 255, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 10.0), (55.0, 0.0)])
def test_contrast_image_by_image(scale, bias):
    x = photos(5)
    y, floats = GCN(scale, bias)(x), GCN(scale, bias)(x / 255)
    for image, result, other in zip(x.astype(float), y, floats, strict=True):
        expected = scale * (image - image.mean()) / np.sqrt(bias + image.var())
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5 * scale)
        np.testing.assert_allclose(other, expected, rtol=0, atol=1e-12 * scale)


def test_an_even_image_has_no_contrast():
    for bias in (0.0, 10.0):
        y = GCN(bias=bias)(np.full((2, 1, 3, 3), 77, np.uint8))
        np.testing.assert_array_equal(y, 0)


def test_whitened_images_are_white_and_close_to_what_they_were(monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 64)
    x = photos(500) / 255
    whiten = ZCA.fit(x, eps=0.0)
    rows = whiten(x).reshape(500, -1)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.cov(rows.T, bias=True), np.eye(18), rtol=0, atol=1e-10)
    # of all whitening matrices the symmetric positive one is closest
    np.testing.assert_allclose(whiten.matrix, whiten.matrix.T, atol=1e-10)
    assert np.linalg.eigvalsh(whiten.matrix).min() > 0
    assert np.corrcoef(rows.ravel(), (x - x.mean(axis=0)).reshape(500, -1).ravel())[0, 1] > 0.5


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.1])
def test_the_matrix_is_the_inverse_root(eps):
    """By a Newton iteration (Denman, Beavers 1976), which knows no eigenvectors."""
    x = photos(300) / 255
    root = np.cov(x.reshape(300, -1).T, bias=True) + eps * np.eye(18)
    inverse = np.eye(18)
    for _ in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    np.testing.assert_allclose(ZCA.fit(x, eps).matrix, inverse, rtol=0, atol=1e-8)


def test_what_never_varies_is_not_blown_up():
    """More pixels than images: without eps, what has no variance is left out."""
    x = photos(5) / 255
    y = ZCA.fit(x, eps=0.0)(x).reshape(5, -1)
    assert np.isfinite(y).all()
    values = np.sort(np.linalg.eigvalsh(np.cov(y.T, bias=True)))
    np.testing.assert_allclose(values[-4:], 1, atol=1e-8)  # 5 images less their mean
    np.testing.assert_allclose(values[:-4], 0, atol=1e-8)
    assert (ZCA.fit(np.full((3, 1, 2, 2), 9, np.uint8), 0.0)(np.full((3, 1, 2, 2), 9, np.uint8)) == 0).all()


@pytest.mark.parametrize("kind", ["mean", "gcn", "zca"])
def test_on_a_gpu(gpu, kind):
    x = photos()
    make = {"mean": PerPixelMean.fit, "gcn": lambda _: GCN(), "zca": lambda x: ZCA.fit(x, 0.1)}[kind]
    there = make(to_device(x, "cuda"))(to_device(x, "cuda"))
    assert isinstance(there, gpu.ndarray)
    assert is_channels_last(there)
    np.testing.assert_allclose(there.get(), make(x)(x), rtol=0, atol=1e-5)
    np.testing.assert_allclose(make(x)(to_device(x, "cuda")).get(), make(x)(x), rtol=0, atol=1e-5)


def test_errors():
    x = photos()
    for fitted in (PerPixelMean.fit(x), ZCA.fit(x)):
        with pytest.raises(ValueError, match=r"was fitted to images \(3, 3, 2\), got a batch \(40, 3, 2, 3\)"):
            fitted(x.transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match=r"images \(N, C, H, W\), N ≥ 1, got \(0, 3, 3, 2\)"):
        PerPixelMean.fit(x[:0])
    with pytest.raises(ValueError, match="ZCA: eps must be a number from 0 on, got -1"):
        ZCA.fit(x, -1)
    for bad in ({"scale": 0.0}, {"bias": -1.0}):
        with pytest.raises(ValueError, match="GCN needs a positive scale and a bias from 0 on"):
            GCN(**bad)
