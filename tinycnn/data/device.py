"""Batches on a GPU, the same as on the CPU to the bit.

What is random was drawn on the CPU, from (seed, epoch, number of the batch) as ever; to the GPU goes a small table of
which images, which way moved, and `assemble` makes the batch of it in one kernel.  The images are there already, if
they fit (*resident*).  Otherwise they travel, as bytes, two batches ahead of the computation::

    CPU           gather 2           gather 3           gather 4          rows copied, or files read, into pinned memory
    copy stream             copy 2             copy 3             copy 4
    GPU           batch 0, step 0    batch 1, step 1    batch 2, step 2

Buffers on the CPU (`_Pinned`) and two on the GPU (`_Slot`) take turns.  Events say when one may be written again: by
the CPU when its last copy has been made, by the copy when the last batch has been formed from it.

With ``workers`` the first row is done by so many threads (`tinycnn.data.workers`), further ahead and each into a buffer
of its own; what is resident has its tables drawn by them.  The GPU is spoken to by the caller's thread alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
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
from .loader import Batch, Loader, Scale, Transform
from .mix import Mix
from .source import Source
from .transforms import Normalize
from .workers import prepared

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
        resident: keep the images on the GPU; by default if they take no more than half its free memory.  Those of a
            `Source` never are.
        workers, ahead: as `Loader`'s, for what is done on the CPU.

    Raises:
        ValueError: as `Loader`; means for another number of channels; a `Source` that should be resident.
        DeviceError: there is no usable GPU.
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
        resident: bool | None = None,
        workers: int = 0,
        ahead: int = 2,
    ) -> None:
        labels = None if labels is None else to_numpy(labels)
        super().__init__(
            images, labels, batch_size, shuffle, seed, drop_last, transform, normalize, mix, workers, ahead
        )
        self.resident = _is_resident(images, resident)
        if self.resident:
            self._images = to_device(self._images, CUDA)
        self._in_one = (
            self._dtype == np.uint8
            and (transform is None or isinstance(transform, Augmentation))
            and isinstance(self.normalize, Normalize)
        )
        if self._in_one:
            self._prepare()
        synchronize()  # batches may be asked for on another stream

    def _prepare(self) -> None:
        """Make what `assemble` needs for every batch."""
        C = self._shape[0]
        assert isinstance(self.normalize, Normalize)
        if len(self.normalize.mean) != C:
            raise ValueError(f"Normalize has {len(self.normalize.mean)} means, the images {C} channels")
        self._scale = to_device(self.normalize.scale(), CUDA)
        self._means = np.zeros((0, C))
        if isinstance(self.transform, Augmentation) and self.transform.uses_means and self.resident:
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
        way = self._resident_batches if self.resident else self._travelling
        return way(self.order(epoch), epoch, start, into)

    def _table(self, order: np.ndarray, epoch: int, i: int, pixels: np.ndarray | None = None) -> list[np.ndarray]:
        """Return what the GPU must know of batch i: its labels, where its images are, and how they change.

        Args:
            order, epoch, i: which batch.
            pixels: of its images, (n, H, W, C), if they are to travel.
        """
        indices = self._indices(order, i)
        places = indices if pixels is None else np.arange(len(indices))
        table = [np.ascontiguousarray(self.labels[indices]), places]
        if self._in_one and isinstance(self.transform, Augmentation):
            means = np.zeros((len(indices), self._shape[0]))
            if self.transform.uses_means:
                means = self._means[indices] if pixels is None else pixel_means(pixels)
            changes = self.transform.draw(means, self._rng(epoch, i))
            table += [part for part in changes if part is not None]
        return table

    def _form(self, images: Array, table: list[Array], epoch: int, i: int, into: Target | None) -> Batch:
        """Return batch i, of ``images`` (…, H, W, C) and its table, both on the GPU."""
        y, places, *changes = table
        target = None if into is None else into()
        if self._in_one:
            fits = target is not None and target[0].shape == (len(y), *self._shape)
            x = self._assembled(images, places, changes, target[0] if target is not None and fits else None)
        else:
            x = self._change(images[places].transpose(0, 3, 1, 2), epoch, i)  # (n, H, W, C) -> (n, C, H, W)
        x, y = self._mixed(x, y, epoch, i)
        if target is None or target[0].shape != x.shape:
            return x, y
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

    def _resident_batches(self, order: np.ndarray, epoch: int, start: int, into: Target | None) -> Iterator[Batch]:
        tasks = (partial(self._packed, order, epoch, i) for i in range(start, len(self)))
        with closing(prepared(tasks, self.workers, self.ahead)) as made:
            for i, (table, parts) in enumerate(made, start):
                yield self._form(self._images, _unpack(to_device(table, CUDA), parts), epoch, i, into)

    def _packed(self, order: np.ndarray, epoch: int, i: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the table of batch i in one array, and its parts."""
        parts = self._table(order, epoch, i)
        table = np.empty(_size(parts), np.uint8)
        _pack(parts, table)
        return table, parts

    # ---- images that travel --------------------------------------------------------------------------------

    def _travelling(self, order: np.ndarray, epoch: int, start: int, into: Target | None) -> Iterator[Batch]:
        stream, slots, sent = new_stream(), dict[int, _Slot](), deque[_Slot | Exception]()
        made = prepared(self._fillings(order, epoch, start), self.workers, self.ahead)

        def send(i: int) -> None:
            try:
                pinned, parts = next(made)
            except StopIteration:
                return
            except Exception as error:  # the batches before this one come first
                sent.append(error)
                return
            if i < start + AHEAD:
                slots[i % AHEAD] = _Slot(pinned.pixels, _size(parts))
            slots[i % AHEAD].send(pinned, parts, stream)
            sent.append(slots[i % AHEAD])

        try:
            for i in range(start, start + AHEAD):
                send(i)
            for i in range(start, len(self)):
                slot = sent.popleft()
                if isinstance(slot, Exception):
                    try:
                        raise slot
                    finally:
                        del slot  # its traceback leads back here: a cycle, which would hold the buffers
                with slot as (images, (y, *table)):
                    # the labels are handed out: they must stay when the slot is written again
                    batch = self._form(images, [y.copy(), *table], epoch, i, into)
                yield batch
                send(i + AHEAD)
        finally:
            made.close()
            stream.synchronize()  # left in the middle: nothing may be copied from or to memory that is free

    def _fillings(self, order: np.ndarray, epoch: int, start: int) -> Iterator[Callable[[], _Filled]]:
        """Yield for every batch the task of gathering it, when there is a buffer that it may be gathered into."""
        some = AHEAD + (self.workers + self.ahead if self.workers else 0)
        C, H, W = self._shape
        buffers = deque[_Pinned]()
        for i in range(start, len(self)):
            if len(buffers) < some:
                buffers.append(_Pinned((len(self._indices(order, i)), H, W, C), self._dtype))
            else:
                buffers.rotate(-1)
            buffers[-1].copied.synchronize()
            yield partial(self._fill, buffers[-1], order, epoch, i)

    def _fill(self, pinned: _Pinned, order: np.ndarray, epoch: int, i: int) -> _Filled:
        """Gather batch i, and draw what is random about it."""
        indices = self._indices(order, i)
        pixels = pinned.pixels[: len(indices)]
        if isinstance(self._images, Source):
            # (n, C, H, W) -> (n, H, W, C)
            pixels[...] = self._images.get(indices).transpose(0, 2, 3, 1)
        else:
            np.take(self._images, indices, axis=0, out=pixels, mode="clip")  # unlike "raise", without a buffer
        return pinned, self._table(order, epoch, i, pixels)


def _is_resident(images: Array | Source, wanted: bool | None) -> bool:
    """Return whether a loader keeps the images on the GPU, where it is (not) told to.

    Raises:
        ValueError: a source should be.
    """
    if isinstance(images, Source):
        if wanted:
            raise ValueError("a Source is read as it is needed: for images resident on the GPU give an array of them")
        return False
    return is_device_array(images) or (images.nbytes <= SHARE * free_memory() if wanted is None else wanted)


class _Pinned:
    """Memory on the CPU that one batch is copied to the GPU from; ``copied`` says when it has been."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.pixels, self.copied = pinned_empty(shape, dtype), new_event()
        self.table = np.empty(0, np.uint8)

    def pack(self, parts: list[np.ndarray]) -> np.ndarray:
        """Return the parts in one array."""
        if not self.table.size:
            self.table = pinned_empty((_size(parts),), np.uint8)  # the first batch is no smaller than later ones
        _pack(parts, self.table)
        return self.table


_Filled: TypeAlias = tuple[_Pinned, list[np.ndarray]]
"""A batch in pinned memory, and the parts of its table."""


class _Slot:
    """The buffers of one batch on the GPU.

    ``with slot as (images, table)`` forms the batch: on the current stream, once the copies have been made.
    """

    def __init__(self, like: np.ndarray, size: int) -> None:
        self.pixels, self.table = device_empty(like.shape, like.dtype), device_empty((size,), np.uint8)
        self.parts: list[np.ndarray] = []
        self.copied: Any = None
        self.used = new_event()
        current_stream().record(self.used)  # what had this memory before may still be at work

    def send(self, pinned: _Pinned, parts: list[np.ndarray], stream: Any) -> None:
        """Have ``stream`` copy a batch that lies in pinned memory."""
        self.parts, self.copied = parts, pinned.copied
        n, table = len(parts[0]), pinned.pack(parts)
        stream.wait_event(self.used)
        self.pixels[:n].set(pinned.pixels[:n], stream=stream)
        self.table[: len(table)].set(table, stream=stream)
        stream.record(self.copied)

    def __enter__(self) -> tuple[Array, list[Array]]:
        current_stream().wait_event(self.copied)
        return self.pixels[: len(self.parts[0])], _unpack(self.table, self.parts)

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
