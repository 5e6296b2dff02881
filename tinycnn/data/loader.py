"""Batches in a seeded random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np

from ..backend import Array, array_module
from .mix import Mix
from .transforms import Normalize

Transform: TypeAlias = Callable[[Array, np.random.Generator], Array]
"""``transform(x, rng)``: a batch of images (N, C, H, W) to another; ``rng`` is its only source of randomness."""

Scale: TypeAlias = Callable[[Array], Array]
"""``normalize(x)``: a batch of images (N, C, H, W) as the network takes them; a `Normalize`, for one."""

_ORDER, _TRANSFORM, _MIX = 1, 2, 3


def _generator(seed: int, epoch: int, purpose: int, index: int = 0) -> np.random.Generator:
    """Return the generator that belongs to these four numbers.

    Philox is counter-based: block i of its stream is a function of (key, i).  The low words of the counter
    are left to run; the high ones tell the streams of one key apart.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=[0, 0, purpose, index]))


class Loader:
    """Cuts a dataset into batches, in another order each epoch.

    Which examples batch i of epoch e holds, and what its transform draws, depends on (seed, e, i) alone, never
    on what was iterated before: a run resumed in the middle of an epoch sees the batches that it would have seen.

        for x, y in loader.epoch(3):            # every batch of epoch 3
        for x, y in loader.epoch(3, start=10):  # the same without the first ten
        for x, y in loader:                     # the next epoch: 0 the first time, then 1, 2, …

    Every batch is gathered, transformed (on the pixels as they are stored), normalised and mixed when it is asked for.

    Args:
        images: (N, C, H, W), any memory order (kept channels-last, copied if they are not); or floating-point features
            (N, F).
        labels: (N, …), anything indexed alike.
        batch_size: examples per batch; the last one of an epoch may have fewer.
        shuffle: False keeps the order given, in every epoch.
        seed: of orders and transforms.
        drop_last: leave a smaller last batch out.
        transform: random augmentation, see `Transform`.
        normalize: scales a batch to floats; without one uint8 becomes float32 in 0..1, and floats stay as they are.
        mix: what changes labels with the images, a `Mixup` or `CutMix`, see `Mix`; in evaluation there is none.

    Attributes:
        next_epoch: the epoch that plain iteration takes next.

    Raises:
        ValueError: lengths differ, no example, ``batch_size`` below 1 or leaving no batch, a seed outside 0..2⁶⁴ − 1.
    """

    def __init__(
        self,
        images: Array,
        labels: Array,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        normalize: Scale | None = None,
        mix: Mix | None = None,
    ) -> None:
        self._are_features = images.ndim == 2 and images.dtype.kind == "f"
        if (images.ndim != 4 and not self._are_features) or len(images) != len(labels) or len(images) == 0:
            raise ValueError(
                f"Loader needs images (N, C, H, W), or floating-point features (N, F), and N labels, N ≥ 1: got "
                f"{images.dtype} {tuple(images.shape)} and {len(labels)} labels"
            )
        if self._are_features:
            images = images[:, :, None, None]  # (N, F) -> (N, F, 1, 1)
        if batch_size < 1 or (drop_last and batch_size > len(images)):
            raise ValueError(f"batch_size must be from 1 to the {len(images)} examples there are, got {batch_size}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must lie in 0..2⁶⁴ − 1, got {seed}")
        # (N, C, H, W) -> (N, H, W, C), contiguous: an image is one run of memory
        self._images = array_module(images).ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.labels, self.batch_size, self.shuffle, self.seed = labels, batch_size, shuffle, seed
        self.drop_last, self.transform = drop_last, transform
        if normalize is None and images.dtype == np.uint8:
            C = images.shape[1]
            normalize = Normalize((0.0,) * C, (1.0,) * C)
        self.normalize, self.mix = normalize, mix
        self.next_epoch = 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        N = len(self._images)
        return N // self.batch_size if self.drop_last else -(-N // self.batch_size)

    @property
    def num_examples(self) -> int:
        """Number of examples in an epoch."""
        return min(len(self._images), len(self) * self.batch_size)

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        """Iterate over `next_epoch`, and count it."""
        self.next_epoch += 1
        return self.epoch(self.next_epoch - 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Iterate over the batches of one epoch, from number ``start`` on.

        Returns:
            An iterator of (x, y): images (n, C, H, W) on channels-last memory, and their labels.

        Raises:
            ValueError: a negative epoch, or ``start`` outside 0..len(self).
        """
        self._check_place(epoch, start)
        order = self.order(epoch)
        return (self._batch(order, epoch, i) for i in range(start, len(self)))

    def _check_place(self, epoch: int, start: int) -> None:
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"epoch must be at least 0 and start in 0..{len(self)}, got epoch {epoch}, start {start}")

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the examples, in the order in which ``epoch`` takes them."""
        N = len(self._images)
        return _generator(self.seed, epoch, _ORDER).permutation(N) if self.shuffle else np.arange(N)

    def _batch(self, order: np.ndarray, epoch: int, i: int) -> tuple[Array, Array]:
        indices = array_module(self._images).asarray(self._indices(order, i))
        x = self._images[indices].transpose(0, 3, 1, 2)  # (n, H, W, C) -> (n, C, H, W)
        return self._mixed(self._change(x, epoch, i), self.labels[indices], epoch, i)

    def _indices(self, order: np.ndarray, i: int) -> np.ndarray:
        """Return which images batch i holds."""
        return order[i * self.batch_size : (i + 1) * self.batch_size]

    def _rng(self, epoch: int, i: int) -> np.random.Generator:
        """Return what the transform of batch i draws from."""
        return _generator(self.seed, epoch, _TRANSFORM, i)

    def _change(self, x: Array, epoch: int, i: int) -> Array:
        """Return batch i transformed and normalised, (n, C, H, W)."""
        if self.transform is not None:
            x = self.transform(x, self._rng(epoch, i))
        x = x if self.normalize is None else self.normalize(x)
        return x[:, :, 0, 0] if self._are_features else x  # (n, F, 1, 1) -> (n, F)

    def _mixed(self, x: Array, y: Array, epoch: int, i: int) -> tuple[Array, Array]:
        """Return batch i, its images ready for the network, with images and labels mixed."""
        return (x, y) if self.mix is None else self.mix(x, y, _generator(self.seed, epoch, _MIX, i))
