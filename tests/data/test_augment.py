"""Random changes, held to loops over pixels, to Pillow and to the distributions they are drawn from."""

import numpy as np
import pytest
from helpers import is_channels_last
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from tinycnn.data import Augment, RandomShift, pixel_covariance
from tinycnn.data.augment import assemble, coloured, moved, pixel_means


def photos(N=2, C=3, H=5, W=4, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (N, C, H, W), dtype=np.uint8)


# ---- making changes ------------------------------------------------------------------------------------------


def pixel(image, move, h, w):
    """Where the pixel (h, w) of an image (H, W, C) goes, one step after the other; None if it is lost."""
    H, W, _ = image.shape
    down, right, mirrored, upside_down = move
    h, w = h + down, w + right
    if not (0 <= h < H and 0 <= w < W):
        return None
    return H - 1 - h if upside_down else h, W - 1 - w if mirrored else w


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_images_are_moved_and_then_turned(N, H, W, C, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 256, (N, H, W, C), dtype=np.uint8)
    moves = np.concatenate([rng.integers(-6, 7, (2, N)), rng.integers(0, 2, (2, N))])
    expected = np.zeros_like(x)
    for n, h, w in np.ndindex(N, H, W):
        if (place := pixel(x[n], moves[:, n], h, w)) is not None:
            expected[n][place] = x[n, h, w]
    np.testing.assert_array_equal(moved(x, moves), expected)


def test_colours_pixel_by_pixel():
    """In exact fractions, but for the rounding at the end."""
    rng = np.random.default_rng(0)
    x, colours = photos(4).transpose(0, 2, 3, 1), rng.uniform(-0.5, 1.2, (4, 3, 4)).astype(np.float32)
    colours[..., 3] *= 60
    y = coloured(x, colours)
    assert y.dtype == np.uint8
    for n, h, w, c in np.ndindex(x.shape):
        exact = sum(float(colours[n, c, k]) * int(x[n, h, w, k]) for k in range(3)) + float(colours[n, c, 3])
        assert abs(y[n, h, w, c] - np.clip(exact, 0, 255)) < 0.5 + 1e-4
    assert {0, 255} < set(y.ravel().tolist())
    floats = coloured(x / 255, colours)
    assert floats.dtype == np.float64
    np.testing.assert_allclose(floats * 255, y, rtol=0, atol=0.5 + 1e-4)


def test_a_batch_is_gathered_moved_coloured_and_scaled():
    x = photos(5).transpose(0, 2, 3, 1).copy()
    moves, colours = np.array([[1, 0], [0, -2], [1, 0], [0, 1]]), np.zeros((2, 3, 4), np.float32)
    colours[:, :, :3], colours[..., 3] = 0.5 * np.eye(3), 10
    scale = np.array([[1, 2, 3], [0.5, 0.25, 2]])
    y = np.full((2, 5, 4, 3), np.nan)
    assemble(x, np.array([3, 1]), moves, colours, scale, y)
    for n, (image, move) in enumerate([(x[3], moves[:, 0]), (x[1], moves[:, 1])]):
        q = np.zeros(image.shape)
        for h, w in np.ndindex(5, 4):
            if (place := pixel(image, move, h, w)) is not None:
                q[place] = image[h, w]
        np.testing.assert_array_equal(y[n], (np.rint(0.5 * q + 10) - scale[0]) * scale[1])


def test_means():
    x = photos().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(pixel_means(x), x.mean(axis=(1, 2)), rtol=1e-15)
    np.testing.assert_allclose(pixel_means(x / 255), x.mean(axis=(1, 2)), rtol=1e-12)


# ---- shifts --------------------------------------------------------------------------------------------------


def shifted(image: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Pixel (h, w) of an image (C, H, W) moves to (h + dy, w + dx)."""
    C, H, W = image.shape
    out = np.zeros_like(image)
    for c, h, w in np.ndindex(C, H, W):
        if 0 <= h + dy < H and 0 <= w + dx < W:
            out[c, h + dy, w + dx] = image[c, h, w]
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_every_image_is_shifted_its_own_way(dtype):
    k = 2
    x = (photos(N=60, C=2) // 2 + 1).astype(dtype)  # no zeros: every shift looks different
    before = x.copy()
    y = RandomShift(k)(x, np.random.default_rng(0))
    np.testing.assert_array_equal(x, before)
    assert y.dtype == dtype
    assert is_channels_last(y)
    moves = []
    for image, changed in zip(x, y, strict=True):
        fits = [
            (dy, dx)
            for dy in range(-k, k + 1)
            for dx in range(-k, k + 1)
            if np.array_equal(shifted(image, dy, dx), changed)
        ]
        assert len(fits) == 1
        moves += fits
    assert len(set(moves)) > 20  # of 25


def test_shifts_are_uniform_along_both_axes():
    x = np.zeros((4000, 1, 5, 5), np.uint8)
    x[:, :, 2, 2] = 1
    y = RandomShift(2)(x, np.random.default_rng(1)).sum(axis=(0, 1), dtype=np.int64)
    assert y.sum() == 4000
    assert np.abs(y - 160).max() < 5 * np.sqrt(160)


def test_shift_by_nothing_and_by_more_than_the_image():
    x = photos()
    np.testing.assert_array_equal(RandomShift(0)(x, np.random.default_rng(0)), x)
    assert RandomShift(9)(x, np.random.default_rng(0)).shape == x.shape


def test_shift_errors_and_words():
    with pytest.raises(ValueError, match="at least 0, got -1"):
        RandomShift(-1)
    assert repr(RandomShift(2)) == "RandomShift(pixels=2)"


# ---- all of them ---------------------------------------------------------------------------------------------


def test_turning_is_even_and_independent():
    x = np.zeros((4000, 1, 2, 2), np.uint8)
    x[:, 0, 0, 0] = 1
    y = Augment(mirror=True, upside_down=True)(x, np.random.default_rng(0))
    corners = y.reshape(4000, 4).sum(axis=0, dtype=np.int64)
    assert corners.sum() == 4000
    assert np.abs(corners - 1000).max() < 5 * np.sqrt(750)
    y = Augment(mirror=True)(x, np.random.default_rng(0))
    assert y[:, :, 1].sum() == 0


def test_a_shift_alone_is_the_random_shift():
    x = photos(20)
    np.testing.assert_array_equal(
        Augment(shift=2)(x, np.random.default_rng(5)), RandomShift(2)(x, np.random.default_rng(5))
    )


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
def test_light_and_colour_as_in_pillow(name, enhance):
    """Pillow rounds the grey to whole numbers, and so on: to 2 of 255."""
    x = photos(30, H=12, W=12)
    y = Augment(**{name: 0.5})(x, np.random.default_rng(0))
    assert is_channels_last(y)
    found = []
    for image, changed in zip(x.transpose(0, 2, 3, 1), y.transpose(0, 2, 3, 1), strict=True):
        pillow = enhance(Image.fromarray(image))
        factors = np.linspace(0.5, 1.5, 401)
        errors = [np.abs(np.asarray(pillow.enhance(f)).astype(int) - changed).max() for f in factors]
        assert min(errors) <= 2
        found.append(factors[np.argmin(errors)])
    assert min(found) < 0.6
    assert max(found) > 1.4


def test_changes_one_after_the_other():
    """Brightness, contrast and saturation as formulas on pixels, one by one, of images that are not clipped."""
    augment, x = Augment(brightness=0.3, contrast=0.3, saturation=0.3), 100 + photos(8) // 8
    means = pixel_means(x.transpose(0, 2, 3, 1))
    colours = augment.draw(means, np.random.default_rng(1)).colours
    rng = np.random.default_rng(1)
    rng.integers(0, 1, (2, 8))
    b, c, s = (1 + 0.3 * rng.uniform(-1, 1, 8) for _ in range(3))
    for n in range(8):
        p = b[n] * x[n].astype(np.float64)
        p = c[n] * p + (1 - c[n]) * np.tensordot([0.299, 0.587, 0.114], p, 1).mean()
        p = s[n] * p + (1 - s[n]) * np.tensordot([0.299, 0.587, 0.114], p, 1)
        q = np.einsum("ck,khw->chw", colours[n, :, :3], x[n]) + colours[n, :, 3, None, None]
        np.testing.assert_allclose(q, p, rtol=1e-5)


def test_lighting_is_the_noise_of_alexnet():
    """Its covariance is that of Σᵢ pᵢ aᵢ λᵢ, from the eigenvectors."""
    covariance = np.array([[0.06, 0.05, 0.04], [0.05, 0.05, 0.045], [0.04, 0.045, 0.055]])
    augment = Augment(lighting=0.1, covariance=tuple(map(tuple, covariance)))
    colours = augment.draw(np.zeros((200_000, 3)), np.random.default_rng(0)).colours
    np.testing.assert_array_equal(colours[..., :3], np.broadcast_to(np.eye(3, dtype=np.float32), (200_000, 3, 3)))
    values, vectors = np.linalg.eigh(covariance)
    expected = 255**2 * 0.01 * vectors @ np.diag(values**2) @ vectors.T
    np.testing.assert_allclose(np.cov(colours[..., 3].T), expected, rtol=0.03)
    assert np.abs(colours[..., 3].mean(axis=0)).max() < 0.05


def test_pixel_covariance():
    x = photos(7)
    expected = np.cov(x.transpose(1, 0, 2, 3).reshape(3, -1) / 255, bias=True)
    np.testing.assert_allclose(pixel_covariance(x), expected, rtol=1e-10)
    np.testing.assert_allclose(pixel_covariance(x / 255), expected, rtol=1e-10)


def test_grey_images():
    x = photos(3, C=1)
    y = Augment(shift=1, mirror=True, brightness=0.4, contrast=0.4)(x, np.random.default_rng(0))
    assert y.shape == x.shape
    assert (y != x).any()


def test_no_change_is_none():
    x = photos()
    np.testing.assert_array_equal(Augment()(x, np.random.default_rng(0)), x)
    assert Augment().draw(np.zeros((2, 3)), np.random.default_rng(0)).colours is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": -1}, "at least 0, got -1"),
        ({"contrast": 1.5}, r"contrast must lie between 0 and 1, got 1\.5"),
        ({"brightness": -0.1}, "brightness must lie"),
        ({"lighting": 0.1}, r"needs a covariance: got 0\.1 and None"),
        ({"lighting": -1.0, "covariance": ((1.0,),)}, "lighting must be at least 0"),
    ],
)
def test_bad_augmentations(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)
