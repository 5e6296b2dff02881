"""``frozen``: training steps of networks whose lower layers are frozen, here and in PyTorch.

What is frozen has ``requires_grad=False`` and is in evaluation mode on both sides.  No gradient goes back through it,
and nothing is kept of its forward; what is left of its cost is the forward itself.  A step is that of ``steps``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from .agree import FLIPS, FLOOR, Arrays, check_close, check_same
from .networks import NETS
from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Spread, fastest, race, ratio
from .torch_training import FORMATS, Theirs
from .training import Ours

FULL, QUICK = Effort(15, 7, 40, 2), Effort(0.5, 3, 5, 1)
STEPS, QUICK_STEPS = (("resnet18", 8), ("resnet20", 128)), (("resnet20", 8),)
STAGES = {"resnet18": ("layer1", "layer2", "layer3", "layer4"), "resnet20": ("layer1", "layer2", "layer3")}
COLUMNS = [
    Column("title", "training step"),
    Column("batch", "batch", "count"),
    Column("frozen", "frozen"),
    Column("trained", "trained parameters", "count"),
    Column("ours", "tinycnn ms", "ms"),
    Column("theirs", "PyTorch ms", "ms"),
    Column("best", "PyTorch at its best"),
    Column("ratio", "ratio", "ratio"),
    Column("saved", "saved here", "ratio"),
    Column("their_saved", "saved there", "ratio"),
]
NOTES = ["saved: how many times as long the step takes with nothing frozen."]


def parts(name: str) -> dict[str, tuple[str, ...]]:
    """Return what is frozen, in words and as names of layers: nothing, half of the stages, all but the classifier."""
    stages = STAGES[name]
    half = stages[: len(stages) // 2]
    return {
        "nothing": (),
        f"up to {half[-1]}": ("conv1", "bn1", *half),
        "all but the classifier": ("conv1", "bn1", *stages),
    }


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure the steps with each of `parts` frozen; the arguments are those of `steps.run`."""
    effort = QUICK if quick else FULL
    table = Table("frozen", "Training steps of partly frozen networks", COLUMNS, notes=[*NOTES, effort.words()])
    steps = [case for case in (QUICK_STEPS if quick else STEPS) if only.lower() in case[0]]
    cases = [(name, N, words) for name, N in steps for words in parts(name)]
    whole: dict[str, tuple[list[float], list[float]]] = {}
    for name, N, words in (progress or Progress.silent()).over(cases, "frozen"):
        names = parts(name)[words]
        check(name, N, names)
        samples = race(dict(contenders(name, N, names)), effort)
        best = fastest(samples, "step", [key for key in samples if key != "ours"])
        ours, theirs = samples["ours"]["step"], samples[best]["step"]
        before = whole.setdefault(name, (ours, theirs))
        table.add(
            net=name,
            title=NETS[name].title,
            batch=N,
            threads=threads,
            frozen=words,
            trained=trained(name, names),
            ours=Spread.of(ours),
            theirs=Spread.of(theirs),
            best=best,
            ratio=ratio(theirs, ours),
            saved=_quotient(before[0], ours),
            their_saved=_quotient(before[1], theirs),
        )
    return [table]


def _quotient(before: list[float], now: list[float]) -> Spread:
    """Return the ratio of two series that were not measured in turns."""
    n = min(len(before), len(now))
    return ratio(before[:n], now[:n])


def trained(name: str, names: tuple[str, ...]) -> int:
    """Return the number of parameters that are not frozen."""
    model = NETS[name].build(0)
    if names:
        model.freeze(*names)
    return sum(p.size for p in model.parameters() if p.requires_grad)


def ours(name: str, N: int, names: tuple[str, ...], dtype: str = "float32") -> Ours:
    """Return our step with these layers frozen."""
    step = Ours(name, N, dtype=dtype)
    if names:
        step.model.freeze(*names)
    return step


def theirs(step: Theirs, names: tuple[str, ...]) -> Theirs:
    """Freeze these layers in PyTorch's step."""
    for path in names:
        step.model.get_submodule(path).eval().requires_grad_(False)
    return step


def contenders(name: str, N: int, names: tuple[str, ...]) -> Iterator[tuple[str, Contender]]:
    """Yield ours and the ways of PyTorch's, all starting from the same weights."""
    mine = ours(name, N, names)
    state = mine.model.state_dict()
    yield "ours", Contender({"step": mine.step})
    for memory_format, update in itertools.product(FORMATS, ("single", "foreach")):
        yours = theirs(Theirs(name, N, state, memory_format, update), names)
        yield f"{memory_format}, {update}", Contender({"step": yours.step})


def check(name: str, N: int, names: tuple[str, ...]) -> None:
    """Make sure that a step does the same here and in PyTorch, and that frozen parameters get no gradient."""
    mine, same = ours(name, N, names), ours(name, N, names, "float64")
    state = mine.model.state_dict()
    exact = theirs(Theirs(name, N, state, dtype=torch.float64), names)
    others = [theirs(Theirs(name, N, state, memory_format), names) for memory_format in FORMATS]
    everybody: list[Ours | Theirs] = [mine, same, exact, *others]
    for one in everybody:
        one.step()
    right = exact.results()
    for kind in right:
        what = f"{NETS[name].title}, batch {N}, {names or 'nothing'} frozen, {kind}"
        check_same(_known(same.results()[kind], right[kind]), right[kind], what)
        floor = FLOOR if kind == "outputs" else FLIPS
        found = _known(mine.results()[kind], right[kind])
        check_close(found, [one.results()[kind] for one in others], right[kind], what, floor)


def _known(found: Arrays, right: Arrays) -> Arrays:
    """Return those of the arrays that PyTorch has too; the others, gradients of what is frozen, must be zero."""
    for name in set(found) - set(right):
        assert not np.any(found[name]), f"{name} is frozen, yet it has a gradient"
    return {name: found[name] for name in right}
