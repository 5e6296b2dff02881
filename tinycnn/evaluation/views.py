"""Looking at an image several times: crops, mirror images and sizes, whose probabilities are averaged.

A network that is shown a photograph a little to the left, mirrored or larger answers a little differently, and the mean
of its answers is better than one of them.  It costs as many forwards as there are views::

    view                        forwards           source
    SingleView()                1                  the whole image
    SingleView(224)             1                  its middle
    Mirrored()                  2                  the image and its mirror image
    TenCrop(224)                10                 four corners and the middle of 256×256, and their mirror images
    MultiScale((256, 384))      2·scales           resized so that the shorter side is 256, then 384, and mirrored

Views work on the loader's batches, (n, C, H, W), normalised already.  Cropping and mirroring move pixels and change
none.  Resizing is linear with weights of sum 1, as normalising is, so that it does not matter which comes first.

Networks that end in global average pooling take images of any size.  Others take one size only: they need views that
cut it out, such as ``MultiScale((256, 384), TenCrop(224))``.

Sources: Krizhevsky, Sutskever & Hinton 2012, section 4.1 (ten crops); Simonyan & Zisserman 2015, section 3.2 (scales).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..backend import Array
from ..data import fit_images
from ..parameter import channels_last


class Views(Protocol):
    """What shows a network each image of a batch several times."""

    def __call__(self, x: Array) -> Iterator[Array]:
        """Return batches (n, C, h, w), one after the other: each of them shows every image of ``x`` (n, C, H, W)."""
        ...


def _crop(x: Array, size: int, top: int, left: int) -> Array:
    return x[:, :, top : top + size, left : left + size]


def _margins(owner: object, x: Array, size: int) -> tuple[int, int]:
    """Return how many rows and columns an image has more than a crop."""
    H, W = x.shape[2:]
    if min(H, W) < size:
        raise ValueError(f"{owner}: images are {H}×{W}, smaller than that: bring them to {size}×{size} or more")
    return H - size, W - size


def _middle(owner: object, x: Array, size: int | None) -> Array:
    if size is None:
        return x
    rows, cols = _margins(owner, x, size)
    return _crop(x, size, round(rows / 2), round(cols / 2))


def _check_size(owner: object, size: int | None) -> None:
    if size is not None and size < 1:
        raise ValueError(f"{type(owner).__name__}: sizes begin at 1 pixel, got {size}")


def _mirror(x: Array) -> Array:
    return x[:, :, :, ::-1]


@dataclass(frozen=True)
class SingleView:
    """Each image once: all of it, or ``size``×``size`` pixels in its middle.

    Raises:
        ValueError: images are smaller.

    >>> import numpy as np
    >>> [view.shape for view in SingleView(6)(np.zeros((2, 1, 8, 8)))]
    [(2, 1, 6, 6)]
    """

    size: int | None = None

    def __post_init__(self) -> None:
        _check_size(self, self.size)

    def __call__(self, x: Array) -> Iterator[Array]:
        """Yield one batch."""
        yield channels_last(_middle(self, x, self.size))


@dataclass(frozen=True)
class Mirrored(SingleView):
    """Each image, or ``size``×``size`` pixels in its middle, and its mirror image.

    Raises:
        ValueError: images are smaller.

    >>> import numpy as np
    >>> [view[0, 0].tolist() for view in Mirrored()(np.arange(2.0).reshape(1, 1, 1, 2))]
    [[[0.0, 1.0]], [[1.0, 0.0]]]
    """

    def __call__(self, x: Array) -> Iterator[Array]:
        """Yield two batches."""
        for view in super().__call__(x):
            yield view
            yield channels_last(_mirror(view))


@dataclass(frozen=True)
class TenCrop:
    """Crops of ``size``×``size`` at the four corners and in the middle, and then the mirror images of these five.

    Raises:
        ValueError: images are smaller.

    >>> import numpy as np
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> [int(view[0, 0, 0, 0]) for view in TenCrop(2)(x)]  # the pixel at the top left of each
    [0, 1, 3, 4, 0, 1, 2, 4, 5, 1]
    """

    size: int

    def __post_init__(self) -> None:
        _check_size(self, self.size)

    def __call__(self, x: Array) -> Iterator[Array]:
        """Yield ten batches: top left, top right, bottom left, bottom right, middle; mirrored likewise."""
        rows, cols = _margins(self, x, self.size)
        corners = [(0, 0), (0, cols), (rows, 0), (rows, cols)]
        places = [*corners, (round(rows / 2), round(cols / 2))]
        crops = [_crop(x, self.size, top, left) for top, left in places]
        for crop in (*crops, *map(_mirror, crops)):
            yield channels_last(crop)


@dataclass(frozen=True)
class MultiScale:
    """Each image in several sizes, and the views of each that ``views`` takes.

    Attributes:
        sizes: what the shorter side is resized to (bilinear, antialiased); the longer one keeps its proportion.
        views: of every size; the whole image and its mirror image by default.

    Raises:
        ValueError: no sizes, or one below 1.
    """

    sizes: Sequence[int]
    views: Views = Mirrored()

    def __post_init__(self) -> None:
        if not len(self.sizes):
            raise ValueError("MultiScale needs one size or more, got none")
        for size in self.sizes:
            _check_size(self, size)

    def __call__(self, x: Array) -> Iterator[Array]:
        """Yield the views of the first size, then of the next."""
        H, W = x.shape[2:]
        for size in self.sizes:
            new = max(size, size * H // W), max(size, size * W // H)
            yield from self.views(fit_images(x, new, "resize"))
