"""``ceilings``: how fast the card is at best, by PyTorch: a copy, and large products in each precision."""

from __future__ import annotations

from typing import Any

import torch

from .gpu_bandwidth import copying
from .gpu_rig import Rig, Task, matched
from .gpu_timing import LAYERS as EFFORT
from .gpu_timing import TINY, race
from .timing import Spread

SIZE = 8192
CASES = ("copy", "float32", "tf32", "bf16", "graph of 100 empty kernels")


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    return list(CASES)


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Return the speed of one kind of work."""
    effort = TINY if rig.tiny else EFFORT
    if case == "copy":
        task, nbytes = copying(rig, 1 << 10 if rig.tiny else 1 << 29)
        seconds = Spread.of(race(rig, {"copy": task}, effort)["copy"]["step"])
        return {"name": "copy, bytes read and written", "speed": nbytes / seconds.median / 1e12, "unit": "TB/s"}
    if case.startswith("graph"):
        seconds = Spread.of(race(rig, {"graph": _launches(rig)}, effort)["graph"]["step"])
        return {"name": "launches in a graph", "speed": seconds.median / 100 * 1e6, "unit": "µs each"}
    n = 64 if rig.tiny else SIZE
    a, b = (rig.randn(n, n, seed=i).to(torch.bfloat16 if case == "bf16" else torch.float32) for i in range(2))
    out = torch.empty_like(a)
    with matched(case):
        seconds = Spread.of(race(rig, {"mm": lambda: torch.mm(a, b, out=out)}, effort)["mm"]["step"])
    return {"name": f"product, {case}", "speed": 2 * n**3 / seconds.median / 1e12, "unit": "TFLOP/s"}


def _launches(rig: Rig) -> Task:
    x = torch.zeros(1, device=rig.device)

    def hundred() -> None:
        for _ in range(100):
            x.add_(1)

    return rig.captured_theirs(hundred)
