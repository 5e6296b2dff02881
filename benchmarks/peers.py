"""``peers``: the same convolution and the same training step in other libraries, as far as they are installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import methodcaller

import numpy as np
from threadpoolctl import threadpool_limits

from .agree import Disagreement, errors
from .header import version
from .libraries import PEERS, Arrays, Library, Task, TinyCNN, lenet_batch
from .progress import Progress
from .report import Column, Table
from .timing import SETTLE_BLAS, Contender, Effort, Spread, race, ratio

FULL, QUICK = Effort(6, 5, 20, 1, SETTLE_BLAS), Effort(0.2, 3, 3, 1, SETTLE_BLAS)
TOLERANCE = 1e-3
"""Largest relative difference of an array, or of what an update changed: an update loses four digits to rounding when
it is taken from parameters a thousand times as large."""
COLUMNS = [
    Column("library", "library"),
    Column("task", "task"),
    Column("ours", "tinycnn ms", "ms"),
    Column("theirs", "theirs ms", "ms"),
    Column("ratio", "ratio", "ratio"),
    Column("difference", "difference", "error"),
]
CONVS = ((32, 16, 32), (8, 64, 28))
"""Batch, channels in and out, height and width."""
QUICK_CONVS = ((2, 16, 16),)

Make = Callable[[Library], Task]


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every library whose name contains ``only``, or name it as absent."""
    effort = QUICK if quick else FULL
    table = Table("peers", "Other libraries", COLUMNS, notes=["ratio: theirs ÷ ours.", effort.words()])
    chosen = [peer for peer in PEERS if only.lower() in peer.name.lower()]
    for peer in (progress or Progress.silent()).over(chosen, "peers"):
        try:
            library = peer()
        except ImportError as error:
            table.notes.append(f"absent: {peer.name} (pip install {peer.package}): {error}.")
            continue
        table.notes += [f"{library.name}: {library.note}."] if library.note else []
        with threadpool_limits(limits=threads, user_api="blas"):
            for task, make in tasks(quick):
                measure(table, library, task, make, effort)
    return [table]


def tasks(quick: bool) -> Iterator[tuple[str, Make]]:
    """Yield what is to be done: words, and how to set it up in a library."""
    rng = np.random.default_rng(0)
    for N, C, H in QUICK_CONVS if quick else CONVS:
        # (N, H, W, C) -> (N, C, H, W)
        x, dy = (rng.standard_normal((N, H, H, C), np.float32).transpose(0, 3, 1, 2) for _ in range(2))
        w = rng.standard_normal((C, C, 3, 3), np.float32)
        yield f"conv 3×3, {C} → {C}, {N}×{C}×{H}×{H}", methodcaller("convolution", x, w, dy)
    N = 4 if quick else 64
    yield f"LeNet-5 step, batch {N}", methodcaller("training", *lenet_batch(N))


def measure(table: Table, library: Library, task: str, make: Make, effort: Effort) -> None:
    """Check one task in one library, time it, and add its row."""
    ours, theirs = make(TinyCNN()), make(library)
    difference = check(f"{library.name}, {task}", ours, theirs)
    samples = race({"ours": Contender({"run": ours.run}), "theirs": Contender({"run": theirs.run})}, effort)
    mine, yours = samples["ours"]["run"], samples["theirs"]["run"]
    table.add(
        library=f"{library.name} {version(library.package)}",
        task=task,
        ours=Spread.of(mine),
        theirs=Spread.of(yours),
        ratio=ratio(yours, mine),
        difference=difference,
    )


def check(what: str, ours: Task, theirs: Task) -> float:
    """Make sure that both compute the same the first time; return the largest difference.

    Raises:
        Disagreement: they do not.
    """
    mine, yours = _changes(ours), _changes(theirs)
    found = errors(yours, mine)
    name = max(found, key=lambda name: found[name])
    if found[name] > TOLERANCE:
        raise Disagreement(f"{what}: {name} differs by {found[name]:.1e}, {TOLERANCE:.0e} allowed")
    return found[name]


def _changes(task: Task) -> Arrays:
    """Return what the task computes when it is run once: of parameters, by how much they change."""
    before = {name: np.array(a, np.float64) for name, a in task.results().items()}
    task.run()
    return {name: np.asarray(a, np.float64) - before.get(name, 0) for name, a in task.results().items()}
