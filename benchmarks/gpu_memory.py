"""``memory``: the most memory that training ResNet-50 takes on a GPU, here and in PyTorch."""

from __future__ import annotations

from typing import Any

import torch

from tinycnn import backend

from .gpu_ours import OurStep
from .gpu_rig import Rig, matched
from .gpu_torch import TorchStep
from .networks import NETS

CASES = {"resnet50 tf32": ("resnet50", 64, "tf32"), "resnet50 bf16": ("resnet50", 64, "bf16")}
TINY_CASES = {"lenet5 float32": ("lenet5", 2, "float32")}
STEPS = 3


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    return list(TINY_CASES if rig.tiny else CASES)


class Meter:
    """Adds up what CuPy's pools hand out and take back: the most at any time is ``peak``."""

    def __init__(self, rig: Rig) -> None:
        self.now = self.peak = 0
        meter = self

        class Hook(rig.cupy.cuda.MemoryHook):  # type: ignore[misc,name-defined]
            name = "tinycnn's meter"

            def malloc_postprocess(self, **what: Any) -> None:
                meter.count(what["mem_size"])

            def free_postprocess(self, **what: Any) -> None:
                meter.count(-what["mem_size"])

        self.hook = Hook()

    def count(self, nbytes: int) -> None:
        """Note that so many bytes were handed out."""
        self.now += nbytes
        self.peak = max(self.peak, self.now)


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Return the most memory that a few eager steps take, weights and all, and what a captured step keeps."""
    name, N, precision = (TINY_CASES if rig.tiny else CASES)[case]
    row: dict[str, Any] = {"net": name, "title": NETS[name].title, "batch": N, "precision": precision}
    with matched(precision):
        row |= _ours(rig, name, N, precision)
        row |= _captured(rig, name, N, precision)
        row |= _theirs(rig, name, N, precision)
    return row | {"ratio": row["theirs"] / row["ours"] if row["ours"] else None}


def _ours(rig: Rig, name: str, N: int, precision: str) -> dict[str, Any]:
    rig.free()
    meter = Meter(rig)
    with meter.hook:
        step = OurStep(rig, name, N, precision, graph=False)
        for _ in range(STEPS):
            step.step()
        backend.synchronize()
    held = rig.cupy.get_default_memory_pool().total_bytes()
    return {"ours": meter.peak, "ours_held": int(held)}


def _captured(rig: Rig, name: str, N: int, precision: str) -> dict[str, Any]:
    rig.free()
    step = OurStep(rig, name, N, precision)
    why = step.capture()
    return {"captured": None if why else int(step.captured.nbytes) + _used(rig)}


def _used(rig: Rig) -> int:
    return int(rig.cupy.get_default_memory_pool().used_bytes())


def _theirs(rig: Rig, name: str, N: int, precision: str) -> dict[str, Any]:
    rig.free()
    state = NETS[name].build(0).state_dict()
    if rig.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = TorchStep(rig, name, N, state, precision)
    for _ in range(STEPS):
        step.step()
    rig.synchronize()
    if rig.device != "cuda":
        return {"theirs": 1, "theirs_held": 1}
    return {"theirs": torch.cuda.max_memory_allocated(), "theirs_held": torch.cuda.max_memory_reserved()}
