"""``steps``: whole training steps, here and in PyTorch.

A step is zero_grad + forward + cross-entropy + backward + update by SGD with momentum and weight decay.  PyTorch runs
in both memory formats with its single-tensor and its foreach update; the best of the four counts.  Its fused update
is measured too, and has a column of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from . import profiling
from .agree import FLIPS, FLOOR, check_close, check_same
from .networks import NETS, STEPS
from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Samples, Spread, fastest, race, ratio
from .torch_training import FORMATS, Theirs
from .training import Ours

FULL, QUICK = Effort(20, 7, 40, 2), Effort(0.5, 3, 5, 1)
QUICK_STEPS = (("lenet5", 16), ("vgg16_bn_cifar", 4), ("resnet18", 2), ("resnet20", 8))
COLUMNS = [
    Column("title", "training step"),
    Column("batch", "batch", "count"),
    Column("ours", "tinycnn ms", "ms"),
    Column("theirs", "PyTorch ms", "ms"),
    Column("best", "PyTorch at its best"),
    Column("ratio", "ratio", "ratio"),
    Column("fused", "against fused", "ratio"),
    Column("error", "error", "error"),
    Column("torch_error", "PyTorch's", "error"),
]
NOTES = [
    "against fused: the ratio with PyTorch's fused update (in the better memory format).",
    "error: largest relative error of a gradient in float32, against float64; PyTorch's in its worse memory format.",
]


def run(
    threads: int, quick: bool, only: str = "", profile: bool = False, progress: Progress | None = None
) -> list[Table]:
    """Measure every step of `STEPS`.

    Args:
        threads: in tinycnn and in PyTorch; already set, only noted.
        quick: small batches and few repeats.
        only: leave out networks whose name does not contain this.
        profile: add two tables of where ours spends its time, for each network.
        progress: told what is being done.
    """
    table = Table("steps", "Training steps", COLUMNS, notes=[*NOTES, (QUICK if quick else FULL).words()])
    profiles: list[Table] = []
    cases = [case for case in (QUICK_STEPS if quick else STEPS) if only.lower() in case[0]]
    for name, N in (progress or Progress.silent()).over(cases, "steps"):
        title = NETS[name].title
        mine, yours = check(name, N)
        samples = race(dict(contenders(name, N)), QUICK if quick else FULL)
        table.add(net=name, title=title, batch=N, threads=threads, error=mine, torch_error=yours, **judge(samples))
        if profile:
            profiles += profiling.tables(name, N)
    return [table, *profiles]


def check(name: str, N: int) -> tuple[float, float]:
    """Make sure that a step does the same here and in PyTorch.

    Returns:
        The gradients' largest errors, ours and theirs.
    """
    ours = Ours(name, N)
    state = ours.model.state_dict()
    exact = Theirs(name, N, state, dtype=torch.float64)
    same = Ours(name, N, dtype="float64")
    theirs = [Theirs(name, N, state, memory_format) for memory_format in FORMATS]
    everybody: list[Ours | Theirs] = [ours, same, exact, *theirs]
    for one in everybody:
        one.step()
    worst = (0.0, 0.0)
    right = exact.results()
    for kind in right:
        what = f"{NETS[name].title}, batch {N}, {kind}"
        check_same(same.results()[kind], right[kind], what)
        floor = FLOOR if kind == "outputs" else FLIPS
        found = check_close(ours.results()[kind], [one.results()[kind] for one in theirs], right[kind], what, floor)
        worst = found if kind == "gradients" else worst
    return worst


def contenders(name: str, N: int) -> Iterator[tuple[str, Contender]]:
    """Yield ours and every way of PyTorch's, all starting from the same weights."""
    ours = Ours(name, N)
    state = ours.model.state_dict()
    yield "ours", Contender({"step": ours.step})
    for memory_format, update in itertools.product(FORMATS, ("single", "foreach", "fused")):
        theirs = Theirs(name, N, state, memory_format, update)
        yield f"{memory_format}, {update}", Contender({"step": theirs.step})


def judge(samples: dict[str, Samples]) -> dict[str, Spread | str]:
    """Return the cells of a row: times and ratios."""
    fused = [name for name in samples if name.endswith("fused")]
    best = fastest(samples, "step", [name for name in samples if name != "ours" and name not in fused])
    ours, theirs = samples["ours"]["step"], samples[best]["step"]
    against_fused = ratio(samples[fastest(samples, "step", fused)]["step"], ours)
    return {
        "ours": Spread.of(ours),
        "theirs": Spread.of(theirs),
        "best": best,
        "ratio": ratio(theirs, ours),
        "fused": against_fused,
    }
