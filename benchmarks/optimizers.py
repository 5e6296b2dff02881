"""``optimizers``: one update of ten million parameters in 60 tensors, by every optimizer that PyTorch has too.

The tensors are those of 20 convolutions with batch normalisation.  PyTorch's single-tensor and foreach implementations
are timed and the better one counts; its fused one, where there is one for CPUs, has a column of its own.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch

import tinycnn

from .agree import check_close, check_same
from .progress import Progress
from .report import Column, Table
from .timing import Contender, Effort, Spread, fastest, race, ratio
from .torch_training import UPDATES

FULL, QUICK = Effort(4, 7, 40, 2), Effort(0.2, 3, 5, 1)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.01}),
    "SGD, momentum": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}),
    "SGD, Nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
    "Adam": ("Adam", {}),
    "Adam, amsgrad": ("Adam", {"amsgrad": True}),
    "AdamW": ("AdamW", {}),
    "Adamax": ("Adamax", {}),
    "NAdam": ("NAdam", {}),
    "RAdam": ("RAdam", {}),
    "Adagrad": ("Adagrad", {}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop, centered, momentum": ("RMSprop", {"centered": True, "momentum": 0.9}),
    "Adadelta": ("Adadelta", {}),
}
"""Name in the table: class, here and in `torch.optim`, and arguments."""
COLUMNS = [
    Column("name", "optimizer"),
    Column("ours", "tinycnn ms", "ms"),
    Column("single", "PyTorch single ms", "ms"),
    Column("foreach", "foreach ms", "ms"),
    Column("fused", "fused ms", "ms"),
    Column("ratio", "ratio", "ratio"),
    Column("error", "error", "error"),
    Column("torch_error", "PyTorch's", "error"),
]
NOTES = [
    "ratio: the better of single-tensor and foreach ÷ ours; fused is PyTorch's C++ loop, shown but not counted.",
    "error: largest relative error of a parameter after 8 updates in float32, against float64.",
]
CHANNELS, LAYERS = 236, 20
SCALES = (1.0, -0.5, 2.0, 0.25, -1.0, 0.5, -0.25, 1.0)
"""The gradients of the updates that are checked, relative to the first: powers of two, so exact in every precision."""

Arrays = dict[str, np.ndarray]


def tensors(seed: int, channels: int = CHANNELS) -> Arrays:
    """Return 60 arrays: the weights of 20 3×3 convolutions and of the batch normalisations after them."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"conv.weight": (channels, channels, 3, 3), "bn.weight": (channels,)}
    shapes["bn.bias"] = (channels,)
    return {
        f"{i}.{name}": rng.standard_normal(shape, np.float32) for i in range(LAYERS) for name, shape in shapes.items()
    }


class Ours:
    """Parameters under one of tinycnn's optimizers."""

    def __init__(self, kind: str, options: dict[str, Any], values: Arrays, dtype: str = "float32") -> None:
        self.parameters = {name: tinycnn.Parameter(a.astype(dtype), name) for name, a in values.items()}
        self.optimizer = getattr(tinycnn.optim, kind)(self.parameters.values(), **options)

    def set_gradients(self, gradients: Arrays, scale: float) -> None:
        """Make every gradient ``scale`` times the given one."""
        for name, p in self.parameters.items():
            p.grad[...] = scale * gradients[name]

    def values(self) -> Arrays:
        """Return the parameters."""
        return {name: p.data for name, p in self.parameters.items()}


class Theirs:
    """The same under one of PyTorch's."""

    def __init__(
        self, kind: str, options: dict[str, Any], values: Arrays, update: str = "single", dtype: str = "float32"
    ) -> None:
        self.parameters = {name: torch.tensor(a.astype(dtype), requires_grad=True) for name, a in values.items()}
        known = inspect.signature(getattr(torch.optim, kind)).parameters
        how = {key: value for key, value in UPDATES[update].items() if key in known}
        self.optimizer = getattr(torch.optim, kind)(self.parameters.values(), **options, **how)

    def set_gradients(self, gradients: Arrays, scale: float) -> None:
        """Make every gradient ``scale`` times the given one."""
        for name, p in self.parameters.items():
            p.grad = torch.from_numpy(gradients[name]).to(p.dtype) * scale

    def values(self) -> Arrays:
        """Return the parameters."""
        return {name: p.detach().numpy() for name, p in self.parameters.items()}


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every optimizer of `CASES` whose name contains ``only``."""
    effort, channels = (QUICK, 24) if quick else (FULL, CHANNELS)
    values, gradients = tensors(0, channels), tensors(1, channels)
    count = sum(a.size for a in values.values())
    title = f"Optimizers: one update of {count / 1e6:.1f} M parameters in {len(values)} tensors"
    table = Table("optimizers", title, COLUMNS, notes=[*NOTES, effort.words()])
    chosen = [name for name in CASES if only.lower() in name.lower()]
    for name in (progress or Progress.silent()).over(chosen, "optimizers"):
        table.add(name=name, **measure(name, values, gradients, effort))
    return [table]


def measure(name: str, values: Arrays, gradients: Arrays, effort: Effort) -> dict[str, Any]:
    """Check one optimizer, time it, and return the cells of its row."""
    kind, options = CASES[name]
    ways = [
        "single",
        "foreach",
        *(["fused"] if "fused" in inspect.signature(getattr(torch.optim, kind)).parameters else []),
    ]
    everybody: dict[str, Ours | Theirs] = {"ours": Ours(kind, options, values)}
    everybody |= {way: Theirs(kind, options, values, way) for way in ways}
    mine, yours = check(name, everybody, values, gradients)
    samples = race({who: Contender({"step": one.optimizer.step}) for who, one in everybody.items()}, effort)
    best = fastest(samples, "step", ["single", "foreach"])
    cells: dict[str, Any] = {who: Spread.of(times["step"]) for who, times in samples.items()}
    cells["ratio"] = ratio(samples[best]["step"], samples["ours"]["step"])
    return cells | {"best": best, "error": mine, "torch_error": yours}


def check(name: str, everybody: dict[str, Ours | Theirs], values: Arrays, gradients: Arrays) -> tuple[float, float]:
    """Make sure that all agree after eight updates (RAdam changes its rule after the fifth)."""
    kind, options = CASES[name]
    exact, same = Theirs(kind, options, values, dtype="float64"), Ours(kind, options, values, "float64")
    for one in (*everybody.values(), exact, same):
        for scale in SCALES:
            one.set_gradients(gradients, scale)
            one.optimizer.step()
    check_same(same.values(), exact.values(), name)
    theirs = [everybody[way].values() for way in everybody if way != "ours"]
    return check_close(everybody["ours"].values(), theirs, exact.values(), name)
