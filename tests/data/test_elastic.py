"""Local warping, held to SciPy's Gaussian filter and interpolation."""

import numpy as np
import pytest
from scipy import ndimage

from tinycnn.data import ElasticTransform
from tinycnn.data.elastic import displacements, gaussian_matrix


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0, 20.0])
def test_smoothing_is_scipys(sigma):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 3, 11, 14))
    expected = ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="constant", truncate=10)
    np.testing.assert_allclose(displacements(noise, 7.0, sigma), 7 * expected, rtol=0, atol=1e-12)
    assert displacements(noise.astype(np.float32), 7.0, sigma).dtype == np.float32


def test_a_gaussian_sums_to_one_and_is_symmetric():
    g = gaussian_matrix(61, 3.0)
    assert abs(g[30].sum() - 1) < 1e-12
    np.testing.assert_array_equal(g, g.T)
    assert g[30, 31] / g[30, 30] == pytest.approx(np.exp(-1 / 18))


def test_warping_step_by_step():
    x = np.random.default_rng(1).random((3, 2, 12, 10))
    y = ElasticTransform(9.0, 2.0, fill=0.5)(x, np.random.default_rng(7))
    noise = 2 * np.random.default_rng(7).random((2, 3, 12, 10), np.float32) - 1
    for n in range(3):
        down, right = (
            9 * ndimage.gaussian_filter(noise[k, n].astype(float), 2, mode="constant", truncate=10) for k in (0, 1)
        )
        rows, cols = np.mgrid[:12, :10]
        for c in range(2):
            expected = ndimage.map_coordinates(
                x[n, c], [rows + down, cols + right], order=1, mode="grid-constant", cval=0.5
            )
            np.testing.assert_allclose(y[n, c], expected, rtol=0, atol=1e-12)


def test_how_far_pixels_go():
    """The docstring's α/√3 · 1/(2σ√π), away from the edges, and no way preferred."""
    noise = np.random.default_rng(0).uniform(-1, 1, (400, 50, 50))
    middle = displacements(noise, 34.0, 4.0)[:, 20:30, 20:30]
    assert np.sqrt((middle**2).mean()) == pytest.approx(34 / np.sqrt(3) / (8 * np.sqrt(np.pi)), rel=0.05)
    assert abs(middle.mean()) < 0.1


def test_no_strength_is_no_change():
    x = np.random.default_rng(0).integers(0, 256, (2, 1, 9, 8), np.uint8)
    np.testing.assert_array_equal(ElasticTransform(alpha=0.0)(x, np.random.default_rng(0)), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((-1.0,), "alpha must be a number from 0 on, got -1"), ((1.0, 0.0), "sigma must be a positive number, got 0")],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=f"ElasticTransform: {message}"):
        ElasticTransform(*arguments)
