"""Bilinear maps, held to SciPy, PyTorch and Pillow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from tinycnn.data import RandomAffine, RandomRotation
from tinycnn.data.warp import affine_maps, inverse_places, sampled

torch = pytest.importorskip("torch")
TOLERANCE = {"float32": 2e-5, "float64": 1e-12}


def floats(N=3, H=7, W=6, C=2, dtype="float64", seed=0):
    return np.random.default_rng(seed).random((N, H, W, C)).astype(dtype)


# ---- looking up ----------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99), st.sampled_from(["float32", "float64"]))
def test_looking_up_is_scipys(H, W, seed, dtype):
    x = floats(H=H, W=W, dtype=dtype, seed=seed)
    rng = np.random.default_rng(seed)
    rows, cols = (rng.uniform(-3, n + 3, (3, 4, 5)).astype(dtype) for n in (H, W))
    rows[0, 0], cols[0, 0] = np.rint(rows[0, 0]), np.rint(cols[0, 0])  # some on the grid
    y = sampled(x, rows, cols, fill=0.25)
    assert y.dtype == dtype
    for n, c in np.ndindex(3, 2):
        expected = ndimage.map_coordinates(
            x[n, ..., c].astype(np.float64), [rows[n], cols[n]], order=1, mode="grid-constant", cval=0.25
        )
        np.testing.assert_allclose(y[n, ..., c], expected, rtol=0, atol=TOLERANCE[dtype])


def test_whole_places_are_the_pixels_themselves():
    for x in (floats(dtype="float32"), np.random.default_rng(0).integers(0, 256, (3, 7, 6, 2), np.uint8)):
        rows, cols = np.meshgrid(np.arange(7.0), np.arange(6.0), indexing="ij")
        shifted = sampled(x, np.tile(rows + 2, (3, 1, 1)).astype("f4"), np.tile(cols - 1, (3, 1, 1)).astype("f4"))
        expected = np.zeros_like(x)
        expected[:, :5, 1:] = x[:, 2:, :-1]
        np.testing.assert_array_equal(shifted, expected)


def test_four_pixels_by_hand():
    x = np.array([0, 10, 20, 50], np.uint8).reshape(1, 2, 2, 1)
    rows, cols = np.float32([[[0.5, 0.25, -0.5, 1.5]]]), np.float32([[[0.5, 0, 1, 2]]])
    #        mean of four; a quarter down; half fill and half 10; beyond two edges: 2/4 · 0
    assert sampled(x, rows, cols, fill=100).ravel().tolist() == [20, 5, 55, 100]


def test_bytes_are_rounded_from_the_exact_value():
    x = np.random.default_rng(0).integers(0, 256, (2, 9, 8, 3), np.uint8)
    rows, cols = (np.random.default_rng(n).uniform(-2, 10, (2, 20, 20)).astype("f4") for n in (1, 2))
    y = sampled(x, rows, cols)
    for n, c in np.ndindex(2, 3):
        exact = ndimage.map_coordinates(x[n, ..., c].astype(float), [rows[n], cols[n]], order=1, mode="grid-constant")
        assert np.abs(y[n, ..., c] - exact).max() < 0.5 + 1e-4


def test_places_far_away_are_fill():
    x = floats(N=1)
    y = sampled(x, np.array([[[-1e9, 1e9, 3.0]]]), np.array([[[3.0, 1e9, -1e18]]]), fill=(0.5, 0.75))
    np.testing.assert_array_equal(y, np.broadcast_to([0.5, 0.75], (1, 1, 3, 2)))


# ---- affine maps ---------------------------------------------------------------------------------------------


def published(angle, scale, shear):
    """The matrix of (x, y) that torchvision documents, RSS, multiplied out."""
    a, (sx, sy) = np.radians(angle), np.radians(shear)
    return scale * np.array(
        [
            [np.cos(a - sy) / np.cos(sy), -np.cos(a - sy) * np.tan(sx) / np.cos(sy) - np.sin(a)],
            [np.sin(a - sy) / np.cos(sy), -np.sin(a - sy) * np.tan(sx) / np.cos(sy) + np.cos(a)],
        ]
    )


def test_affine_maps_are_the_published_ones():
    rng = np.random.default_rng(0)
    degrees, scale, shear = rng.uniform(-180, 180, 20), rng.uniform(0.5, 2, 20), rng.uniform(-40, 40, (2, 20))
    maps = affine_maps(degrees, scale, shear)
    for n in range(20):
        np.testing.assert_allclose(maps[n, ::-1, ::-1], published(degrees[n], scale[n], shear[:, n]), atol=1e-14)


def test_a_map_is_undone_about_the_centre():
    """Where a place comes from is mapped to that place."""
    x, rng = floats(N=5, H=7, W=4), np.random.default_rng(0)
    maps, moves = rng.normal(size=(5, 2, 2)) + 2 * np.eye(2), rng.normal(size=(2, 5))
    places = np.stack(inverse_places(x, maps, moves), axis=-1)
    centre = np.array([3, 1.5])
    for n, h, w in np.ndindex(5, 7, 4):
        np.testing.assert_allclose(maps[n] @ (places[n, h, w] - centre) + centre + moves[:, n], [h, w], atol=1e-12)


def drawn(transform, seed, N=3, H=7, W=6):
    return transform.draw(N, H, W, np.random.default_rng(seed))


SOME = RandomAffine((-70, 120), (0.3, 0.2), (0.6, 1.7), (-20, 20, -15, 30))


@pytest.mark.parametrize("seed", range(5))
def test_affine_is_pytorchs_grid_sample(seed):
    x = floats(seed=seed)
    y = SOME(x.transpose(0, 3, 1, 2), np.random.default_rng(seed))
    maps, moves = drawn(SOME, seed)
    for n in range(3):
        # of (row, column) in pixels -> of (x, y) in -1 … 1
        size, t = np.array([6, 7]), moves[::-1, n]
        inverse = np.linalg.inv(maps[n])[::-1, ::-1]
        theta = np.column_stack([inverse * size / size[:, None], -(inverse @ t) * 2 / size])[None]
        grid = torch.nn.functional.affine_grid(torch.from_numpy(theta), (1, 2, 7, 6), align_corners=False)
        expected = torch.nn.functional.grid_sample(
            torch.from_numpy(x[n : n + 1].transpose(0, 3, 1, 2).copy()), grid, align_corners=False
        )
        np.testing.assert_allclose(y[n], expected[0].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_affine_is_pillows_inside(seed):
    """At the edges Pillow goes on with the outermost pixel for half a pixel, and stops."""
    x = floats(H=20, W=23, dtype="float32", seed=seed)
    y = SOME(x.transpose(0, 3, 1, 2), np.random.default_rng(seed))
    maps, moves = drawn(SOME, seed, 3, 20, 23)
    for n, c in np.ndindex(3, 2):
        inverse, centre = (
            np.linalg.inv(maps[n])[::-1, ::-1],
            np.array([23 / 2, 20 / 2]),
        )  # Pillow: corner of pixel 0 is 0
        offset = centre - inverse @ (centre + moves[::-1, n])
        coefficients = [*inverse[0], offset[0], *inverse[1], offset[1]]
        expected = Image.fromarray(x[n, ..., c]).transform(
            (23, 20), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
        )
        inside = np.asarray(
            Image.fromarray(np.pad(np.ones((18, 21), np.float32), 1)).transform(
                (23, 20), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR
            )
        )
        whole = inside > 0.999
        assert whole.sum() > 40
        np.testing.assert_allclose(y[n, c][whole], np.asarray(expected)[whole], rtol=0, atol=1e-4)


def test_amounts_are_drawn_from_their_ranges():
    maps, moves = RandomAffine((10, 50), (0.1, 0.25), (0.5, 0.8)).draw(4000, 40, 100, np.random.default_rng(0))
    scale = np.sqrt(np.linalg.det(maps))
    degrees = np.degrees(np.arctan2(-maps[:, 1, 0] / scale, maps[:, 0, 0] / scale))
    # A of (row, column): (row, column) ↦ (cos·row + sin·column, −sin·row + cos·column)
    for values, least, most in ((degrees, 10, 50), (scale, 0.5, 0.8), (moves[0], -10, 10), (moves[1], -10, 10)):
        assert least - 1e-9 <= values.min() < least + 0.03 * (most - least)
        assert most - 0.03 * (most - least) < values.max() <= most + 1e-9
        assert abs(values.mean() - (least + most) / 2) < 0.03 * (most - least)
    assert (moves == np.rint(moves)).all()


def test_shear_along_x_leaves_rows():
    maps, moves = RandomAffine(0, shear=30).draw(500, 9, 9, np.random.default_rng(0))
    np.testing.assert_allclose(maps[:, 0], np.tile([1, 0], (500, 1)), atol=1e-15)
    np.testing.assert_allclose(maps[:, 1, 1], 1, atol=1e-15)
    angles = np.degrees(np.arctan(maps[:, 1, 0]))
    assert -30 <= angles.min() < -28
    assert 28 < angles.max() <= 30
    assert not moves.any()
    along_x = RandomAffine(0, shear=(5, 10)).draw(500, 9, 9, np.random.default_rng(0))[0]
    angles = -np.degrees(np.arctan(along_x[:, 1, 0]))
    assert angles.min() >= 5 - 1e-9
    assert angles.max() <= 10 + 1e-9


def test_nothing_drawn_is_no_change():
    x = np.random.default_rng(0).integers(0, 256, (3, 2, 7, 6), np.uint8)
    np.testing.assert_array_equal(RandomAffine(0)(x, np.random.default_rng(0)), x)
    np.testing.assert_array_equal(RandomRotation(0)(x, np.random.default_rng(0)), x)


# ---- rotation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_numpys(quarters):
    x = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), np.uint8)
    y = RandomRotation((90 * quarters, 90 * quarters))(x, np.random.default_rng(0))
    np.testing.assert_array_equal(y, np.rot90(x, quarters, (2, 3)))


@pytest.mark.parametrize("degrees", [-100, 10, 33.3, 170])
def test_rotation_is_pillows_inside(degrees):
    x = floats(N=1, H=20, W=23, C=1, dtype="float32")
    y = RandomRotation((degrees, degrees))(x.transpose(0, 3, 1, 2), np.random.default_rng(0))[0, 0]
    expected, whole = (
        np.asarray(Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR))
        for image in (x[0, ..., 0], np.pad(np.ones((18, 21), np.float32), 1))
    )
    assert (whole > 0.999).sum() > 150
    np.testing.assert_allclose(y[whole > 0.999], expected[whole > 0.999], rtol=0, atol=1e-4)


def test_angles_are_uniform_both_ways():
    """Seen by where a dot on the right goes: up for counter-clockwise."""
    x = np.zeros((2000, 1, 41, 41), np.float32)
    x[:, :, 20, 38:] = 1
    y = RandomRotation((-10, 40))(x, np.random.default_rng(0))
    places = np.arange(41)
    rows, cols = ((y[:, 0].sum(axis=axis) @ places) / y[:, 0].sum(axis=(1, 2)) - 20 for axis in (2, 1))
    angles = np.degrees(np.arctan2(-rows, cols))
    assert -12 < angles.min() < -9
    assert 39 < angles.max() < 42
    assert abs(angles.mean() - 15) < 5 * 50 / np.sqrt(12 * 2000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"degrees": -5}, r"degrees must be .*, got \(5, -5\)"),
        ({"degrees": (3, 1)}, r"got \(3, 1\)"),
        ({"degrees": 0, "translate": (0.1, 2)}, r"translate must be two numbers between 0 and 1, got \(0\.1, 2\)"),
        ({"degrees": 0, "scale": (0, 1)}, r"scale must be \(a, b\) with 0 < a ≤ b, got \(0, 1\)"),
        ({"degrees": 0, "scale": (2, 1)}, "scale must be"),
        ({"degrees": 0, "shear": 90}, r"shear must be \(a, b\) with -89 ≤ a ≤ b ≤ 89, got \(-90, 90\)"),
        ({"degrees": 0, "shear": (1, 2, 3)}, "shear must be"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomAffine(**arguments)


def test_bad_rotations():
    with pytest.raises(ValueError, match="RandomRotation: degrees must be"):
        RandomRotation(-1)
