"""``scaling``: how the cost of a training step grows with batch, image size and depth, and shrinks with threads.

Each curve is measured in turns over all its points, ours and PyTorch's (channels_last), and gets the exponent p of the
power law cost = c·size^p that fits it best.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch

import tinycnn

from .networks import DEPTHS, NETS
from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Samples, Spread, exponent, race, ratio
from .torch_training import Theirs
from .training import Ours

FULL, QUICK = Effort(12, 5, 20, 2), Effort(0.3, 3, 3, 1)


@dataclass(frozen=True)
class Curve:
    """One line of points.

    Attributes:
        kind: which of the tables it belongs to.
        title: for people.
        sizes: what is varied; its values.
        subject: network, batch and image size at each of them.
        cost_of: what the exponent is fitted against, a function of the size.
        threads: whether the sizes are numbers of threads.
    """

    kind: str
    title: str
    sizes: Sequence[int]
    subject: Callable[[int], tuple[str, int, int | None]]
    cost_of: Callable[[int], float] = float
    threads: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {self.title}"


KINDS = {"batch": "batch", "size": "image", "depth": "layers", "threads": "threads"}
TITLES = {
    "batch": "Cost against batch",
    "size": "Cost against image size (exponent: of the number of pixels)",
    "depth": "Cost against depth",
    "threads": "Time against threads",
}


def curves(quick: bool, cores: int) -> list[Curve]:
    """Return every curve, or a few points of few curves."""
    if quick:
        return [
            Curve("batch", NETS["lenet5"].title, (8, 16), lambda n: ("lenet5", n, None)),
            Curve("threads", NETS["lenet5"].title, _threads(cores), lambda _: ("lenet5", 64, None), threads=True),
        ]
    batches = {
        "lenet5": (64, 128, 256),
        "vgg16_bn_cifar": (8, 16, 32),
        "resnet18": (2, 4, 8),
        "resnet20": (32, 64, 128),
    }
    pixels = {("resnet20", 16): (16, 32, 64), ("resnet18", 2): (112, 160, 224)}
    found = [_batches(name, sizes) for name, sizes in batches.items()]
    found += [_pixels(name, N, sizes) for (name, N), sizes in pixels.items()]
    found.append(Curve("depth", "ResNet (CIFAR), batch 16", DEPTHS, lambda d: (f"resnet{d}", 16, None)))
    return found + [_by_threads(name, sizes[-1], cores) for name, sizes in batches.items()]


def _batches(name: str, sizes: Sequence[int]) -> Curve:
    return Curve("batch", NETS[name].title, sizes, lambda n: (name, n, None))


def _pixels(name: str, N: int, sizes: Sequence[int]) -> Curve:
    return Curve(
        "size", f"{NETS[name].title}, batch {N}", sizes, lambda s: (name, N, s), cost_of=lambda s: float(s * s)
    )


def _by_threads(name: str, N: int, cores: int) -> Curve:
    title = f"{NETS[name].title}, batch {N}"
    return Curve("threads", title, _threads(cores), lambda _: (name, N, None), threads=True)


def _threads(cores: int) -> list[int]:
    """Return 1, 2, 4, … and the number of cores.

    >>> _threads(6), _threads(2), _threads(1)
    ([1, 2, 4, 6], [1, 2], [1])
    """
    return sorted({*(2**i for i in range(cores.bit_length()) if 2**i <= cores), cores})


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every curve whose name contains ``only``."""
    effort = QUICK if quick else FULL
    tables = {kind: _table(kind, effort) for kind in KINDS}
    chosen = [curve for curve in curves(quick, threads) if only.lower() in str(curve).lower()]
    for curve in (progress or Progress.silent()).over(chosen, "scaling"):
        samples = race(contenders(curve), effort)
        set_threads(threads)
        add_rows(tables[curve.kind], curve, samples)
    for table in tables.values():
        if table.rows:
            table.notes.insert(0, verdict(table))
    return [table for table in tables.values() if table.rows]


def _table(kind: str, effort: Effort) -> Table:
    columns = [
        Column("title", "training step"),
        Column("size", KINDS[kind], "count"),
        Column("ours", "tinycnn ms", "ms"),
        Column("growth", "÷ the one before", "ratio"),
        Column("exponent", "exponent", "two"),
        Column("theirs", "PyTorch ms", "ms"),
        Column("torch_growth", "÷ the one before", "ratio"),
        Column("torch_exponent", "exponent", "two"),
    ]
    return Table(f"scaling_{kind}", TITLES[kind], columns, notes=["PyTorch in channels_last.", effort.words()])


def contenders(curve: Curve) -> dict[str, Contender]:
    """Return ours and PyTorch's for every point of a curve."""
    found: dict[str, Contender] = {}
    for size in curve.sizes:
        name, N, image = curve.subject(size)
        for who, one in (("ours", Ours(name, N, image)), ("theirs", Theirs(name, N, size=image))):
            enter = partial(_enter, size, one.step) if curve.threads else _stay
            found[f"{who} {size}"] = Contender({"step": one.step}, enter=enter)
    return found


def _stay() -> None:
    """Leave the number of threads alone."""


def _enter(threads: int, step: Callable[[], None]) -> None:
    """Change the number of threads, and do a step that starts them."""
    set_threads(threads)
    step()


def set_threads(n: int) -> None:
    """Give tinycnn and PyTorch ``n`` threads."""
    tinycnn.set_num_threads(n)
    torch.set_num_threads(n)


def add_rows(table: Table, curve: Curve, samples: dict[str, Samples]) -> None:
    """Add a row for every point; the exponents stand beside the last."""
    times = {who: [samples[f"{who} {size}"]["step"] for size in curve.sizes] for who in ("ours", "theirs")}
    costs = [curve.cost_of(size) for size in curve.sizes]
    for i, size in enumerate(curve.sizes):
        row: dict[str, object] = {"title": curve.title, "size": size}
        for who, growth, fitted in (("ours", "growth", "exponent"), ("theirs", "torch_growth", "torch_exponent")):
            row[who] = Spread.of(times[who][i])
            if i:
                row[growth] = ratio(times[who][i], times[who][i - 1])
            if i and i == len(curve.sizes) - 1:
                row[fitted] = exponent(costs, [Spread.of(t).median for t in times[who]])
        table.add(**row)


def verdict(table: Table) -> str:
    """Return the worst case among the rows: the growth from a batch to twice that, the gain from one thread to two."""
    growths = {f"{row['title']}, {row['size']}": row["growth"]["median"] for row in table.rows if "growth" in row}
    if not growths:
        return "one point only."
    if table.name == "scaling_threads":
        growths = {key: value for key, value in growths.items() if key.endswith(", 2")}
    where = max(growths, key=lambda key: growths[key])
    if table.name == "scaling_threads":
        return f"two threads are at least {1 / growths[where]:.2f} times as fast as one ({where.rpartition(',')[0]})."
    return f"largest growth from one point to the next: {growths[where]:.2f} ({where})."
