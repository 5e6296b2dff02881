"""Local warping: as if an image were drawn on rubber.

Every pixel is looked up a little beside its place (`tinycnn.data.warp`); the displacements are random and smooth::

    Δ = α · G_σ ∗ R       R uniform in −1 … 1, one number for every pixel, G_σ a Gaussian of deviation σ, sum 1

once for rows and once for columns.  A large σ leaves one displacement for the whole image, a small one noise; in
between writing looks written by another hand.  R being independent from pixel to pixel, Δ has the deviation
α/√3 · √(Σ G²) ≈ α/√3 · 1/(2σ√π) pixels away from the edges: 1.4 for α = 34 and σ = 4.

A Gaussian is a product of one along rows and one along columns, so that the convolution is two products with matrices,
Δ = α·G_rows·R·G_colsᵀ, H + W multiplications for each number.  Beyond the image R is 0.

Source: Simard, Steinkraus, Platt 2003, "Best practices for convolutional neural networks applied to visual document
analysis", section 2: with these the error of a simple network on MNIST fell from 1.6 to 0.7 %, with affine maps to
1.1 %, and that of a convolutional one to 0.4 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from .base import Fill, ImageTransform
from .warp import sampled


def gaussian_matrix(size: int, sigma: float) -> np.ndarray:
    """Return the (size, size) matrix that smooths one axis: entry (i, j) is g(i − j), g a Gaussian of sum 1."""
    reach = np.arange(-int(np.ceil(10 * sigma)) - 1, int(np.ceil(10 * sigma)) + 2)
    distance = np.subtract.outer(np.arange(size), np.arange(size))
    return np.exp(-0.5 * (distance / sigma) ** 2) / np.exp(-0.5 * (reach / sigma) ** 2).sum()


def displacements(noise: Array, alpha: float, sigma: float) -> Array:
    """Return α·G∗noise for every image of ``noise`` (…, H, W)."""
    xp, (H, W) = array_module(noise), noise.shape[-2:]
    rows, cols = (xp.asarray(gaussian_matrix(size, sigma).astype(noise.dtype)) for size in (H, W))
    # (H, H) · (…, H, W) · (W, W) -> (…, H, W)
    return (rows * noise.dtype.type(alpha)) @ noise @ cols.T


@dataclass(frozen=True)
class ElasticTransform(ImageTransform):
    """Warp every image in its own way; the module docstring has the formula.

    Attributes:
        alpha: how strongly, as in Simard's paper (torchvision's alpha is twice that, for square images).
        sigma: how smoothly, in pixels; 34 and 4 are Simard's for MNIST.
        fill: what comes in at the borders, one number or one for every channel.

    Raises:
        ValueError: alpha is negative, sigma not positive, or one of them not finite.

    >>> x = np.full((1, 1, 9, 9), 50, np.uint8)
    >>> int(ElasticTransform(alpha=3.0, sigma=1.5)(x, np.random.default_rng(0))[0, 0, 4, 4])
    50
    """

    alpha: float = 34.0
    sigma: float = 4.0
    fill: Fill = 0

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < np.inf:
            raise ValueError(f"ElasticTransform: alpha must be a number from 0 on, got {self.alpha!r}")
        if not 0 < self.sigma < np.inf:
            raise ValueError(f"ElasticTransform: sigma must be a positive number, got {self.sigma!r}")

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Warp the images."""
        (N, H, W, _), xp = x.shape, array_module(x)
        dtype = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        noise = 2 * rng.random((2, N, H, W), np.float32) - 1
        rows, cols = displacements(to_device(noise.astype(dtype), device_of(x)), self.alpha, self.sigma)
        rows += xp.arange(H).astype(dtype)[:, None]
        cols += xp.arange(W).astype(dtype)
        return sampled(x, rows, cols, self.fill)
