"""Peak memory of one training step, in a process of its own.

``python -m benchmarks.memory_probe SIDE NET BATCH THREADS``, where SIDE is ``tinycnn``, ``contiguous`` or
``channels_last``.  Prints one line of JSON: the resident set in bytes ``before`` the network is made, and the highest
so far, ``peak``, after three steps of it.  ``before`` is taken after the imports, the batch, and a step of LeNet-5 on
one image: by then the libraries have loaded what they load on first use.

The peak is the kernel's VmHWM where there is one, for ``ru_maxrss`` begins at the size of the process that started
this one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

STEPS = 3


def status(field: str) -> int | None:
    """Return a field of /proc/self/status in bytes, or None where there is no such file."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(found[0]) if found else None


def peak() -> int:
    """Return the largest resident set so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return status("VmHWM") or unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def probe(side: str, name: str, N: int, threads: int) -> dict[str, int]:
    """Do the steps and return what they took."""
    subject: Any
    if side == "tinycnn":
        import tinycnn

        from .training import Ours as Subject

        tinycnn.set_num_threads(threads)
        arguments: tuple[Any, ...] = ()
    else:
        import torch

        from .torch_training import Theirs as Subject  # type: ignore[assignment]

        torch.set_num_threads(threads)
        arguments = (None, side)
    from .networks import batch

    images, _ = batch(name, N)
    Subject("lenet5", 1, *arguments).step()
    before = status("VmRSS") or peak()
    del images  # the network's own copy takes its place
    subject = Subject(name, N, *arguments)
    for _ in range(STEPS):
        subject.step()
    return {"before": before, "peak": peak(), "pid": os.getpid()}


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
