"""The images of a run: loaded, cut into parts, brought to the network's size, and given to loaders.

======================  =============================================================================================
published               the training images as they are
`fraction`              of these, every class in proportion; the rest is not used
`val_fraction`          of what is left: set aside, every class in proportion, to choose the best epoch by
======================  =============================================================================================

Photographs in folders that take more than `LARGE` bytes stay in their files, and loaders decode them as they go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import data, models
from ..backend import CPU, Array
from ..data import DeviceLoader, Loader, fit_images
from ..data.files import PathLike
from ..data.imagefolder import SIZE, open_folder
from ..messages import some
from . import normalization
from .settings import Settings

EVALUATION_BATCH = 256
"""Fixed, so that an accuracy measured again is the same number."""
WATCHED = 2
"""Images of `Images.watched`."""
LARGE = 4 << 30
"""Bytes of decoded photographs that are not kept in memory any more."""
FOLDERS = ("imagefolder", "hymenoptera")


class Photographs:
    """Some photographs of a folder, brought to a size when they are decoded: a `Source`, with what a `Dataset` says.

    Attributes:
        name, classes, mean, std, labels, shape: as a `Dataset`'s.
    """

    def __init__(self, source: Any, indices: np.ndarray | None = None, size: tuple[int, int] | None = None) -> None:
        self._source, self._size = source, size
        self._indices = np.arange(len(source)) if indices is None else indices
        self.name, self.classes, self.mean, self.std = source.name, source.classes, source.mean, source.std
        self.labels = source.labels[self._indices]
        C, H, W = source.shape
        self.shape: tuple[int, int, int] = (C, *(size or (H, W)))
        self.num_classes = len(self.classes)

    def __len__(self) -> int:
        return len(self._indices)

    def get(self, indices: np.ndarray) -> np.ndarray:
        """Return the images at ``indices``, see `Source`."""
        x: np.ndarray = self._source.get(self._indices[indices])
        return x if self._size is None else fit_images(x, self._size)

    def subset(self, indices: np.ndarray, split: str | None = None) -> Photographs:
        """Return those at ``indices``."""
        return Photographs(self._source, self._indices[indices], self._size)

    def fitted(self, size: tuple[int, int]) -> Photographs:
        """Return them in another size."""
        return Photographs(self._source, self._indices, size)


@dataclass(frozen=True, eq=False)
class Images:
    """What a run trains with, chooses by, and is measured on.

    Attributes:
        training, validation, test: loaders; validation is None if nothing is set aside.
        watched: a loader of a few images of the validation part, or else of the training images as they are: of as
            many classes the first one each.
        watched_numbers: of these images, in that part.
        num_classes, channels: of the dataset.
        preprocessing: how images become inputs, for a checkpoint's metadata: all that ``predict`` and ``eval`` need.
        learnt: the arrays that belong to it (`normalization`).
        identity: what tells whether another dataset is this one: see `differences`.
    """

    training: Loader
    validation: Loader | None
    test: Loader
    watched: Loader
    watched_numbers: list[int]
    num_classes: int
    channels: int
    preprocessing: dict[str, Any]
    learnt: dict[str, Array] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)


def open_images(settings: Settings, device: str, data_dir: str | None, workers: int = 0) -> Images:
    """Load the dataset of some settings, and make its loaders.

    Args:
        settings: of the run.
        device: where the loaders are to bring batches.
        data_dir: where the data are.
        workers: threads that prepare batches; the result does not depend on it.

    Raises:
        ValueError: settings that do not fit the dataset.
        DataError: it is missing or damaged.
    """
    published, test = (load(settings.data, split, data_dir, **settings.data_options) for split in ("train", "test"))
    train, held_out = divide(published, settings.fraction, settings.val_fraction, settings.seed)
    size = models.architecture(settings.model).input_shape[1:]
    train, test = fitted(train, size), fitted(test, size)
    held_out = None if held_out is None else fitted(held_out, size)
    if isinstance(train, Photographs) and (settings.normalize != "standard" or "lighting" in str(settings.augment)):
        raise ValueError(
            f"{settings.data}: {len(published):,} photographs are too many for memory, and what is to be learnt from "
            "all of them is not: use --normalize standard, and no lighting"
        )
    learnt = {} if isinstance(train, Photographs) else normalization.fit(settings.normalize, train.images)
    scale = normalization.scaling(settings.normalize, published.mean, published.std, learnt, settings.dtype)
    make = _Maker(settings, device, scale, workers)
    part = train if held_out is None else held_out
    watched = of_other_classes(part.labels, WATCHED)
    return Images(
        training=make(train, training=True),
        validation=None if held_out is None else make(held_out),
        test=make(test),
        watched=make(part.subset(np.array(watched))),
        watched_numbers=watched,
        num_classes=published.num_classes,
        channels=published.shape[0],
        preprocessing=preprocessing(published, size, settings.normalize),
        learnt=learnt,
        identity=identity(published, test),
    )


def load(name: str, split: str, data_dir: PathLike | None = None, **options: Any) -> Any:
    """Return a `Dataset`, or `Photographs` where they are too many for memory.

    Args:
        name, split, data_dir, options: as `tinycnn.data.load`'s.

    Raises:
        ValueError: no such dataset or option.
        DataError: it is missing or damaged.
    """
    if name in FOLDERS and not options.get("skip_unreadable"):
        (path,) = data.where(name, data_dir)
        C, (H, W) = options.get("channels", 3), options.get("size", SIZE)
        how = {key: value for key, value in options.items() if key != "skip_unreadable"}
        source = open_folder(path, split, name=name, **{**how, "size": (H, W)})
        if len(source) * C * H * W > LARGE:
            return Photographs(source)
    return data.load(name, split, data_dir, **options)


def divide(published: Any, fraction: float, val_fraction: float, seed: int) -> tuple[Any, Any]:
    """Return the part of the training images to train with, and the part set aside or None, see the module docstring.

    Raises:
        ValueError: ``fraction`` leaves a class without images; too few are to be set aside, or too many.
    """
    train = published
    if fraction < 1:
        _, kept = data.stratified_split(train.labels, fraction, seed)
        train = train.subset(kept)
        _check_classes(fraction, published, train)
    if val_fraction == 0:
        return train, None
    try:
        rest, part = data.stratified_split(train.labels, val_fraction, seed)
    except ValueError as error:
        raise ValueError(f"val_{error}") from None  # it begins with "fraction"
    return train.subset(rest), train.subset(part, "validation")


def _check_classes(fraction: float, published: Any, train: Any) -> None:
    before, after = (np.bincount(d.labels, minlength=published.num_classes) for d in (published, train))
    if lost := [published.classes[k] for k in np.flatnonzero((before > 0) & (after == 0))]:
        raise ValueError(f"fraction {fraction:g} of {len(published):,} images leaves none of {some(lost)}: take more")


def of_other_classes(labels: np.ndarray, count: int) -> list[int]:
    """Return the places of the first ``count`` labels of which none was there before; folders come class by class.

    >>> of_other_classes(np.array([3, 3, 1, 3, 0]), 2)
    [0, 2]
    """
    first: list[int] = sorted(np.unique(labels, return_index=True)[1].tolist())
    return first[:count]


def fitted(part: Any, size: Any) -> Any:
    """Return images in the size that a network takes."""
    return part.fitted(tuple(size)) if isinstance(part, Photographs) else data.prepare(part, size)


@dataclass(frozen=True)
class _Maker:
    """Makes the loaders of a run."""

    settings: Settings
    device: str
    scale: Callable[[Array], Array]
    workers: int

    def __call__(self, part: Any, training: bool = False) -> Loader:
        s = self.settings
        if not training:
            return for_evaluation(part, self.scale, s.normalize, self.device, self.workers, s.seed)
        images, scale = _scaled(part, self.scale, s.normalize)
        return _kind(self.device)(
            images,
            part.labels,
            s.batch_size,
            seed=s.seed,
            transform=s.make_transform(getattr(part, "images", None)),
            normalize=scale,
            mix=s.make_mix(part.num_classes),
            workers=self.workers,
        )


def for_evaluation(
    part: Any, scale: Callable[[Array], Array], normalize: str, device: str, workers: int = 0, seed: int = 0
) -> Loader:
    """Return a loader of images as they are, in their order.

    Args:
        part: in the network's size (`fitted`).
        scale, normalize: what scales them, and its name (`normalization`).
        device, workers, seed: of the loader.
    """
    images, batch_scale = _scaled(part, scale, normalize)
    return _kind(device)(
        images, part.labels, EVALUATION_BATCH, shuffle=False, seed=seed, normalize=batch_scale, workers=workers
    )


def _kind(device: str) -> type[Loader]:
    return Loader if device == CPU else DeviceLoader


def _scaled(part: Any, scale: Callable[[Array], Array], normalize: str) -> tuple[Any, Callable[[Array], Array] | None]:
    """Return what a loader takes images from, and what is then to scale a batch."""
    if isinstance(part, Photographs):
        return part, scale
    if normalize != "standard":  # once and for all: see `normalization`
        return normalization.whole(part.images, scale), None
    return part.images, scale


def preprocessing(dataset: Any, size: Any, normalize: str = "standard") -> dict[str, Any]:
    """Return how images become inputs, for a checkpoint's metadata."""
    return {
        "data": dataset.name,
        "classes": dataset.classes,
        "image_size": dataset.shape[1:],
        "input_size": size,
        "mean": dataset.mean,
        "std": dataset.std,
        "normalize": normalize,
    }


# ---- is it the same dataset? -----------------------------------------------------------------------------------


def identity(training: Any, test: Any) -> dict[str, Any]:
    """Return classes, how many images there are of each, and a digest of the labels in their order."""
    counts = {
        split: np.bincount(part.labels, minlength=training.num_classes).tolist()
        for split, part in (("training", training), ("test", test))
    }
    labels = np.concatenate([training.labels, test.labels]).astype("<i8")
    digest = hashlib.blake2b(labels.tobytes(), digest_size=16).hexdigest()
    return {"classes": list(training.classes), "images": counts, "labels": digest}


def difference(saved: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Say in what a dataset is another than it was; None if it is in nothing."""
    if saved == now:
        return None
    if saved["classes"] != now["classes"]:
        lost = [name for name in saved["classes"] if name not in now["classes"]]
        new = [name for name in now["classes"] if name not in saved["classes"]]
        words = [f"{some(lost)} is gone"] * bool(lost) + [f"{some(new)} is new"] * bool(new)
        return f"its classes are others ({'; '.join(words) or 'their order'})"
    for split in ("training", "test"):
        before, after = saved["images"][split], now["images"][split]
        if before != after:
            changed = [
                f"{name} {a:,} and not {b:,}"
                for name, a, b in zip(now["classes"], after, before, strict=True)
                if a != b
            ]
            return f"its {split} images are {sum(after):,} and were {sum(before):,} ({some(changed)})"
    return "the order of its images is another"
