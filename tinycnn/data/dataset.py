"""A dataset in memory: cutting it in two, and bringing it to a network's input size."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from ..backend import Array
from .transforms import Normalize, fit_images


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Labelled images.

    Attributes:
        name, split: what it is: ``"mnist"``, ``"train"``.
        images: uint8, 0 black to 255 full intensity, (N, C, H, W) on channels-last memory.
        labels: int64, (N,), indices into ``classes``.
        classes: name of every class.
        mean, std: of the training pixels per channel, as fractions of full intensity.

    Raises:
        ValueError: shapes, dtypes, labels and classes do not fit together.
    """

    name: str
    split: str
    images: Array
    labels: Array
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        x, y, K = self.images, self.labels, len(self.classes)
        if x.ndim != 4 or x.dtype != np.uint8:
            raise ValueError(f"{self.name}: images must be uint8 (N, C, H, W), got {x.dtype} {tuple(x.shape)}")
        if y.shape != (len(x),) or y.dtype != np.int64:
            raise ValueError(
                f"{self.name}: {len(x)} images need int64 labels of shape ({len(x)},), got {y.dtype} {tuple(y.shape)}"
            )
        if len(y) and not 0 <= int(y.min()) <= int(y.max()) < K:
            raise ValueError(f"{self.name}: labels must lie in 0..{K - 1}, got {int(y.min())}..{int(y.max())}")
        if not len(self.mean) == len(self.std) == x.shape[1]:
            raise ValueError(
                f"{self.name}: mean and std must have one value for each of {x.shape[1]} channels, "
                f"got {self.mean} and {self.std}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        _, C, H, W = self.images.shape
        return C, H, W

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each occurs."""
        return len(self.classes)

    @property
    def normalize(self) -> Normalize:
        """The scaling by this dataset's training statistics."""
        return Normalize(self.mean, self.std)

    def subset(self, indices: Array, split: str | None = None) -> Dataset:
        """Return the examples at ``indices``, in that order, as a dataset called ``split`` (default: as this one)."""
        # (N, C, H, W) -> (N, H, W, C): rows are gathered in memory order; and back as a view
        images = self.images.transpose(0, 2, 3, 1)[indices].transpose(0, 3, 1, 2)
        return dataclasses.replace(self, images=images, labels=self.labels[indices], split=split or self.split)

    def __repr__(self) -> str:
        C, H, W = self.shape
        return f"Dataset({self.name} {self.split}: {len(self):,} images {C}×{H}×{W}, {self.num_classes} classes)"


def stratified_split(labels: np.ndarray, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a part of the examples that holds every class in the proportion of the whole.

    The part has round(fraction·N) examples, fraction·n of a class of n, rounded down, and one more in the
    classes with the largest remainders until the sum is right.  Which ones depends on ``labels`` and ``seed``
    alone: on the raw bits of Philox, which NumPy promises never to change, rather than on a method of
    `numpy.random.Generator`, which it may.

    Args:
        labels: integers from 0, (N,).
        fraction: of the part, between 0 and 1.
        seed: any other gives another part.

    Returns:
        (indices of the rest, indices of the part), each ascending.

    Raises:
        ValueError: ``fraction`` is not between 0 and 1, or leaves one side empty.

    >>> rest, part = stratified_split(np.array([0, 0, 0, 0, 1, 1]), 0.5)
    >>> len(rest), sorted(np.array([0, 0, 0, 0, 1, 1])[part].tolist())
    (3, [0, 0, 1])
    """
    N = len(labels)
    if not 0 < fraction < 1 or not 0 < round(fraction * N) < N:
        raise ValueError(
            f"fraction must lie between 0 and 1 and leave examples on both sides: {fraction} of {N} does not"
        )
    exact = fraction * np.bincount(labels)
    wanted = exact.astype(np.int64)
    by_remainder = np.argsort(wanted - exact, kind="stable")
    wanted[by_remainder[: round(fraction * N) - wanted.sum()]] += 1
    order = np.argsort(np.random.Philox(key=seed).random_raw(N), kind="stable")
    part = np.concatenate([order[labels[order] == k][:n] for k, n in enumerate(wanted)])
    return np.setdiff1d(np.arange(N), part), np.sort(part)


def split_validation(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Set a stratified part of a training set aside, to choose by (see `stratified_split`).

    Returns:
        (the rest, the part); the part's ``split`` is ``"validation"``.

    Raises:
        ValueError: ``fraction`` is not between 0 and 1, or leaves one side empty.

    >>> from tinycnn import data
    >>> rest, part = split_validation(data.load("digits", split="train"), 0.1)
    >>> len(rest), len(part), part.split
    (1294, 144, 'validation')
    """
    rest, part = stratified_split(dataset.labels, fraction, seed)
    return dataset.subset(rest), dataset.subset(part, "validation")


def prepare(dataset: Dataset, size: tuple[int, int] = (32, 32), method: str = "auto") -> Dataset:
    """Return the dataset with its images brought to a network's input size by `fit_images`, still uint8.

    Scaling to float is left to the loader, one batch at a time: four bytes less per pixel of the whole set.
    ``mean`` and ``std`` stay those of the published pixels.

    >>> from tinycnn import data
    >>> prepare(data.load("digits", split="test")).images.shape
    (359, 1, 32, 32)
    """
    return dataclasses.replace(dataset, images=fit_images(dataset.images, size, method))
