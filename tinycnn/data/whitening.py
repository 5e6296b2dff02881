"""Statistics taken out of images: of each pixel, of each image, of all pixels together.

`Normalize` takes out mean and deviation of each channel and suffices for networks with batch normalisation.  These go
further, and papers rely on them: He et al. 2016 subtract a mean for every pixel, Network in Network and its
contemporaries take out contrast (GCN) and correlations (ZCA).

They are not random.  Called with images (N, C, H, W), bytes or floats in 0..1, they return float32, or float64 of that.
What they have learnt from a training set (``fit``) is then applied to every image, the test set's included.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from ..parameter import channels_last
from .base import as_floats, full_scale

CHUNK = 1024
"""Images turned into floats at a time."""


def _fractions(x: Array) -> Array:
    """Return the images as floats in 0..1."""
    return as_floats(x) / full_scale(x) if x.dtype == np.uint8 else as_floats(x)


def _chunks(images: Array) -> Iterator[Array]:
    """Yield the images, some at a time, as rows of floats: (n, C, H, W) -> (n, C·H·W)."""
    for k in range(0, len(images), CHUNK):
        chunk = images[k : k + CHUNK]
        yield _fractions(chunk).reshape(len(chunk), -1)


def mean_image(images: Array) -> Array:
    """Return the mean of images (N, C, H, W), as float64 (C, H, W) between 0 and 1.

    Raises:
        ValueError: there is none.
    """
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"a mean is of images (N, C, H, W), N ≥ 1, got {tuple(images.shape)}")
    total = sum(rows.sum(axis=0, dtype=np.float64) for rows in _chunks(images))
    return (total / len(images)).reshape(images.shape[1:])


def _check_shape(owner: object, mean: Array, x: Array) -> None:
    if x.shape[1:] != mean.shape:
        raise ValueError(
            f"{type(owner).__name__} was fitted to images {tuple(mean.shape)}, got a batch {tuple(x.shape)}"
        )


@dataclass(frozen=True, eq=False)
class PerPixelMean:
    """Subtract a mean for every pixel of every channel.

    Attributes:
        mean: (C, H, W), between 0 and 1.

    Raises:
        ValueError: on images of another shape.

    Source: He, Zhang, Ren, Sun 2016, "Deep residual learning for image recognition", section 4.2.

    >>> x = np.array([[[[0, 255]]], [[[255, 255]]]], np.uint8)
    >>> PerPixelMean.fit(x)(x).tolist()
    [[[[-0.5, 0.0]]], [[[0.5, 0.0]]]]
    """

    mean: Array

    @classmethod
    def fit(cls, images: Array) -> PerPixelMean:
        """Take the mean of a training set (N, C, H, W)."""
        return cls(mean_image(images))

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return the images less the mean."""
        _check_shape(self, self.mean, x)
        y = _fractions(x)
        return channels_last(y - to_device(self.mean.astype(y.dtype), device_of(x)))


@dataclass(frozen=True)
class GCN:
    """Global contrast normalisation: bring every image to mean 0 and the same contrast, whatever its light was.

    Over all pixels p of an image, channels together, between 0 and 255::

        y = scale · (p − p̄) / √(bias + var p)

    Attributes:
        scale: of the result.
        bias: keeps the noise of nearly even images small; 10 is that of the Maxout paper's preprocessing.

    Raises:
        ValueError: bias is negative, or scale not positive.

    Sources: Coates, Lee, Ng 2011, "An analysis of single-layer networks in unsupervised feature learning", section 3.1;
    Goodfellow, Warde-Farley, Mirza, Courville, Bengio 2013, "Maxout networks", section 5.2.

    >>> x = np.array([10, 10, 30, 30], np.uint8).reshape(1, 1, 2, 2)
    >>> GCN(bias=0.0)(x).ravel().tolist()
    [-1.0, -1.0, 1.0, 1.0]
    """

    scale: float = 1.0
    bias: float = 10.0

    def __post_init__(self) -> None:
        if not self.scale > 0 or not self.bias >= 0:
            raise ValueError(f"GCN needs a positive scale and a bias from 0 on, got {self.scale!r} and {self.bias!r}")

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return the images with their contrast normalised; an even image without bias is 0."""
        y = as_floats(x)
        if x.dtype != np.uint8:
            y = y * y.dtype.type(255)
        axes, xp = (1, 2, 3), array_module(x)
        y = y - y.mean(axis=axes, keepdims=True)
        contrast = xp.sqrt(y.dtype.type(self.bias) + (y * y).mean(axis=axes, keepdims=True))
        return channels_last(y * (y.dtype.type(self.scale) / xp.where(contrast == 0, 1, contrast).astype(y.dtype)))


@dataclass(frozen=True, eq=False)
class ZCA:
    """ZCA whitening: take the correlations between all pixels out, and change the images as little as possible.

    Of images as rows x of D = C·H·W numbers, with mean μ and covariance Σ = U·diag(λ)·Uᵀ over the training set::

        y = (x − μ)·W,    W = U·diag(1/√(λ + ε))·Uᵀ

    For ε = 0 the covariance of y is WΣW = I: it is white.  So it is for W·Q with any rotation Q; W is the one whose y
    is closest to x.  Neighbouring pixels are nearly equal, so what is left are edges.  Noise lies in the components of
    small λ, which ε keeps from being blown up.

    Cost: for ``fit`` N·D² multiplications and the eigenvalues of a D×D matrix, D = 3072 for CIFAR; for a call N·D².
    That is dear for every batch: whiten a dataset once, and give the `Loader` what comes out.

    Attributes:
        mean: (C, H, W).
        matrix: W, (D, D).  It is copied to a GPU with every call unless it is there (as after a fit to images there).

    Raises:
        ValueError: on images of another shape.

    Sources: Krizhevsky 2009, "Learning multiple layers of features from tiny images", appendix A; Bell, Sejnowski 1997,
    "The 'independent components' of natural scenes are edge filters".
    """

    mean: Array
    matrix: Array

    @classmethod
    def fit(cls, images: Array, eps: float = 0.1) -> ZCA:
        """Learn μ and W from a training set.

        Args:
            images: (N, C, H, W).
            eps: ε, on the scale of the pixels' variances; 0.1 is usual for images after `GCN`, where they are near 1.

        Raises:
            ValueError: eps is negative or there is no image.
        """
        if not eps >= 0:
            raise ValueError(f"ZCA: eps must be a number from 0 on, got {eps!r}")
        mean, xp = mean_image(images), array_module(images)
        centred = (rows - mean.reshape(-1).astype(rows.dtype) for rows in _chunks(images))
        values, vectors = xp.linalg.eigh(sum(map(_products, centred)) / len(images))
        spread = xp.maximum(values, 0) + eps  # an eigenvalue 0 may come out a little below
        least = values.max() * np.finfo(np.float64).eps * len(values) + np.finfo(np.float64).tiny
        # without ε, what has no variance is left out: it would be noise divided by 0
        inverse = xp.where(spread > least, 1 / xp.sqrt(xp.maximum(spread, least)), 0)
        return cls(mean, (vectors * inverse) @ vectors.T)

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        """Return the images whitened."""
        _check_shape(self, self.mean, x)
        rows = _fractions(x).reshape(len(x), -1)  # (N, C, H, W) -> (N, D)
        mean, matrix = (to_device(v.astype(rows.dtype, copy=False), device_of(x)) for v in (self.mean, self.matrix))
        return channels_last(((rows - mean.reshape(-1)) @ matrix).reshape(x.shape))


def _products(rows: Array) -> Array:
    """Return rowsᵀ·rows, in float64."""
    return (rows.T @ rows).astype(np.float64)
