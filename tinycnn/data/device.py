"""Batches on a GPU, the same as on the CPU to the bit.

What is random was drawn on the CPU, from (seed, epoch, number of the batch) as ever; to the GPU goes a small table of
which images, which way moved, and `assemble` makes the batch of it in one kernel.  The images are there already, if
they fit (*resident*).  Otherwise they travel, as bytes, two batches ahead of the computation::

    CPU           gather 2           gather 3           gather 4          rows copied into pinned memory
    copy stream             copy 2             copy 3             copy 4
    GPU           batch 0, step 0    batch 1, step 1    batch 2, step 2

Two sets of buffers take turns (`_Slot`).  Events say when one may be written again: by the CPU when its last copy has
been made, by the copy when the last batch has been formed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from ..backend import (
    CUDA,
    Array,
    current_stream,
    device_empty,
    free_memory,
    is_device_array,
    new_event,
    new_stream,
    pinned_empty,
    synchronize,
    to_device,
    to_numpy,
)
from .augment import Augmentation, assemble, pixel_means
from .loader import Loader, Scale, Transform
from .mix import Mix
from .transforms import Normalize

Batch: TypeAlias = tuple[Array, Array]
"""Images (n, C, H, W) on channels-last memory, and their labels."""

Target: TypeAlias = Callable[[], Batch | None]
"""See `DeviceLoader.epoch`."""

AHEAD = 2
"""Batches that are on their way while one is computed with."""
SHARE = 0.5
"""How much of the free memory the images may take."""
ALIGNMENT = 256
"""Bytes that arrays begin at multiples of, within a buffer that holds several."""


class DeviceLoader(Loader):
    """A `Loader` of batches on the GPU.

    Bytes go through `assemble` if their transform is an `Augmentation` or there is none, floats and other transforms
    through the transform's and `Normalize`'s own code with arrays on the GPU.

    Args:
        images, labels, batch_size, shuffle, seed, drop_last, transform, normalize, mix: as `Loader`'s; images and
            labels are on the CPU or on the GPU.
        resident: keep the images on the GPU; by default if they take no more than half its free memory.

    Raises:
        ValueError: as `Loader`, and means for another number of channels.
        DeviceError: there is no usable GPU.
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
        resident: bool | None = None,
    ) -> None:
        super().__init__(images, to_numpy(labels), batch_size, shuffle, seed, drop_last, transform, normalize, mix)
        self.resident = is_device_array(images) or (
            images.nbytes <= SHARE * free_memory() if resident is None else resident
        )
        if self.resident:
            self._images = to_device(self._images, CUDA)
        self._in_one = (
            self._images.dtype == np.uint8
            and (transform is None or isinstance(transform, Augmentation))
            and isinstance(self.normalize, Normalize)
        )
        if self._in_one:
            self._prepare()
        synchronize()  # batches may be asked for on another stream

    def _prepare(self) -> None:
        """Make what `assemble` needs for every batch."""
        C = self._images.shape[3]
        assert isinstance(self.normalize, Normalize)
        if len(self.normalize.mean) != C:
            raise ValueError(f"Normalize has {len(self.normalize.mean)} means, the images {C} channels")
        self._scale = to_device(self.normalize.scale(), CUDA)
        self._means = np.zeros((len(self._images), C))
        if isinstance(self.transform, Augmentation) and self.transform.uses_means:
            self._means = pixel_means(self._images)

    def epoch(self, epoch: int, start: int = 0, into: Target | None = None) -> Iterator[Batch]:
        """Iterate over the batches of one epoch, from number ``start`` on.

        Args:
            epoch, start: as in `Loader.epoch`.
            into: says where to write a batch, the fixed inputs of a captured step for example: called before each, it
                returns arrays (x, y), x on channels-last memory, or None.  A batch that they have not the shape of
                (the last one may be smaller) has arrays of its own, as have all if ``into`` is not given.

        Returns:
            An iterator of (x, y), made on the stream that is current when the next one is asked for.

        Raises:
            ValueError: a negative epoch, or ``start`` outside 0..len(self).
        """
        self._check_place(epoch, start)
        order = self.order(epoch)
        if self.resident:
            return (self._resident_batch(order, epoch, i, into) for i in range(start, len(self)))
        return self._travelling(order, epoch, start, into)

    def _table(self, order: np.ndarray, epoch: int, i: int) -> list[np.ndarray]:
        """Return what the GPU must know of batch i: its labels, where its images are, and how they change."""
        indices = self._indices(order, i)
        places = indices if self.resident else np.arange(len(indices))
        table = [np.ascontiguousarray(self.labels[indices]), places]
        if self._in_one and isinstance(self.transform, Augmentation):
            changes = self.transform.draw(self._means[indices], self._rng(epoch, i))
            table += [part for part in changes if part is not None]
        return table

    def _form(self, images: Array, table: list[Array], epoch: int, i: int, into: Target | None) -> Batch:
        """Return batch i, of ``images`` (…, H, W, C) and its table, both on the GPU."""
        y, places, *changes = table
        _, H, W, C = images.shape
        target = None if into is None else into()
        if target is None or target[0].shape != (len(y), C, H, W):
            target = None, None
        if self._in_one:
            x = self._assembled(images, places, changes, target[0])
        else:
            x = self._change(images[places].transpose(0, 3, 1, 2), epoch, i)  # (n, H, W, C) -> (n, C, H, W)
        x, y = self._mixed(x, y, epoch, i)
        return _written(target[0], x), _written(target[1], y)

    def _assembled(self, images: Array, places: Array, changes: list[Array], x: Array | None) -> Array:
        """Return a batch written into ``x``, or into a new array."""
        assert isinstance(self.normalize, Normalize)
        if x is None:
            y = device_empty((len(places), *images.shape[1:]), self.normalize.dtype)
        else:
            y = x.transpose(0, 2, 3, 1)  # (n, C, H, W) -> (n, H, W, C)
        moves, colours = (*changes, None, None)[:2]
        assemble(images, places, moves, colours, self._scale, y)
        return y.transpose(0, 3, 1, 2) if x is None else x

    # ---- images that are on the GPU ------------------------------------------------------------------------

    def _resident_batch(self, order: np.ndarray, epoch: int, i: int, into: Target | None) -> Batch:
        parts = self._table(order, epoch, i)
        table = np.empty(_size(parts), np.uint8)
        _pack(parts, table)
        return self._form(self._images, _unpack(to_device(table, CUDA), parts), epoch, i, into)

    # ---- images that travel --------------------------------------------------------------------------------

    def _travelling(self, order: np.ndarray, epoch: int, start: int, into: Target | None) -> Iterator[Batch]:
        stream, slots = new_stream(), dict[int, _Slot]()

        def send(i: int) -> None:
            if i >= len(self):
                return
            parts, indices = self._table(order, epoch, i), self._indices(order, i)
            if i < start + AHEAD:
                slots[i % AHEAD] = _Slot((len(indices), *self._images.shape[1:]), self._images.dtype, _size(parts))
            slots[i % AHEAD].send(self._images, indices, parts, stream)

        try:
            for i in range(start, start + AHEAD):
                send(i)
            for i in range(start, len(self)):
                with slots[i % AHEAD] as (images, (y, *table)):
                    # the labels are handed out: they must stay when the slot is written again
                    batch = self._form(images, [y.copy(), *table], epoch, i, into)
                yield batch
                send(i + AHEAD)
        finally:
            stream.synchronize()  # left in the middle: nothing may be copied from or to memory that is free


class _Slot:
    """The buffers of one batch on its way: pinned on the CPU, and on the GPU.

    ``with slot as (images, table)`` forms the batch: on the current stream, once the copies have been made.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, size: int) -> None:
        self.host = pinned_empty(shape, dtype), pinned_empty((size,), np.uint8)
        self.device = device_empty(shape, dtype), device_empty((size,), np.uint8)
        self.parts: list[np.ndarray] = []
        self.length = 0
        self.copied, self.used = new_event(), new_event()
        current_stream().record(self.used)  # what had this memory before may still be at work

    def send(self, images: np.ndarray, indices: np.ndarray, parts: list[np.ndarray], stream: Any) -> None:
        """Gather a batch into the pinned buffers, and have ``stream`` copy it."""
        self.length, self.parts = len(indices), parts
        self.copied.synchronize()
        pixels, table = self.host
        np.take(images, indices, axis=0, out=pixels[: self.length], mode="clip")  # unlike "raise", without a buffer
        _pack(parts, table)
        stream.wait_event(self.used)
        self.device[0][: self.length].set(pixels[: self.length], stream=stream)
        self.device[1].set(table, stream=stream)
        stream.record(self.copied)

    def __enter__(self) -> tuple[Array, list[Array]]:
        current_stream().wait_event(self.copied)
        return self.device[0][: self.length], _unpack(self.device[1], self.parts)

    def __exit__(self, *_: object) -> None:
        current_stream().record(self.used)


# ---- several arrays in one copy --------------------------------------------------------------------------------


def _size(parts: list[np.ndarray]) -> int:
    """Return how many bytes `_pack` needs."""
    return sum(_padded(part) for part in parts)


def _padded(part: np.ndarray) -> int:
    return -(-part.nbytes // ALIGNMENT) * ALIGNMENT


def _unpack(buffer: Array, parts: list[np.ndarray]) -> list[Array]:
    """Return the arrays within ``buffer``, as views, that are like ``parts``."""
    views, at = [], 0
    for part in parts:
        views.append(buffer[at : at + part.nbytes].view(part.dtype).reshape(part.shape))
        at += _padded(part)
    return views


def _pack(parts: list[np.ndarray], buffer: np.ndarray) -> None:
    """Write the arrays into ``buffer``, one behind the other."""
    for view, part in zip(_unpack(buffer, parts), parts, strict=True):
        view[...] = part


def _written(y: Array | None, x: Array) -> Array:
    """Return ``x``, in ``y`` if that is another array."""
    if y is None or y is x:
        return x
    y[...] = x
    return y
