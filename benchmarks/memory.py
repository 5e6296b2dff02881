"""``memory``: the peak memory of a training step, here and in PyTorch, each in a fresh process."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from .networks import NETS, STEPS
from .progress import Progress
from .report import Column, Table
from .steps import QUICK_STEPS
from .torch_training import FORMATS

REPEATS = 3
COLUMNS = [
    Column("title", "training step"),
    Column("batch", "batch", "count"),
    Column("ours_extra", "tinycnn, step MiB", "MiB"),
    Column("contiguous_extra", "PyTorch contiguous", "MiB"),
    Column("channels_last_extra", "channels_last", "MiB"),
    Column("ratio", "ratio", "two"),
    Column("ours_whole", "tinycnn, whole MiB", "MiB"),
    Column("contiguous_whole", "PyTorch contiguous", "MiB"),
    Column("channels_last_whole", "channels_last", "MiB"),
    Column("whole_ratio", "ratio", "two"),
]
NOTES = [
    "whole: the largest resident set of the process; step: that less what was there after the imports, the batch"
    " and a step of LeNet-5 on one image.",
    f"three steps in a fresh process, median of {REPEATS} processes; PyTorch's default (single-tensor) update.",
    "ratio: PyTorch's smaller ÷ ours; above 1, tinycnn needs less.",
]


def run(threads: int, quick: bool, only: str = "", progress: Progress | None = None) -> list[Table]:
    """Measure every network of `STEPS` whose name contains ``only``."""
    table = Table("memory", "Peak memory of a training step", COLUMNS, notes=list(NOTES))
    chosen = [case for case in (QUICK_STEPS[:1] if quick else STEPS) if only.lower() in case[0]]
    for name, N in (progress or Progress.silent()).over(chosen, "memory"):
        table.add(net=name, title=NETS[name].title, batch=N, **measure(name, N, threads, 1 if quick else REPEATS))
    return [table]


def measure(name: str, N: int, threads: int, repeats: int) -> dict[str, float]:
    """Return the cells of a row."""
    cells: dict[str, float] = {}
    for side in ("tinycnn", *FORMATS):
        probes = [_probe(side, name, N, threads) for _ in range(repeats)]
        key = "ours" if side == "tinycnn" else side
        cells[f"{key}_whole"] = statistics.median(p["peak"] for p in probes)
        cells[f"{key}_extra"] = statistics.median(p["peak"] - p["before"] for p in probes)
    for what, ratio in (("extra", "ratio"), ("whole", "whole_ratio")):
        cells[ratio] = min(cells[f"{memory_format}_{what}"] for memory_format in FORMATS) / cells[f"ours_{what}"]
    return cells


def _probe(side: str, name: str, N: int, threads: int) -> dict[str, int]:
    command = [sys.executable, "-m", "benchmarks.memory_probe", side, name, str(N), str(threads)]
    found = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"the process that measures {side} failed:\n{found.stderr}")
    return dict(json.loads(found.stdout))
