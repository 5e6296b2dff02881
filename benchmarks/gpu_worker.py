"""One process that measures cases of one part, and says so line by line: ``python -m benchmarks.gpu_worker``.

It reads ``{"part": name, "cases": [names], "into": path}`` from standard input and appends to that file, one line of
JSON each: ``{"start": case}``, then ``{"case": case, "row": …}`` or ``{"case": case, "error": …, "traceback": …}``.
After an error that leaves the card unusable for this process (an illegal address, say) it stops; the parent starts
another for the rest.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True)
class Part:
    """One kind of measurement.

    Attributes:
        title: for people.
        module: of this package; `cases` and `measure` in it.
        seconds: at most, in all.
        stall: seconds after which a case hangs.
        workers: how many processes share its cases.
        cases, measure: names of functions.
        needs_gpu: whether a worker needs the card itself.
    """

    title: str
    module: str
    seconds: float
    stall: float = 90
    workers: int = 1
    cases: str = "cases"
    measure: str = "measure"
    needs_gpu: bool = True

    def function(self, name: str) -> Any:
        """Return a function of the part's module."""
        return getattr(importlib.import_module(f"{__package__}.{self.module}"), name)


PARTS = {
    "ceilings": Part("What the card can do", "gpu_ceilings", 30),
    "golden": Part("Runs against PyTorch in float64", "gpu_agree", 60, cases="golden_cases", measure="measure_golden"),
    "graph": Part("Replayed steps against eager ones", "gpu_agree", 80, cases="graph_cases", measure="measure_graph"),
    "steps": Part("Training steps", "gpu_steps", 150, stall=120),
    "bandwidth": Part("Batch normalisation and optimizers", "gpu_bandwidth", 40),
    "memory": Part("Memory of a ResNet-50 step", "gpu_memory", 50),
    "epoch": Part("One epoch of CIFAR-10, synthetic pixels", "gpu_epoch", 50),
    "tests": Part("Tests on the card", "gpu_tests", 200, stall=180, workers=8, needs_gpu=False),
    "layers": Part("Convolutions, pass by pass", "gpu_layers", 170),
    "compiled": Part(
        "Steps that PyTorch compiled",
        "gpu_steps",
        150,
        stall=150,
        cases="compiled_cases",
        measure="measure_compiled",
    ),
}
"""In the order in which they are measured."""
UNUSABLE = 3
"""Exit code of a worker whose card is of no more use to it."""


def serve(rig: Any, part: Part, cases: Iterable[str], into: TextIO) -> int:
    """Measure cases, and write a line when each begins and ends; returns the exit code."""
    measure = part.function(part.measure)

    def say(**line: Any) -> None:
        into.write(json.dumps(line, default=float) + "\n")
        into.flush()

    for case in cases:
        say(start=case)
        begin = time.perf_counter()
        try:
            row = measure(rig, case)
        except Exception as error:
            words = f"{type(error).__name__}: {error}".strip().splitlines()[0][:400]
            say(case=case, error=words, traceback=traceback.format_exc()[-8000:])
            traceback.clear_frames(error.__traceback__)
        else:
            say(case=case, row=row | {"took": round(time.perf_counter() - begin, 2)})
        if not _usable(rig):
            return UNUSABLE
    return 0


def _usable(rig: Any) -> bool:
    if rig is None:
        return True
    try:
        rig.synchronize()
        rig.free()
    except Exception:
        return False
    return True


def main() -> int:
    """Do what standard input says."""
    order = json.load(sys.stdin)
    part = PARTS[order["part"]]
    rig = None
    if part.needs_gpu:
        from .gpu_rig import Rig

        rig = Rig()
    with Path(order["into"]).open("a", encoding="utf-8") as into:
        return serve(rig, part, order["cases"], into)


if __name__ == "__main__":
    sys.exit(main())
