"""Where batches come from: a loader, or anything else that gives them one after the other."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeAlias, runtime_checkable

from ..backend import Array
from ..data.device import DeviceLoader

Batch: TypeAlias = tuple[Array, Array]
"""Images and their targets."""


@runtime_checkable
class Batches(Protocol):
    """Batches that know their place: `tinycnn.data.Loader` is one."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch, from number ``start`` on; the same each time it is asked."""


class SizedIterable(Protocol):
    """A list of batches, or another library's loader: each iteration is an epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Return the batches of an epoch."""


AnyBatches: TypeAlias = Batches | SizedIterable


class _Iterated:
    """Makes `Batches` of what can only be iterated; to begin in the middle the batches before are taken and left."""

    def __init__(self, loader: SizedIterable) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return an iteration of the loader, whatever the epoch is."""
        return itertools.islice(iter(self._loader), start, None)


def as_batches(loader: AnyBatches) -> Batches:
    """Return ``loader``, or what makes `Batches` of it.

    Raises:
        TypeError: it is neither `Batches` nor something with a length that can be iterated.
    """
    if isinstance(loader, Batches):
        return loader
    if not hasattr(loader, "__len__") or not isinstance(loader, Iterable):
        raise TypeError(
            f"batches come from a tinycnn.data.Loader, or from anything with a length that can be iterated, such as a "
            f"list of (images, targets): got a {type(loader).__name__}"
        )
    return _Iterated(loader)


@contextlib.contextmanager
def opened(loader: Batches, epoch: int, start: int, into: Any) -> Iterator[Iterator[Batch]]:
    """Give the batches that are left of an epoch, and let the loader clean up when they are left, however that is.

    Args:
        loader, epoch, start: see `Batches.epoch`.
        into: see `DeviceLoader.epoch`.
    """
    if isinstance(loader, DeviceLoader):
        batches = loader.epoch(epoch, start, into=into)
    else:
        batches = loader.epoch(epoch, start)
    try:
        yield iter(batches)
    finally:
        close = getattr(batches, "close", None)
        if callable(close):
            close()
