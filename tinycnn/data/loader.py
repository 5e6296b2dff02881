"""Batches in a seeded random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from ..backend import Array, array_module, is_device_array
from .mix import Mix
from .source import Source
from .transforms import Normalize
from .workers import prepared

Batch: TypeAlias = tuple[Array, Array]
"""Images (n, C, H, W) on channels-last memory, and their labels."""

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

    Every batch is gathered, transformed (on the pixels as they are stored), normalised and mixed, and then belongs to
    whoever asked for it: it is new memory, never written again.  All that is done when it is asked for; or, with
    ``workers``, ahead of time by so many threads, with the same result to the bit (`tinycnn.data.workers`).

    Args:
        images: a `Source` of photographs in files or of a mapped file, read as they are needed; or (N, C, H, W), any
            memory order (kept channels-last, copied if they are not); or floating-point features (N, F).
        labels: (N, …), anything indexed alike; by default those of the `Source`.
        batch_size: examples per batch; the last one of an epoch may have fewer.
        shuffle: False keeps the order given, in every epoch.
        seed: of orders and transforms.
        drop_last: leave a smaller last batch out.
        transform: random augmentation, see `Transform`.  Several threads may call it at once.
        normalize: scales a batch to floats; without one uint8 becomes float32 in 0..1, and floats stay as they are.
        mix: what changes labels with the images, a `Mixup` or `CutMix`, see `Mix`; in evaluation there is none.
        workers: threads that prepare batches; of images on a GPU, which does all this itself, none do.
        ahead: how many batches more than there are workers may be in the making, or wait.

    Attributes:
        next_epoch: the epoch that plain iteration takes next.

    Raises:
        ValueError: lengths differ, no example, ``batch_size`` below 1 or leaving no batch, a seed outside 0..2⁶⁴ − 1, a
            negative number of workers or of batches ahead.

    >>> loader = Loader(np.zeros((10, 1, 8, 8), np.uint8), np.arange(10), batch_size=4)
    >>> [(x.shape, x.dtype.name, len(y)) for x, y in loader.epoch(0)][-1]
    ((2, 1, 8, 8), 'float32', 2)
    """

    def __init__(
        self,
        images: Array | Source,
        labels: Array | None = None,
        batch_size: int = 64,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        normalize: Scale | None = None,
        mix: Mix | None = None,
        workers: int = 0,
        ahead: int = 2,
    ) -> None:
        if isinstance(images, Source) and labels is None:
            labels = images.labels
        self._images, self._shape, self._dtype = _stored(images, labels)
        self._are_features = not isinstance(images, Source) and images.ndim == 2
        N = len(self._images)
        if batch_size < 1 or (drop_last and batch_size > N):
            raise ValueError(f"batch_size must be from 1 to the {N} examples there are, got {batch_size}")
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"seed must lie in 0..2⁶⁴ − 1, got {seed}")
        if workers < 0 or ahead < 0:
            raise ValueError(f"workers and ahead must be at least 0, got {workers} and {ahead}")
        self.labels: Array = labels
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.drop_last, self.transform, self.workers, self.ahead = drop_last, transform, workers, ahead
        if normalize is None and self._dtype == np.uint8:
            C = self._shape[0]
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

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over `next_epoch`, and count it."""
        self.next_epoch += 1
        return self.epoch(self.next_epoch - 1)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Iterate over the batches of one epoch, from number ``start`` on.

        Returns:
            An iterator of (x, y): images (n, C, H, W) on channels-last memory, and their labels.  What happens while a
            batch is made, happens when it is its turn: a `DataError` that names a file, for example.

        Raises:
            ValueError: a negative epoch, or ``start`` outside 0..len(self).
        """
        self._check_place(epoch, start)
        order = self.order(epoch)
        tasks = (partial(self._batch, order, epoch, i) for i in range(start, len(self)))
        return prepared(tasks, 0 if is_device_array(self._images) else self.workers, self.ahead)

    def _check_place(self, epoch: int, start: int) -> None:
        if epoch < 0 or not 0 <= start <= len(self):
            raise ValueError(f"epoch must be at least 0 and start in 0..{len(self)}, got epoch {epoch}, start {start}")

    def order(self, epoch: int) -> np.ndarray:
        """Return the indices of the examples, in the order in which ``epoch`` takes them."""
        N = len(self._images)
        return _generator(self.seed, epoch, _ORDER).permutation(N) if self.shuffle else np.arange(N)

    def _batch(self, order: np.ndarray, epoch: int, i: int) -> Batch:
        indices = self._indices(order, i)
        x, y = self._gathered(indices), self.labels[indices]
        return self._mixed(self._change(x, epoch, i), y, epoch, i)

    def _gathered(self, indices: np.ndarray) -> Array:
        """Return the images at ``indices``, (n, C, H, W)."""
        if isinstance(self._images, Source):
            return self._images.get(indices)
        # (n, H, W, C) -> (n, C, H, W)
        return self._images[array_module(self._images).asarray(indices)].transpose(0, 3, 1, 2)

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

    def _mixed(self, x: Array, y: Array, epoch: int, i: int) -> Batch:
        """Return batch i, its images ready for the network, with images and labels mixed."""
        return (x, y) if self.mix is None else self.mix(x, y, _generator(self.seed, epoch, _MIX, i))


def _stored(images: Array | Source, labels: Array | None) -> tuple[Any, tuple[int, int, int], np.dtype[Any]]:
    """Return where a loader gathers from, a source or an array (N, H, W, C), with (C, H, W) and the dtype of an image.

    Raises:
        ValueError: no images, or not as many labels.
    """
    if isinstance(images, Source):
        shape, dtype, known = (len(images), *images.shape), np.dtype(np.uint8), True
    else:
        shape, dtype = tuple(images.shape), images.dtype
        known = len(shape) == 4 or (len(shape) == 2 and dtype.kind == "f")
    found = 0 if labels is None else len(labels)
    if not known or shape[0] != found or found == 0:
        raise ValueError(
            f"Loader needs images (N, C, H, W), or floating-point features (N, F), and N labels, N ≥ 1: got {dtype} "
            f"{shape} and {found} labels"
        )
    if isinstance(images, Source):
        return images, images.shape, dtype
    # (N, F) -> (N, F, 1, 1)
    images = images if len(shape) == 4 else images[:, :, None, None]
    # (N, C, H, W) -> (N, H, W, C), contiguous: an image is one run of memory
    return array_module(images).ascontiguousarray(images.transpose(0, 2, 3, 1)), images.shape[1:], dtype
