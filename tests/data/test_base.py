"""What holds of every transform, and the helpers they share."""

from itertools import pairwise

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import data
from tinycnn.backend import to_device
from tinycnn.data.base import (
    ImageTransform,
    as_before,
    as_floats,
    check_probability,
    check_range,
    padded,
    pixel,
    range_around,
    sides,
)

COVARIANCE = ((0.06, 0.05, 0.04), (0.05, 0.05, 0.045), (0.04, 0.045, 0.055))
MOVES = [
    data.RandomHorizontalFlip(),
    data.RandomVerticalFlip(),
    data.RandomRotation90(),
    data.RandomCrop(8, padding=2),
    data.RandomCrop((5, 9), padding=3, padding_mode="reflect"),
    data.RandomCrop(8, padding=1, fill=(1.0, 0.0, 1.0)),
    data.Cutout(4),
    data.RandomErasing(),
    data.RandomErasing(p=1.0, value="random"),
    data.RandomApply(data.RandomVerticalFlip(1.0)),
]
COMPUTED = [
    data.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), (-5, 5, -10, 10), fill=(0.0, 1.0, 0.0)),
    data.RandomRotation((-30, 10)),
    data.ElasticTransform(8.0, 2.0),
    data.RandomResizedCrop((6, 7)),
    data.ColorJitter(0.4, 0.4, 0.4, 0.2),
    data.PCALighting(COVARIANCE, 0.3),
    data.Compose([data.RandomCrop(8, padding=1), data.ColorJitter(0.2)]),
    data.RandomChoice([data.RandomRotation(9), data.ElasticTransform()]),
]
every = pytest.mark.parametrize("transform", MOVES + COMPUTED, ids=repr)
any_dtype = pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])


def photos(dtype, N=6, H=8):
    x = np.random.default_rng(0).integers(0, 256, (N, 3, H, H), dtype=np.uint8)
    return x if dtype == "uint8" else (x / 255).astype(dtype)


# ---- every transform -----------------------------------------------------------------------------------------


@every
@any_dtype
def test_type_memory_and_input_are_kept(transform, dtype):
    x = photos(dtype)
    before = x.copy()
    y = transform(x, np.random.default_rng(1))
    assert y.dtype == x.dtype
    assert is_channels_last(y)
    np.testing.assert_array_equal(x, before)
    assert y.shape[:2] == x.shape[:2]
    assert np.isfinite(y.astype(np.float64)).all()
    assert y.min() >= 0
    assert y.max() <= (255 if dtype == "uint8" else 1)


@every
def test_the_generator_decides(transform):
    x = photos("uint8")
    first, same, other = (transform(x, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


@every
def test_images_differ_in_what_happens_to_them(transform):
    """A batch of one image, many times."""
    y = transform(np.repeat(photos("uint8")[:1], 40, axis=0), np.random.default_rng(3))
    assert len({image.tobytes() for image in y}) > 1


@every
@any_dtype
def test_memory_order_does_not_matter(transform, dtype):
    x = photos(dtype)
    other = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    results = [transform(images, np.random.default_rng(1)) for images in (x, other, np.asfortranarray(x))]
    for a, b in pairwise(results):
        np.testing.assert_array_equal(a, b)


IN_OWN_UNITS = [t for t in MOVES + COMPUTED if getattr(t, "fill", 0) or getattr(t, "value", 0)]
"""What they fill or set means something else for bytes and floats."""


@pytest.mark.parametrize("transform", [t for t in MOVES + COMPUTED if t not in IN_OWN_UNITS], ids=repr)
def test_floats_change_as_bytes_do(transform):
    y = transform(photos("uint8"), np.random.default_rng(1))
    floats = transform(photos("float64"), np.random.default_rng(1)) * 255
    np.testing.assert_allclose(floats, y, rtol=0, atol=0.5 + 1e-3)


@every
def test_one_image_and_none(transform):
    assert transform(photos("uint8", N=1), np.random.default_rng(0)).shape[0] == 1
    if not isinstance(transform, data.RandomChoice | data.PCALighting):
        assert transform(photos("uint8", N=0), np.random.default_rng(0)).shape[0] == 0


@pytest.mark.parametrize("transform", MOVES, ids=repr)
@any_dtype
def test_a_gpu_moves_to_the_bit(gpu, transform, dtype):
    x = photos(dtype)
    y = transform(to_device(x, "cuda"), np.random.default_rng(1))
    assert isinstance(y, gpu.ndarray)
    assert is_channels_last(y)
    np.testing.assert_array_equal(y.get(), transform(x, np.random.default_rng(1)))


@pytest.mark.parametrize("transform", COMPUTED, ids=repr)
@any_dtype
def test_a_gpu_computes_the_same_but_for_rounding(gpu, transform, dtype):
    """To 1 of 255 levels, and floats to eight units in the last place of the full intensity."""
    x = photos(dtype)
    y = transform(to_device(x, "cuda"), np.random.default_rng(1))
    assert isinstance(y, gpu.ndarray)
    assert y.dtype == dtype
    atol = 1 if dtype == "uint8" else 8 * np.finfo("float16" if dtype == "float16" else "float32").eps
    expected = transform(x, np.random.default_rng(1)).astype(np.float64)
    np.testing.assert_allclose(y.get().astype(np.float64), expected, rtol=0, atol=atol)


@every
def test_what_is_no_batch_of_images(transform):
    if isinstance(transform, data.PCALighting):
        return
    with pytest.raises(ValueError, match=r"takes images \(N, C, H, W\) of uint8 or floats, got int64 \(2, 3, 8, 8\)"):
        data.Compose([transform])(np.zeros((2, 3, 8, 8), np.int64), np.random.default_rng(5))
    with pytest.raises(ValueError, match=r"takes images \(N, C, H, W\) of uint8 or floats, got uint8 \(3, 8, 8\)"):
        transform(np.zeros((3, 8, 8), np.uint8), np.random.default_rng(5))


# ---- helpers -------------------------------------------------------------------------------------------------


def test_a_transform_must_say_what_it_changes():
    with pytest.raises(NotImplementedError):
        ImageTransform()(photos("uint8"), np.random.default_rng(0))


def test_bytes_are_rounded_to_even_and_clipped():
    y = np.array([-3.0, 0.4, 0.5, 1.5, 254.6, 255.4, 256, 1e9], np.float32)
    assert as_before(y, np.zeros(1, np.uint8)).tolist() == [0, 0, 0, 2, 255, 255, 255, 255]
    assert as_before(y, np.zeros(1, np.float64)).dtype == np.float64
    assert as_before(y, y) is y


def test_types_to_compute_in():
    types = {"uint8": "float32", "float16": "float32", "float32": "float32", "float64": "float64"}
    assert {name: as_floats(np.zeros(1, name)).dtype.name for name in types} == types


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_borders_are_those_of_numpy(mode):
    x = photos("uint8").transpose(0, 2, 3, 1)
    expected = np.pad(x, ((0, 0), (2, 2), (1, 1), (0, 0)), mode=mode)
    np.testing.assert_array_equal(padded(x, 2, 1, mode), expected)


def test_fill():
    x = np.zeros((1, 2, 2, 3), np.uint8)
    assert pixel(7, x).tolist() == [7, 7, 7]
    assert pixel((1, 2, 255), x).tolist() == [1, 2, 255]
    assert padded(x, 1, 0, fill=(1, 2, 3))[0, 0, 0].tolist() == [1, 2, 3]
    assert pixel(0.25, x.astype(np.float32)).dtype == np.float32
    with pytest.raises(ValueError, match=r"one for each of the 3 channels, got \(1, 2\)"):
        pixel((1, 2), x)
    for bad in (0.5, -1, 256):
        with pytest.raises(ValueError, match=f"whole numbers from 0 to 255, got {bad}"):
            pixel(bad, x)


def test_arguments():
    assert range_around(1, 0.25) == (0.75, 1.25)
    assert range_around(1, (2, 3)) == (2, 3)
    assert sides(0, "size", 3) == (3, 3)
    assert sides(0, "size", (3, 4)) == (3, 4)
    for bad in (0, (1, 2, 3), 2.5, (4, -1), "ab"):
        with pytest.raises(ValueError, match="int: size must be a whole number from 1 on, or two of them, got"):
            sides(0, "size", bad)
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"int: p must lie between 0 and 1, got {bad}"):
            check_probability(0, bad)
    for bad in ((2, 1), (-1, 1), (0, 6), (1,), (float("nan"), 1)):
        with pytest.raises(ValueError, match=r"int: a must be \(a, b\) with 0 ≤ a ≤ b ≤ 5, got"):
            check_range(0, "a", bad, 0, 5)
