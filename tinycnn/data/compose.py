"""Transforms made of transforms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backend import Array, device_of, to_device
from .base import ImageTransform, check_probability


def _check(owner: object, transforms: Sequence[Any]) -> None:
    wrong = [t for t in transforms if not callable(t)]
    if not len(transforms) or wrong:
        raise ValueError(f"{type(owner).__name__} needs transforms, got {(wrong or [transforms])[0]!r}")


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other, drawing from one generator.

    Raises:
        ValueError: there is none, or one cannot be called.

    >>> from tinycnn.data import Normalize, RandomCrop, RandomHorizontalFlip
    >>> change = Compose([RandomCrop(32, padding=4), RandomHorizontalFlip(), Normalize((0.5,), (0.25,))])
    >>> x = change(np.zeros((8, 1, 32, 32), np.uint8), np.random.default_rng(0))
    >>> x.dtype, float(x.min())
    (dtype('float32'), -2.0)
    """

    transforms: Sequence[Any]

    def __post_init__(self) -> None:
        _check(self, self.transforms)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """Return the images after all of the transforms."""
        for transform in self.transforms:
            x = transform(x, rng)
        return x


@dataclass(frozen=True)
class RandomApply(ImageTransform):
    """Apply a transform to each image with probability p; the others stay as they are.

    Raises:
        ValueError: p is no probability; the transform changes the shape or dtype of images.

    >>> from tinycnn.data import RandomVerticalFlip
    >>> x = np.arange(2, dtype=np.uint8).reshape(1, 1, 2, 1)
    >>> RandomApply(RandomVerticalFlip(p=1.0), p=0.0)(x, np.random.default_rng(0)).ravel().tolist()
    [0, 1]
    """

    transform: Any
    p: float = 0.5

    def __post_init__(self) -> None:
        _check(self, [self.transform])
        check_probability(self, self.p)

    def change(self, x: Array, rng: np.random.Generator) -> Array:
        """Change some of the images."""
        chosen = np.flatnonzero(rng.random(len(x)) < self.p)
        if not len(chosen):
            return x
        where, y = to_device(chosen, device_of(x)), x.copy()
        # (n, H, W, C) -> (n, C, H, W) and back
        changed = self.transform(x[where].transpose(0, 3, 1, 2), rng).transpose(0, 2, 3, 1)
        if (changed.shape[1:], changed.dtype) != (x.shape[1:], x.dtype):
            raise ValueError(
                f"RandomApply: the transform made {changed.dtype} {changed.shape[1:]} (height, width, channels) of "
                f"{x.dtype} {x.shape[1:]}: images that are changed and others must go into one batch"
            )
        y[where] = changed
        return y


@dataclass(frozen=True)
class RandomChoice:
    """One of several transforms, drawn anew for every batch; of images, or of images and labels.

    Attributes:
        transforms: to choose from.
        p: how likely each is, summing to 1; by default all alike.

    Raises:
        ValueError: there is no transform, or ``p`` are no probabilities for them.

    >>> from tinycnn.data import CutMix, Mixup
    >>> mix = RandomChoice([Mixup(10), CutMix(10)], p=(0.8, 0.2))
    >>> mix(np.zeros((4, 1, 5, 5)), np.arange(4), np.random.default_rng(0))[1].sum(axis=1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    transforms: Sequence[Any]
    p: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check(self, self.transforms)
        p = self.p
        if p is not None and (len(p) != len(self.transforms) or min(p) < 0 or abs(sum(p) - 1) > 1e-6):
            raise ValueError(f"RandomChoice: p must be {len(self.transforms)} numbers from 0 on of sum 1, got {p}")

    def __call__(self, *batch: Any) -> Any:
        """Return ``transform(x, rng)`` or ``transform(x, y, rng)`` of one of them."""
        rng: np.random.Generator = batch[-1]
        p = None if self.p is None else np.divide(self.p, sum(self.p))
        return self.transforms[rng.choice(len(self.transforms), p=p)](*batch)
