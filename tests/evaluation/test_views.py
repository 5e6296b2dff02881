"""Crops, mirror images and sizes."""

import numpy as np
import pytest
from helpers import is_channels_last
from PIL import Image

from tinycnn import data
from tinycnn.evaluation import Mirrored, MultiScale, SingleView, TenCrop

torch = pytest.importorskip("torch")


def images(N=2, C=3, H=9, W=7, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal((N, C, H, W)).astype(dtype)


def ten_crop_in_torch(x, size):
    """Four corners and the middle with slices from the edges, and the same of flip (torch has no negative steps)."""
    x = torch.from_numpy(np.ascontiguousarray(x))
    H, W = x.shape[2:]
    top, left = round((H - size) / 2), round((W - size) / 2)
    five = [
        x[..., :size, :size],
        x[..., :size, W - size :],
        x[..., H - size :, :size],
        x[..., H - size :, W - size :],
        x.narrow(2, top, size).narrow(3, left, size),
    ]
    return [view.numpy() for view in (*five, *(torch.flip(view, (3,)) for view in five))]


@pytest.mark.parametrize(("H", "W", "size"), [(9, 7, 4), (8, 8, 5), (6, 11, 6), (5, 5, 5), (6, 7, 1)])
def test_ten_crops_in_order(H, W, size):
    x = images(H=H, W=W)
    before = x.copy()
    found = list(TenCrop(size)(x))
    assert len(found) == 10
    for view, expected in zip(found, ten_crop_in_torch(x, size), strict=True):
        assert np.array_equal(view, expected)
        assert view.dtype == x.dtype
        assert is_channels_last(view)
    assert np.array_equal(x, before)


def test_ten_crops_of_the_whole_image_are_five_times_two():
    x = images(H=6, W=6)
    found = list(TenCrop(6)(x))
    assert all(np.array_equal(view, x) for view in found[:5])
    assert all(np.array_equal(view, x[..., ::-1]) for view in found[5:])


def test_ten_crops_of_a_symmetric_image_are_five_twice():
    half = images(W=4)
    x = np.concatenate([half, half[..., ::-1]], axis=3)  # (N, C, 9, 8), its own mirror image
    tl, tr, bl, br, middle, *mirrored = TenCrop(4)(x)
    for view, expected in zip(mirrored, (tr, tl, br, bl, middle), strict=True):
        assert np.array_equal(view, expected)


def test_single_and_mirrored():
    x = images()
    (whole,) = SingleView()(x)
    assert np.array_equal(whole, x)
    (middle,) = SingleView(4)(x)
    assert np.array_equal(middle, x[:, :, 2:6, 2:6])  # 5/2 and 3/2 rounded to even
    for size, expected in ((None, x), (4, middle)):
        plain, mirror = Mirrored(size)(x)
        assert np.array_equal(plain, expected)
        for w in range(expected.shape[3]):
            assert np.array_equal(mirror[..., w], expected[..., -1 - w])
        assert is_channels_last(mirror)


def test_the_middle_is_where_a_photograph_is_cut(tmp_path):
    """The middle 224 of the middle 256 is the middle 224 that `load_folder` cuts out of the shorter side 256."""
    rng = np.random.default_rng(0)
    for label in "ab":
        (tmp_path / label).mkdir()
        for i, (w, h) in enumerate([(340, 256), (341, 256), (256, 343), (400, 300), (256, 256)]):
            picture = Image.fromarray(rng.integers(0, 256, (h // 8, w // 8, 3), dtype=np.uint8))
            picture.resize((w, h)).save(tmp_path / label / f"{i}.png")
    large = data.load_folder(tmp_path, "all", (256, 256), 256)
    small = data.load_folder(tmp_path, "all", (224, 224), 256)
    (middle,) = SingleView(224)(large.images)
    assert np.array_equal(middle, small.images)


# ---- scales ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("H", "W", "size", "new"), [(9, 7, 14, (18, 14)), (8, 11, 5, (5, 6)), (6, 6, 6, (6, 6))])
def test_scales_are_those_of_pytorch(H, W, size, new):
    x = images(H=H, W=W, dtype="float64")
    plain, mirror = MultiScale([size])(x)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(x), size=new, mode="bilinear", antialias=True, align_corners=False
    ).numpy()
    assert plain.shape[2:] == new
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(mirror, plain[..., ::-1])
    assert is_channels_last(plain)


def test_normalising_before_resizing_or_after_is_the_same():
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 12, 10), dtype=np.uint8)
    normalize = data.Normalize((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    plain, _ = MultiScale([7])(normalize(pixels))
    planes = [Image.fromarray(plane).resize((7, 8), Image.Resampling.BILINEAR) for plane in pixels[0]]
    expected = normalize(np.stack([np.asarray(plane) for plane in planes])[None])
    assert np.abs(plain - expected).max() < 1.01 / 255 / 0.2  # Pillow rounds to bytes, twice


def test_scales_one_after_the_other_with_views_of_each():
    x = images(H=8, W=8)
    found = list(MultiScale((8, 12), TenCrop(8))(x))
    assert len(found) == 20
    assert all(view.shape == x.shape for view in found)
    assert np.array_equal(found[0], x)
    larger = data.fit_images(x, (12, 12), "resize")
    assert np.array_equal(found[10], larger[:, :, :8, :8])
    assert [view.shape[2] for view in MultiScale((4, 6), SingleView())(x)] == [4, 6]


# ---- bad input -------------------------------------------------------------------------------------------------


def test_images_smaller_than_the_crop():
    for views in (TenCrop(8), SingleView(8), Mirrored(8)):
        with pytest.raises(ValueError, match=r"\(size=8\): images are 9×7, smaller than that"):
            list(views(images()))


def test_sizes_that_are_none():
    for make in (TenCrop, SingleView, Mirrored, lambda size: MultiScale([8, size])):
        with pytest.raises(ValueError, match="sizes begin at 1 pixel, got 0"):
            make(0)
    with pytest.raises(ValueError, match="one size or more"):
        MultiScale(())
