import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tinycnn.data import Normalize, fit_images
from tinycnn.data.transforms import interpolation_matrix

torch = pytest.importorskip("torch")


def photos(N=2, C=3, H=5, W=4, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, C, H, W), dtype=np.uint8)


# ---- scale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("C", [1, 3])
def test_normalize_pixel_by_pixel(dtype, tolerance, C):
    x, mean, std = photos(C=C), (0.4914, 0.4822, 0.4465)[:C], (0.2470, 0.2435, 0.2616)[:C]
    before = x.copy()
    y = Normalize(mean, std, dtype)(x)
    assert y.dtype == dtype
    assert y.shape == x.shape
    assert is_channels_last(y)
    np.testing.assert_array_equal(x, before)
    for n, c, h, w in np.ndindex(x.shape):
        assert abs(float(y[n, c, h, w]) - (int(x[n, c, h, w]) / 255 - mean[c]) / std[c]) < tolerance


def test_normalize_does_not_care_about_memory_order():
    x = photos()
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    normalize = Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    np.testing.assert_array_equal(normalize(x), normalize(last))
    np.testing.assert_array_equal(normalize(x[:, :, ::2, ::-1]), normalize(x)[:, :, ::2, ::-1])


def test_normalize_takes_floats_to_lie_in_0_to_1():
    x = photos(C=1)
    normalize = Normalize((0.3,), (0.2,), "float64")
    floats = x / 255
    before = floats.copy()
    np.testing.assert_allclose(normalize(floats), normalize(x), rtol=0, atol=1e-14)
    np.testing.assert_array_equal(floats, before)
    assert Normalize((0.3,), (0.2,))(floats).dtype == np.float32


def test_normalize_to_half_precision_rounds_the_float32():
    x, normalize = photos(), Normalize((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    y = Normalize(normalize.mean, normalize.std, "float16")(x)
    assert y.dtype == np.float16
    np.testing.assert_array_equal(y, normalize(x).astype(np.float16))


def test_normalize_errors():
    with pytest.raises(ValueError, match="Normalize needs as many std as mean"):
        Normalize((0.1, 0.2), (0.3,))
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="all positive"):
            Normalize((0.1,), (bad,))
    with pytest.raises(ValueError, match="Normalize has 1 means, the images 3 channels"):
        Normalize((0.1,), (0.3,))(photos())


# ---- size ----------------------------------------------------------------------------------------------------

sides = st.integers(1, 12)


def torch_resize(x: np.ndarray, size, antialias: bool) -> np.ndarray:
    return torch.nn.functional.interpolate(
        torch.from_numpy(x), size, mode="bilinear", align_corners=False, antialias=antialias
    ).numpy()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(H=sides, W=sides, OH=sides, OW=st.integers(2, 12))
def test_resizing_equals_pytorch(H, W, OH, OW):
    """To a width of 2 or more: to a width of 1, PyTorch 2.13 repeats the first row when it antialiases."""
    x = np.random.default_rng([H, W]).normal(size=(2, 3, H, W))
    y = fit_images(x, (OH, OW), "resize")
    assert y.dtype == x.dtype
    assert is_channels_last(y)
    np.testing.assert_allclose(y, torch_resize(x, (OH, OW), antialias=True), rtol=0, atol=1e-12)
    if OH >= H and OW >= W:
        np.testing.assert_allclose(y, torch_resize(x, (OH, OW), antialias=False), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(3, 5), (4, 1), (1, 9), (12, 11), (9, 40), (31, 2)])
def test_resizing_equals_pillow(size):
    x = np.random.default_rng(0).random((1, 1, 9, 11), np.float32)
    expected = Image.fromarray(x[0, 0]).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(fit_images(x, size, "resize")[0, 0], np.asarray(expected), rtol=0, atol=1e-6)


def test_enlarging_equals_scipy():
    x = np.random.default_rng(0).normal(size=(1, 1, 8, 8))
    expected = ndimage.zoom(x[0, 0], 4, order=1, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(fit_images(x, (32, 32))[0, 0], expected, rtol=0, atol=1e-12)


def test_two_pixels_by_hand():
    """Centres of four new pixels among two: −¼, ¼, ¾, 1¼."""
    assert interpolation_matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert interpolation_matrix(4, 2).tolist() == [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]]
    assert interpolation_matrix(3, 3).tolist() == np.eye(3).tolist()


def test_bytes_are_rounded_from_the_exact_value():
    x = photos(C=1, H=8, W=8)
    y = fit_images(x, (32, 32))
    assert y.dtype == np.uint8
    exact = torch_resize(x.astype(np.float64), (32, 32), antialias=False)
    assert np.abs(y - exact).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(fit_images(np.full_like(x, 255), (32, 32)), 255)


def test_float32_stays_float32():
    assert fit_images(photos().astype(np.float32), (9, 9)).dtype == np.float32


def test_mnist_is_padded_to_lenets_size():
    x = photos(C=1, H=28, W=28)
    y = fit_images(x, (32, 32))
    np.testing.assert_array_equal(y, np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2))))
    assert y.dtype == np.uint8
    assert is_channels_last(y)


def test_what_is_padded_and_what_is_resized():
    padded = np.pad(photos(C=1, H=8, W=8), ((0, 0), (0, 0), (0, 1), (1, 1)))  # odd rests go below and to the right
    np.testing.assert_array_equal(fit_images(photos(C=1, H=8, W=8), (9, 10)), padded)
    resized = [((1, 8, 8), (11, 8)), ((1, 8, 8), (8, 7)), ((1, 8, 8), (9, 7)), ((3, 8, 8), (9, 9))]
    for (C, H, W), size in resized:
        x = photos(C=C, H=H, W=W)
        np.testing.assert_array_equal(fit_images(x, size), fit_images(x, size, "resize"))
    x = photos(C=3, H=8, W=8)
    np.testing.assert_array_equal(fit_images(x, (20, 8), "pad"), np.pad(x, ((0, 0), (0, 0), (6, 6), (0, 0))))


def test_same_size_is_only_a_matter_of_memory_order():
    x = photos()
    for method in ("auto", "pad", "resize"):
        y = fit_images(x, (5, 4), method)
        np.testing.assert_array_equal(y, x)
        assert is_channels_last(y)


def test_fit_images_errors():
    with pytest.raises(ValueError, match="cannot pad images of 5×4 to 8×3: use method='resize'"):
        fit_images(photos(), (8, 3), "pad")
    with pytest.raises(ValueError, match="by 'crop': sizes from 1, methods auto, pad, resize"):
        fit_images(photos(), (8, 8), "crop")
    with pytest.raises(ValueError, match=r"to size \(0, 8\)"):
        fit_images(photos(), (0, 8))
