"""``steps``: whole training steps on a GPU, here and in PyTorch, at the same precision.

Ours is captured as a CUDA graph (and timed without one too).  PyTorch runs eagerly in both memory formats with its
foreach and its fused update, of which the best counts for the ratio; then captured as a CUDA graph, in the better
memory format; and, apart from these, compiled.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .agree import FLIPS, FLOOR, check_close, check_same
from .gpu_ours import OurStep
from .gpu_rig import Rig, Task, matched
from .gpu_timing import STEPS as EFFORT
from .gpu_timing import TINY, race
from .gpu_torch import TorchStep
from .networks import NETS
from .timing import Spread, fastest, ratio
from .torch_training import FORMATS

CASES = {
    "resnet20 tf32": ("resnet20", 128, "tf32"),
    "resnet20 float32": ("resnet20", 128, "float32"),
    "lenet5 float32": ("lenet5", 128, "float32"),
    "lenet5 tf32": ("lenet5", 128, "tf32"),
    "vgg16_bn_cifar tf32": ("vgg16_bn_cifar", 128, "tf32"),
    "resnet50 tf32": ("resnet50", 64, "tf32"),
    "resnet50 bf16": ("resnet50", 64, "bf16"),
    "vgg16_bn_cifar float32": ("vgg16_bn_cifar", 128, "float32"),
    "resnet20 bf16": ("resnet20", 128, "bf16"),
}
"""Network, batch size, precision; the most wanted first."""
COMPILED = ("resnet20 tf32", "lenet5 float32", "vgg16_bn_cifar tf32", "resnet50 bf16")
TINY_CASES = {"lenet5 float32": ("lenet5", 2, "float32")}
CHECKED = {"resnet50": (4, 64)}
"""Batch and image size that a network is checked with, where its own would take long."""
ROUGH = {"float32": (FLOOR, FLIPS), "tf32": (2e-2, 0.3), "bf16": (0.1, 0.6)}
"""Errors of outputs and of gradients that are always allowed, see `agree`: those of 11 and of 8 bits."""


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    return list(TINY_CASES if rig.tiny else CASES)


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Check a step, time it, and return its row."""
    name, N, precision = (TINY_CASES if rig.tiny else CASES)[case]
    with matched(precision):
        row: dict[str, Any] = {"net": name, "title": NETS[name].title, "batch": N, "precision": precision}
        row |= check(rig, name, N, precision)
        rig.free()
        tasks, trouble = contenders(rig, name, N, precision)
        samples = race(rig, tasks, TINY if rig.tiny else EFFORT)
        if "torch graph" not in trouble:
            best = _best_eager(samples)
            samples |= _with_graph(rig, name, N, precision, best, samples, tasks["ours"], trouble)
        return row | judge(samples) | {"trouble": trouble}


def check(rig: Rig, name: str, N: int, precision: str) -> dict[str, float]:
    """Make sure that a step does the same here and in PyTorch; return the gradients' largest errors."""
    N, size = CHECKED.get(name, (min(N, 16), None))
    ours = OurStep(rig, name, N, precision, graph=False, size=size)
    state = ours.model.state_dict()
    same = OurStep(rig, name, N, graph=False, dtype="float64", size=size)
    exact = TorchStep(rig, name, N, state, update="single", dtype=torch.float64, size=size)
    theirs = [TorchStep(rig, name, N, state, precision, f, size=size) for f in FORMATS]
    torch.backends.cudnn.benchmark = False  # sizes that are used once
    for one in (ours, same, exact, *theirs):
        one.step()
    torch.backends.cudnn.benchmark = True
    found = {}
    right = exact.results()
    for kind in right:
        what = f"{NETS[name].title} in {precision}, {kind}"
        check_same(same.results()[kind], right[kind], what)
        floor = ROUGH[precision][kind != "outputs"]
        mine, yours = check_close(
            ours.results()[kind], [one.results()[kind] for one in theirs], right[kind], what, floor
        )
        if kind == "gradients":
            found = {"error": mine, "torch_error": yours}
    return found


def contenders(rig: Rig, name: str, N: int, precision: str) -> tuple[dict[str, Task], dict[str, str]]:
    """Return ours, captured and not, and the eager ones of PyTorch's; and what is missing, why."""
    ours, eager = OurStep(rig, name, N, precision), OurStep(rig, name, N, precision, graph=False)
    state, trouble = ours.model.state_dict(), {}
    why = ours.capture()
    if why is not None:
        trouble["graph"] = why
    tasks: dict[str, Task] = {"ours": ours.step, "ours eager": eager.step}
    for memory_format, update in itertools.product(FORMATS, ("foreach", "fused")):
        tasks[f"{memory_format}, {update}"] = TorchStep(rig, name, N, state, precision, memory_format, update).step
    return tasks, trouble


def _best_eager(samples: dict[str, Any]) -> str:
    return fastest(samples, "step", [name for name in samples if "," in name])


def _with_graph(
    rig: Rig,
    name: str,
    N: int,
    precision: str,
    best: str,
    samples: dict[str, Any],
    ours: Task,
    trouble: dict[str, str],
) -> dict[str, Any]:
    """Return the times of PyTorch's step as a graph, taken in turns with ours."""
    memory_format, update = best.split(", ")
    state = NETS[name].build(0).state_dict()
    step = TorchStep(rig, name, N, state, precision, memory_format, update)
    found = attempt(step.as_graph, trouble, "torch graph")
    if found is None:
        return {}
    again = race(rig, {"ours": ours, "torch graph": found}, TINY if rig.tiny else EFFORT)
    return {"torch graph": again["torch graph"], "ours beside graph": again["ours"]}


def attempt(make: Callable[[], Task], trouble: dict[str, str], name: str) -> Task | None:
    """Return what ``make`` makes; if it fails, note why."""
    try:
        return make()
    except Exception as error:
        trouble[name] = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return None


def judge(samples: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of a row: times and ratios."""
    best = _best_eager(samples)
    ours, theirs = samples["ours"]["step"], samples[best]["step"]
    cells: dict[str, Any] = {"ours": Spread.of(ours).to_dict(), "eager": Spread.of(samples["ours eager"]["step"])}
    cells |= {"eager": cells["eager"].to_dict(), "theirs": Spread.of(theirs).to_dict(), "best": best}
    cells |= {
        "ratio": ratio(theirs, ours).to_dict(),
        "all": {n: Spread.of(s["step"]).to_dict() for n, s in samples.items()},
    }
    if "torch graph" in samples:
        graph, beside = samples["torch graph"]["step"], samples["ours beside graph"]["step"]
        cells |= {"torch_graph": Spread.of(graph).to_dict(), "graph_ratio": ratio(graph, beside).to_dict()}
    return cells


# ---- compiled by PyTorch ---------------------------------------------------------------------------------------


def compiled_cases(rig: Rig) -> list[str]:
    """Return the names of the steps that PyTorch is to compile: each may take a minute."""
    return [] if rig.tiny else list(COMPILED)


def measure_compiled(rig: Rig, case: str) -> dict[str, Any]:
    """Time a step of PyTorch's with its network compiled, in turns with ours."""
    name, N, precision = CASES[case]
    with matched(precision):
        ours = OurStep(rig, name, N, precision)
        ours.capture()
        theirs = TorchStep(rig, name, N, ours.model.state_dict(), precision, "channels_last", "fused")
        samples = race(rig, {"ours": ours.step, "compiled": theirs.compiled()}, EFFORT)
    mine, yours = samples["ours"]["step"], samples["compiled"]["step"]
    loss = float(np.asarray(theirs.results()["outputs"]["loss"]))
    return {
        "net": name,
        "title": NETS[name].title,
        "batch": N,
        "precision": precision,
        "ours": Spread.of(mine).to_dict(),
        "compiled": Spread.of(yours).to_dict(),
        "ratio": ratio(yours, mine).to_dict(),
        "loss": loss,
    }
