"""Two images in one, and labels to match: what is 30 % cat shall be called 30 % cat.

=======  ==============================================================================================
x, y     a batch of images (N, C, H, W) and its labels: integers (N,), or probabilities (N, K)
σ        a random permutation of the batch: image n is mixed with image σ(n)
λ        how much of image n is left, one number for each image, from the Beta distribution B(α, α)
=======  ==============================================================================================

::

    mixup    x ← λ·x + (1 − λ)·x_σ                                         y ← λ·y + (1 − λ)·y_σ
    cutmix   x ← x outside of a box, x_σ inside                            the same, with λ the share that is outside

with y as probabilities (one-hot to begin with): *soft targets* (N, K), which `tinycnn.CrossEntropyLoss` takes.  Since a
cross-entropy is linear in its targets, the loss is λ of one label's and 1 − λ of the other's.

α = 1 draws λ uniformly; α → 0 mixes almost nothing, as λ is near 0 or 1.  An image that σ leaves in its place, one in
a batch on average, is not mixed.

These see labels and so are not for the ``transform`` of a `tinycnn.data.Loader`, which changes images; they go into its
``mix`` and are done last, on normalised images (as mixtures of two commute with normalisation, that is no other thing,
but nothing is rounded to bytes).

Sources: Zhang, Cissé, Dauphin, Lopez-Paz 2018, "mixup: beyond empirical risk minimization"; Yun, Han, Oh, Chun, Choe,
Yoo 2019, "CutMix: regularization strategy to train strong classifiers with localizable features".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module, device_of, is_device_array, to_device
from .base import as_before, as_floats, beside
from .boxes import draw_around, inside

Mix: TypeAlias = Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]
"""``mix(x, y, rng)``: a batch of images and labels to another; ``rng`` is its only source of randomness."""


def soft_targets(y: Array, num_classes: int, dtype: object = np.float32) -> Array:
    """Return labels as probabilities (N, K): integers (N,) one-hot, probabilities (N, K) as they are.

    Raises:
        ValueError: y is neither, or a label is no class.  On a GPU, for which Python does not wait, the row of such a
            label is nan.

    >>> soft_targets(np.array([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    xp = array_module(y)
    if y.ndim == 2 and y.shape[1] == num_classes and y.dtype.kind == "f":
        return y.astype(dtype, copy=False)
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError(
            f"mixing takes integer labels (N,) or probabilities (N, {num_classes}), got {y.dtype} {tuple(y.shape)}"
        )
    valid = (y >= 0) & (y < num_classes)
    if not is_device_array(y) and not valid.all():
        raise ValueError(f"mixing takes labels from 0 to {num_classes - 1}, got {int(y[~valid][0])}")
    one_hot = (y[:, None] == xp.arange(num_classes)).astype(dtype)
    return xp.where(valid[:, None], one_hot, one_hot.dtype.type(np.nan))


class _Mixing:
    """What both share: checks, partners, and targets."""

    num_classes: int
    alpha: float

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.num_classes, int | np.integer) or self.num_classes < 1:
            raise ValueError(f"{name}: num_classes must be a whole number from 1 on, got {self.num_classes!r}")
        if not 0 < self.alpha < np.inf:
            raise ValueError(f"{name}: alpha must be a positive number, got {self.alpha!r}")

    def __call__(self, x: Array, y: Array, rng: np.random.Generator) -> tuple[Array, Array]:
        """Return (x, soft targets): images (N, C, H, W) in the dtype they had, probabilities (N, K) of float32.

        Raises:
            ValueError: lengths differ; labels are no classes.
        """
        if x.ndim != 4 or len(x) != len(y):
            raise ValueError(f"{type(self).__name__}: got images {tuple(x.shape)} and {len(y)} labels")
        # (N, C, H, W) -> (N, H, W, C), contiguous
        images = array_module(x).ascontiguousarray(x.transpose(0, 2, 3, 1))
        partner, kept = rng.permutation(len(x)), rng.beta(self.alpha, self.alpha, len(x))
        where = to_device(partner, device_of(x))
        mixed, kept = self._mixed(images, images[where], kept, rng)
        targets = soft_targets(y, self.num_classes, np.float64 if x.dtype == np.float64 else np.float32)
        share = beside(kept, targets, 1)
        # (N, H, W, C) -> (N, C, H, W)
        return mixed.transpose(0, 3, 1, 2), share * targets + (1 - share) * targets[where]

    def _mixed(self, x: Array, other: Array, kept: np.ndarray, rng: np.random.Generator) -> tuple[Array, np.ndarray]:
        """Return the images (N, H, W, C) mixed, and how much of x is left, (N,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mixup(_Mixing):
    """Blend every image with another, and their labels likewise; the module docstring has the formulas.

    The network learns to go over from class to class in a straight line: it is less sure between them.

    Attributes:
        num_classes: K.
        alpha: of the Beta distribution: 1 in the paper for CIFAR, 0.2 for ImageNet.

    Raises:
        ValueError: no class, or alpha not positive.

    >>> x, y = np.float32([0, 1]).reshape(2, 1, 1, 1), np.array([0, 1])
    >>> x, y = Mixup(num_classes=2)(x, y, np.random.default_rng(1))
    >>> np.array_equal(x.ravel(), y[:, 1])  # an image is as bright as it is called a 1
    True
    """

    num_classes: int
    alpha: float = 1.0

    def _mixed(self, x: Array, other: Array, kept: np.ndarray, rng: np.random.Generator) -> tuple[Array, np.ndarray]:
        share = beside(kept, x, 3)
        return as_before(share * as_floats(x) + (1 - share) * as_floats(other), x), kept


@dataclass(frozen=True)
class CutMix(_Mixing):
    """Paste a rectangle of another image into every image, and mix the labels by area.

    Unlike with `Cutout` no pixel is wasted, and unlike with `Mixup` every pixel looks natural.  The box has the image's
    shape and √(1 − λ) of its sides; its middle is any pixel.  What is beyond the edge is cut off, and λ follows.

    Attributes:
        num_classes: K.
        alpha: of the Beta distribution: 1 in the paper.

    Raises:
        ValueError: no class, or alpha not positive.

    >>> x, y = np.zeros((8, 1, 4, 4), np.float32), np.arange(8)
    >>> mixed, targets = CutMix(num_classes=8)(x, y, np.random.default_rng(0))
    >>> targets.shape, targets.sum(axis=1).round(6).tolist()
    ((8, 8), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    """

    num_classes: int
    alpha: float = 1.0

    def _mixed(self, x: Array, other: Array, kept: np.ndarray, rng: np.random.Generator) -> tuple[Array, np.ndarray]:
        N, H, W, _ = x.shape
        size = (np.array([[H], [W]]) * np.sqrt(1 - kept)).astype(np.int64)  # (2, 1) · (N,) -> (2, N)
        boxes = draw_around(N, H, W, size, rng)
        height, width = boxes[2:] - boxes[:2]
        return array_module(x).where(inside(boxes, x), other, x), 1 - height * width / (H * W)
