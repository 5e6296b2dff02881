"""Taking turns on a GPU: A B A B …, each turn timed by the card's own clock."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from .gpu_rig import Rig, Task
from .timing import Effort, Samples

TURN = 0.008
"""Seconds of a turn that are timed, at least: short calls are repeated, and their mean is one sample."""
MOST_CALLS = 500
STEPS = Effort(2.5, 7, 25, 3, 0.004)
LAYERS = Effort(0.3, 5, 9, 1, 0.002)
TINY = Effort(0, 1, 1, 1, 0)


def race(rig: Rig, tasks: Mapping[str, Task], effort: Effort) -> dict[str, Samples]:
    """Time tasks in turns.

    A turn begins with calls that are not timed, ``effort.settle`` seconds of them and at least one: caches hold what
    the task left there, and the card's clock is up.

    Returns:
        Seconds per call: for each name ``{"step": [one number per round]}``, all equally many.
    """
    once: dict[str, float] = {}
    for name, task in tasks.items():
        for _ in range(effort.warmup):
            task()
        rig.synchronize()
        once[name] = max(statistics.median(rig.seconds(task, 1) for _ in range(3)), 1e-7)
    calls = {name: min(MOST_CALLS, max(1, math.ceil(TURN / seconds))) for name, seconds in once.items()}
    settle = {name: min(MOST_CALLS, max(1, math.ceil(effort.settle / seconds))) for name, seconds in once.items()}
    if rig.tiny:
        calls = settle = dict.fromkeys(tasks, 1)
    samples: dict[str, Samples] = {name: {"step": []} for name in tasks}
    for _ in range(effort.rounds(sum((calls[name] + settle[name]) * once[name] for name in tasks))):
        for name, task in tasks.items():
            for _ in range(settle[name]):
                task()
            samples[name]["step"].append(rig.seconds(task, calls[name]))
    return samples
