"""``loader``: what the loader costs a training step, and how fast it is by itself.

Three tables.  ResNet-20 trains on images of CIFAR-10's shape, shifted and mirrored, with batches that were made in
advance, and with batches as the loader makes them, with and without threads of its own: the difference is what the
loader costs.  Then the loader alone, with light and heavy augmentation; and a folder of photographs, decoded as they
are needed.  Pixels are synthetic: how long all this takes does not depend on what is to be seen (but how long a JPEG
takes depends on its bytes; these have about as many per pixel as photographs).
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinycnn import data

from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Samples, Spread, race, ratio
from .training import Ours

FULL, QUICK = Effort(60, 9, 30, 1), Effort(0.3, 3, 3, 1)
FULL_ALONE, QUICK_ALONE = Effort(10, 5, 20, 1), Effort(0.2, 3, 3, 1)
WORKERS = (0, 1, 2)
ADVANCE = "made in advance"
STEPS = 4
"""Training steps in a row, for each sample."""
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
LIGHT: Any = data.Compose([data.RandomCrop(32, padding=4), data.RandomHorizontalFlip()])
HEAVY: Any = data.Compose([LIGHT, data.ElasticTransform(8, 3), data.ColorJitter(0.4, 0.4, 0.4, 0.1), data.Cutout(8)])
AUGMENTATIONS: dict[str, Any] = {
    "none": None,
    "shift, mirror": data.Augment(shift=4, mirror=True),
    "crop, mirror": LIGHT,
    "crop, mirror, warp, colours, cutout": HEAVY,
}
COST = [
    Column("title", "batches"),
    Column("batch", "batch", "count"),
    Column("step", "training step ms", "ms"),
    Column("relative", "÷ made in advance", "ratio"),
    Column("lost", "lost to the loader", "share"),
    Column("waiting", "waiting for batches", "share"),
]
SPEED = [
    Column("title", "loader alone"),
    Column("workers", "workers", "count"),
    Column("time", "batch ms", "ms"),
    Column("images", "images/s", "count"),
    Column("speed", "÷ without workers", "ratio"),
]
COST_NOTES = [
    f"a sample is the mean of {STEPS} steps in a row; batches made in advance lie in memory, normalised, and differ.",
    "lost: 1 − the median with batches made in advance ÷ the median here; below 0, less than the noise.",
    "waiting: the part of a step until its batch is there; what a loader's threads slow down is not seen in it.",
]
SPEED_NOTES = ["workers: threads of the loader; a sample is a pass through so many batches, their start included."]


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure those of `cases` whose name contains ``only``."""
    cases = {
        "resnet20": partial(training, quick),
        "cifar10 alone": partial(augmenting, quick),
        "photographs": partial(decoding, quick),
    }
    chosen = [name for name in cases if only.lower() in name]
    return [cases[name]() for name in (progress or Progress.silent()).over(chosen, "loader")]


# ---- beside the training step ----------------------------------------------------------------------------------


def pictures(N: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return random images, uint8 (N, 3, size, size) on channels-last memory, and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, size, size, 3), np.uint8).transpose(0, 3, 1, 2), rng.integers(0, 10, N)


def loader(N: int, batch_size: int, workers: int, transform: Any) -> data.Loader:
    """Return a loader of random images."""
    images, labels = pictures(N)
    return data.Loader(
        images, labels, batch_size, transform=transform, normalize=data.Normalize(MEAN, STD), workers=workers
    )


class Training(Ours):
    """Our training step, of another batch each time."""

    def __init__(self, name: str, N: int, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__(name, N)
        self.batches = batches
        self.waits: list[float] = []

    def steps(self) -> None:
        """Do `STEPS` of them, and note how long each waited for its batch."""
        for _ in range(STEPS):
            start = time.perf_counter()
            self.x, self.y = next(self.batches)
            self.waits.append(time.perf_counter() - start)
            self.step()


def training(quick: bool) -> Table:
    """Return what training takes, by where the batches come from."""
    name, N, images = ("resnet20", 8, 80) if quick else ("resnet20", 128, 50_000)
    effort, transform = QUICK if quick else FULL, AUGMENTATIONS["shift, mirror"]
    loaders = {workers: loader(images, N, workers, transform) for workers in WORKERS}
    check(loaders)
    ready = list(itertools.islice(loaders[0].epoch(0), 2 * STEPS))
    sources: dict[str, Iterator[Any]] = {ADVANCE: itertools.cycle(ready)}
    sources |= {_words(n): itertools.chain.from_iterable(itertools.repeat(loaders[n])) for n in WORKERS}
    trainings = {who: Training(name, N, batches) for who, batches in sources.items()}
    samples = race({who: Contender({"steps": t.steps}) for who, t in trainings.items()}, effort)
    table = Table("loader_cost", "Training ResNet-20: what the loader costs", COST, notes=[*COST_NOTES, effort.words()])
    advance = _each(samples, ADVANCE, STEPS)
    for who in samples:
        here = _each(samples, who, STEPS)
        cells: dict[str, Any] = {"waiting": round(Spread.of(trainings[who].waits).median / Spread.of(here).median, 6)}
        cells |= {} if who == ADVANCE else {"relative": ratio(here, advance), "lost": lost(advance, here)}
        table.add(title=who, batch=N, step=Spread.of(here), **cells)
    return table


def lost(advance: list[float], here: list[float]) -> float:
    """Return the share of the time that batches cost which are not made in advance.

    >>> lost([0.9, 0.95, 1.0], [1.0, 0.8, 1.2])
    0.05
    """
    return round(1 - Spread.of(advance).median / Spread.of(here).median, 6)


def check(loaders: dict[int, data.Loader]) -> None:
    """Make sure that any number of workers makes the same batches, to the bit."""
    for batches in itertools.islice(zip(*(each.epoch(0) for each in loaders.values()), strict=True), 5):
        first, *others = [(x.tobytes(), y.tobytes()) for x, y in batches]
        assert all(other == first for other in others), "batches depend on the number of workers"


def _words(workers: int) -> str:
    return f"loader, {workers or 'no'} worker{'' if workers == 1 else 's'}"


def _each(samples: dict[str, Samples], who: str, count: int, phase: str = "steps") -> list[float]:
    """Return the seconds of one of so many steps, or batches."""
    return [seconds / count for seconds in samples[who][phase]]


# ---- alone -----------------------------------------------------------------------------------------------------


def augmenting(quick: bool) -> Table:
    """Return how fast images of CIFAR-10's size are augmented."""
    table = _table("loader_augment", "The loader alone: augmented 32×32 images, batches of 128", quick)
    for title, transform in AUGMENTATIONS.items():
        loaders = {workers: loader(256 if quick else 2048, 128, workers, transform) for workers in WORKERS}
        add_speeds(table, title, loaders, quick)
    return table


def decoding(quick: bool) -> Table:
    """Return how fast photographs in files become batches."""
    table = _table("loader_decode", "The loader alone: JPEG photographs of 500×375 pixels, batches of 16", quick)
    with tempfile.TemporaryDirectory() as folder:
        write_photographs(Path(folder), 16 if quick else 128)
        source = data.open_folder(folder, size=(256, 256))
        for title, transform in (("decoded, 256×256", None), ("and cropped to 224×224", data.RandomResizedCrop(224))):
            how: dict[str, Any] = {"batch_size": 16, "transform": transform, "normalize": source.normalize}
            add_speeds(table, title, {n: data.Loader(source, **how, workers=n) for n in WORKERS}, quick)
    return table


def _table(name: str, title: str, quick: bool) -> Table:
    return Table(name, title, SPEED, notes=[*SPEED_NOTES, (QUICK_ALONE if quick else FULL_ALONE).words()])


def add_speeds(table: Table, title: str, loaders: dict[int, data.Loader], quick: bool) -> None:
    """Add a row for every number of workers."""
    check(loaders)
    contenders = {str(n): Contender({"pass": partial(take_all, each)}) for n, each in loaders.items()}
    samples = race(contenders, QUICK_ALONE if quick else FULL_ALONE)
    for n, each in loaders.items():
        times = _each(samples, str(n), len(each), "pass")
        images = each.num_examples / len(each) / Spread.of(times).median
        speed = ratio(_each(samples, "0", len(each), "pass"), times)
        table.add(title=title, workers=n, time=Spread.of(times), images=round(images), speed=speed)


def take_all(batches: data.Loader) -> None:
    """Take every batch of an epoch, and leave it."""
    for _ in batches:
        pass


def write_photographs(folder: Path, N: int) -> None:
    """Write JPEG files that are as large as photographs of 500×375 pixels: smooth, with grain."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(N):
        place = folder / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        grain = rng.normal(0, 12, (375, 500, 1))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i:04d}.jpg", quality=90)
