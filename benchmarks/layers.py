"""``layers``: single layers, forward and backward, of every shape of the usual networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from .agree import check_close, check_same
from .header import gemm_peak
from .profiling import algorithm_of
from .progress import Progress
from .report import Column, Table
from .shapes import Case, cases
from .timing import Contender, Effort, Samples, Spread, fastest, race, ratio
from .torch_training import FORMATS

FULL, QUICK = Effort(1.0, 5, 15, 2), Effort(0.1, 3, 3, 1)
PASSES = ("forward", "backward")
COLUMNS = [
    Column("net", "from"),
    Column("layer", "layer"),
    Column("input", "input"),
    Column("algorithm", "algorithm"),
    Column("forward", "forward ms", "ms"),
    Column("forward_gflops", "GFLOP/s", "one"),
    Column("forward_peak", "of peak", "percent"),
    Column("forward_ratio", "ratio", "ratio"),
    Column("backward", "backward ms", "ms"),
    Column("backward_gflops", "GFLOP/s", "one"),
    Column("backward_peak", "of peak", "percent"),
    Column("backward_ratio", "ratio", "ratio"),
    Column("error", "error", "error"),
    Column("torch_error", "PyTorch's", "error"),
]
NOTES = [
    "backward: the gradients of input, weight and bias; not that of the input where it is an image.",
    "GFLOP/s: two operations per multiply-add of the textbook sum, whatever the algorithm; Winograd can pass the peak.",
    "error: largest relative error of an output or gradient in float32, against float64; PyTorch's in its worse case.",
]


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every case of `shapes.cases` whose name contains ``only``."""
    effort = QUICK if quick else FULL
    peak = gemm_peak(threads, *((512, 0.2) if quick else ()))
    notes = [
        f"of peak: of {peak / 1e9:.0f} GFLOP/s, float32 matrix products here in {threads} thread(s), measured.",
        *NOTES,
        effort.words(),
    ]
    table = Table("layers", "Layers", COLUMNS, notes=notes)
    chosen = [case for case in cases(quick) if only.lower() in str(case).lower()]
    for case in (progress or Progress.silent()).over(chosen, "layers"):
        table.add(**measure(case, peak, effort))
    return [table]


def measure(case: Case, peak: float, effort: Effort) -> dict[str, Any]:
    """Check one case, time it, and return its row."""
    rng = np.random.default_rng(0)
    x = _channels_last(rng.standard_normal(case.shape, np.float32))
    ours = Ours(case, x)
    dy = _channels_last(rng.standard_normal(ours.layer.output_shape(case.shape), np.float32))
    ours.dy = dy
    state = ours.layer.state_dict()
    theirs = {name: Theirs(case, x, dy, state, name) for name in FORMATS if x.ndim == 4 or name == "contiguous"}
    mine, yours = check(case, x, dy, ours, theirs)
    everybody: dict[str, Ours | Theirs] = {"ours": ours, **theirs}
    contenders = {
        name: Contender({"forward": one.forward, "backward": one.backward}, prepare=one.prepare)
        for name, one in everybody.items()
    }
    row: dict[str, Any] = {"net": case.net, "layer": case.layer, "input": "×".join(map(str, case.shape))}
    row |= {"algorithm": algorithm_of(ours.layer, case.shape), "error": mine, "torch_error": yours}
    return row | judge(race(contenders, effort), ours.layer.macs(case.shape), case.is_first, peak)


def judge(samples: dict[str, Samples], macs: int, is_first: bool, peak: float) -> dict[str, Any]:
    """Return the cells of both passes: times, FLOP/s and ratios."""
    cells: dict[str, Any] = {}
    for phase, products in zip(PASSES, (1, 1 if is_first else 2), strict=True):
        best = fastest(samples, phase, [name for name in samples if name != "ours"])
        mine, yours = samples["ours"][phase], samples[best][phase]
        cells |= {phase: Spread.of(mine), f"{phase}_torch": Spread.of(yours).to_dict(), f"{phase}_best": best}
        cells[f"{phase}_ratio"] = ratio(yours, mine)
        if macs:
            speed = 2 * macs * products / cells[phase].median
            cells |= {f"{phase}_gflops": speed / 1e9, f"{phase}_peak": speed / peak}
    return cells


class Ours:
    """A tinycnn layer on one input."""

    def __init__(
        self, case: Case, x: np.ndarray, state: dict[str, np.ndarray] | None = None, dtype: str = "float32"
    ) -> None:
        self.layer = case.ours().astype(dtype)
        if state:
            self.layer.load_state_dict(state)
        self.layer.require_dx(not case.is_first)
        self.x = x.astype(dtype)
        self.dy = self.x

    def prepare(self) -> None:
        """Clear the gradients."""
        self.layer.zero_grad()

    def forward(self) -> None:
        """Do the forward."""
        self.y = self.layer.forward(self.x)

    def backward(self) -> None:
        """Do the backward."""
        self.dx = self.layer.backward(self.dy)

    def results(self) -> dict[str, np.ndarray]:
        """Return output and gradients by name."""
        found = {name: p.grad for name, p in self.layer.named_parameters()} | {"y": self.y}
        return found if self.dx is None else found | {"dx": self.dx}


class Theirs:
    """A PyTorch layer on one input, in one memory format."""

    def __init__(
        self, case: Case, x: np.ndarray, dy: np.ndarray, state: dict[str, np.ndarray], name: str, dtype: str = "float32"
    ) -> None:
        how: Any = {"dtype": getattr(torch, dtype), "memory_format": FORMATS[name]}
        self.layer: nn.Module = case.theirs()
        self.layer.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        self.layer.to(**how)
        self.x, self.dy = (torch.from_numpy(array).to(**how) for array in (x, dy))
        self.x.requires_grad = not case.is_first

    def prepare(self) -> None:
        """Clear the gradients."""
        self.x.grad = None
        self.layer.zero_grad()

    def forward(self) -> None:
        """Do the forward."""
        self.y = self.layer(self.x)

    def backward(self) -> None:
        """Do the backward."""
        self.y.backward(self.dy)

    def results(self) -> dict[str, np.ndarray]:
        """Return output and gradients by name."""
        found = {name: p.grad for name, p in self.layer.named_parameters()} | {"y": self.y.detach()}
        found |= {} if self.x.grad is None else {"dx": self.x.grad}
        return {name: value.numpy() for name, value in found.items() if value is not None}


def check(case: Case, x: np.ndarray, dy: np.ndarray, ours: Ours, theirs: dict[str, Theirs]) -> tuple[float, float]:
    """Make sure that the layer does the same here and in PyTorch; return the largest errors, ours and theirs."""
    state = ours.layer.state_dict()
    exact, same = Theirs(case, x, dy, state, "contiguous", "float64"), Ours(case, x, state, "float64")
    same.dy = dy.astype(np.float64)
    everybody: list[Ours | Theirs] = [ours, exact, same, *theirs.values()]
    for one in everybody:
        one.prepare()
        one.forward()
        one.backward()
    check_same(same.results(), exact.results(), str(case))
    return check_close(ours.results(), [one.results() for one in theirs.values()], exact.results(), str(case))


def _channels_last(x: np.ndarray) -> np.ndarray:
    """Return x on channels-last memory."""
    if x.ndim != 4:
        return x
    # (N, C, H, W) -> (N, H, W, C), contiguous, and back as a view
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
