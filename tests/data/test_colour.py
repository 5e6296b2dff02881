"""Light and colour, held to Pillow, to colorsys and to the published formulas."""

import colorsys

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from tinycnn.data import Augment, ColorJitter, PCALighting
from tinycnn.data.colour import hue_turned

GREY = np.array([0.299, 0.587, 0.114])


def photos(N=4, C=3, H=9, W=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (N, C, H, W), dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "enhance"),
    [("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast), ("saturation", ImageEnhance.Color)],
)
@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
def test_light_and_colour_are_pillows(name, enhance, factor):
    """Pillow rounds greys to whole numbers, and truncates what comes out: to 2 of 255."""
    x = photos()
    y = ColorJitter(**{name: (factor, factor)})(x, np.random.default_rng(0))
    for image, changed in zip(x, y, strict=True):
        expected = np.asarray(enhance(Image.fromarray(image.transpose(1, 2, 0))).enhance(factor))
        assert np.abs(changed.transpose(1, 2, 0).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 1 / 3, 0.5])
def test_hue_is_colorsys(turns):
    x = np.random.default_rng(0).random((3, 2, 9, 8))
    x[:, 0, :3] = np.round(x[:, 0, :3] * 2) / 2  # channels that are equal, greys, black and white
    y = hue_turned(x, np.full((2, 1, 1), turns))
    for n, h, w in np.ndindex(2, 9, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[:, n, h, w])
        expected = colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)
        np.testing.assert_allclose(y[:, n, h, w], expected, rtol=0, atol=1e-12)


def test_hue_of_bytes():
    x = photos()
    y = ColorJitter(hue=(0.3, 0.3))(x, np.random.default_rng(0))
    for n, h, w in np.ndindex(4, 9, 8):
        hue, saturation, value = colorsys.rgb_to_hsv(*(x[n, :, h, w] / 255))
        expected = np.array(colorsys.hsv_to_rgb((hue + 0.3) % 1, saturation, value)) * 255
        assert np.abs(y[n, :, h, w] - expected).max() < 0.5 + 1e-3


def one_by_one(image, changes):
    """Of one image (3, H, W) in 0..1: the module docstring's formulas."""
    for name, a in changes:
        if name == "brightness":
            image = a * image
        elif name == "contrast":
            image = a * image + (1 - a) * np.tensordot(GREY, image, 1).mean()
        elif name == "saturation":
            image = a * image + (1 - a) * np.tensordot(GREY, image, 1)
        else:
            hsv = [colorsys.rgb_to_hsv(*p) for p in image.reshape(3, -1).T]
            image = np.array([colorsys.hsv_to_rgb((h + a) % 1, s, v) for h, s, v in hsv]).T.reshape(image.shape)
        image = np.clip(image, 0, 1)
    return image


@pytest.mark.parametrize("seed", range(4))
def test_all_of_them_in_the_order_drawn(seed):
    jitter, x = ColorJitter(0.8, 0.8, 0.8, 0.5), photos(seed=seed) / 255
    changes = jitter.draw(4, 3, np.random.default_rng(seed))
    y = jitter(x, np.random.default_rng(seed))
    for n in range(4):
        expected = one_by_one(x[n], [(name, amounts[n]) for name, amounts in changes])
        np.testing.assert_allclose(y[n], expected, rtol=0, atol=1e-12)


def test_orders_and_amounts():
    orders, amounts = set(), {}
    for seed in range(300):
        drawn = ColorJitter(0.4, 2.0, (0.5, 0.75), 0.1).draw(50, 3, np.random.default_rng(seed))
        orders.add(tuple(name for name, _ in drawn))
        for name, values in drawn:
            amounts.setdefault(name, []).append(values)
    assert len(orders) == 24
    ranges = {"brightness": (0.6, 1.4), "contrast": (0, 3), "saturation": (0.5, 0.75), "hue": (-0.1, 0.1)}
    for name, (least, most) in ranges.items():
        values = np.concatenate(amounts[name])
        assert least <= values.min() < least + 0.01 * (most - least)
        assert most - 0.01 * (most - least) < values.max() <= most
        assert abs(values.mean() - (least + most) / 2) < 0.02 * (most - least)


def test_nothing_asked_for_is_no_change():
    x = photos()
    np.testing.assert_array_equal(ColorJitter()(x, np.random.default_rng(0)), x)
    assert ColorJitter(hue=0.1).draw(4, 3, np.random.default_rng(0))[0][0] == "hue"


def test_grey_images_have_no_colour():
    x = photos(C=1)
    np.testing.assert_array_equal(ColorJitter(saturation=0.5, hue=0.5)(x, np.random.default_rng(0)), x)
    y = ColorJitter(contrast=(0.0, 0.0))(x, np.random.default_rng(0))
    for image, changed in zip(x, y, strict=True):
        assert np.abs(changed - image.mean()).max() <= 0.5 + 1e-3
    with pytest.raises(ValueError, match="ColorJitter takes images of 1 or 3 channels, got 2"):
        ColorJitter(0.1)(photos(C=2), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"brightness": -0.1}, r"brightness must be at least 0, got -0\.1"),
        ({"contrast": (-0.5, 1)}, r"contrast must be \(a, b\) with 0 ≤ a ≤ b ≤ inf, got \(-0\.5, 1\)"),
        ({"saturation": (2, 1)}, "saturation must be"),
        ({"hue": 0.6}, r"hue must be \(a, b\) with -0\.5 ≤ a ≤ b ≤ 0\.5, got \(-0\.6, 0\.6\)"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"ColorJitter: {message}"):
        ColorJitter(**arguments)


# ---- AlexNet's -----------------------------------------------------------------------------------------------

COVARIANCE = np.array([[0.06, 0.05, 0.04], [0.05, 0.05, 0.045], [0.04, 0.045, 0.055]])


def test_lighting_adds_one_colour_to_an_image_along_the_principal_components():
    x = np.full((20000, 3, 1, 2), 0.5)
    added = PCALighting(tuple(map(tuple, COVARIANCE)), 0.1)(x, np.random.default_rng(0)) - 0.5
    np.testing.assert_allclose(added[..., 0], added[..., 1], atol=1e-7)
    values, vectors = np.linalg.eigh(COVARIANCE)
    along = added[:, :, 0, 0] @ vectors  # aᵢ·λᵢ
    np.testing.assert_allclose(along.std(axis=0), 0.1 * values, rtol=0.03)
    assert np.abs(np.corrcoef(along.T) - np.eye(3)).max() < 0.04


def test_lighting_is_that_of_augment():
    x, covariance = photos(), tuple(map(tuple, COVARIANCE))
    np.testing.assert_array_equal(
        PCALighting(covariance, 0.2)(x, np.random.default_rng(3)),
        Augment(lighting=0.2, covariance=covariance)(x, np.random.default_rng(3)),
    )


def test_bad_lighting():
    with pytest.raises(ValueError, match=r"PCALighting: std must be at least 0, got -0\.1"):
        PCALighting(((1.0,),), -0.1)
