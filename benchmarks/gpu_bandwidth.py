"""``bandwidth``: what moves memory and hardly computes, as a fraction of what a plain copy reaches on the card.

Batch normalisation with ReLU reads x twice forward (for the statistics, and to normalise) and writes y; backward it
reads x and dy for the sums, both again for dx, and writes dx.  A sum before ReLU adds the shortcut, read forward, and
its gradient, written backward.  An optimizer reads what it needs of each parameter once and writes what it changes.
These bytes, divided by the time, are compared with the bytes read and written by a copy, divided by its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tinycnn
from tinycnn import BatchNormReLU2d

from .gpu_rig import Rig, Task, matched, on_host
from .gpu_timing import LAYERS as EFFORT
from .gpu_timing import TINY, race
from .timing import Spread, ratio

NORMS = {
    "batch norm + ReLU, ResNet-50's first": (64, 64, 112, False),
    "batch norm + sum + ReLU, ResNet-50's layer1": (64, 256, 56, True),
    "batch norm + sum + ReLU, ResNet-50's layer3": (64, 1024, 14, True),
    "batch norm + sum + ReLU, 512×64×32²": (512, 64, 32, True),
}
"""N, C, H = W, with a shortcut or not.  All are larger than the card's caches but the third."""
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], int]] = {
    "SGD with momentum": ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}, 5),
    "Adam": ("Adam", {}, 7),
    "AdamW": ("AdamW", {}, 7),
    "RMSprop": ("RMSprop", {}, 5),
}
"""Class, arguments, and how many numbers are read and written for each parameter."""
PARAMETERS = 50_000_000
TINY_NORM, TINY_PARAMETERS = (2, 8, 3, True), 1000


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    norms = [f"{name}, {which}" for name in NORMS for which in ("forward", "backward")]
    names = [*norms, *OPTIMIZERS]
    return [norms[0], norms[1], "SGD with momentum"] if rig.tiny else names


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Check one operation, time it, and return its row."""
    with matched("float32"):
        copy = copying(rig, 1 << 10 if rig.tiny else 1 << 28)
        ours, theirs, nbytes, error = _optimizer(rig, case) if case in OPTIMIZERS else _norm(rig, case)
        samples = race(rig, {"ours": ours, "theirs": theirs, "copy": copy[0]}, TINY if rig.tiny else EFFORT)
    mine, yours, plain = (samples[name]["step"] for name in ("ours", "theirs", "copy"))
    bandwidth = copy[1] / Spread.of(plain).median
    return {
        "name": case,
        "kind": "optimizers" if case in OPTIMIZERS else "norms",
        "error": error,
        "bytes": nbytes,
        "ours": Spread.of(mine).to_dict(),
        "theirs": Spread.of(yours).to_dict(),
        "ratio": ratio(yours, mine).to_dict(),
        "tb": nbytes / Spread.of(mine).median / 1e12,
        "copy_tb": bandwidth / 1e12,
        "fraction": nbytes / Spread.of(mine).median / bandwidth,
    }


def copying(rig: Rig, elements: int) -> tuple[Task, float]:
    """Return a copy of float32 numbers on the card, and the bytes that it reads and writes."""
    a, b = (torch.ones(elements, device=rig.device) for _ in range(2))
    return lambda: b.copy_(a), 8.0 * elements


def _norm(rig: Rig, case: str) -> tuple[Task, Task, float, float]:
    """Return ours, PyTorch's, the bytes that have to move, and the error of ours."""
    name, which = case.rsplit(", ", 1)
    N, C, H, added = TINY_NORM if rig.tiny else NORMS[name]
    x, s, dy = (rig.randn(N, C, H, H, seed=i) for i in range(3))
    layer = BatchNormReLU2d(C).to("cuda")
    own = [rig.shared(t) for t in (x, s, dy)]
    module = torch.nn.BatchNorm2d(C).to(rig.device)
    x_leaf, s_leaf = x.detach().requires_grad_(), s.detach().requires_grad_()

    def forward() -> Any:
        return layer.forward(own[0], own[1] if added else None)

    def forward_torch() -> torch.Tensor:
        y = module(x_leaf)
        return torch.relu_(y.add_(s_leaf) if added else y)

    y, y_torch = forward(), forward_torch()
    saved = layer._saved

    def backward() -> Any:
        layer._saved = saved
        layer.zero_grad()
        return layer.backward(own[2])

    leaves = [x_leaf, *module.parameters(), *([s_leaf] if added else [])]

    def backward_torch() -> Any:
        return torch.autograd.grad(y_torch, leaves, dy, retain_graph=True)

    dx = backward()
    errors = [_error(y, y_torch), _error(dx[0] if added else dx, backward_torch()[0])]
    passes = {"forward": 3 + added, "backward": 5 + added}[which]
    ours = forward if which == "forward" else backward
    theirs = forward_torch if which == "forward" else backward_torch
    _same(max(errors), case)
    return rig.captured_ours(_quiet(ours), own[0]), theirs, 4.0 * passes * N * C * H * H, max(errors)


def _optimizer(rig: Rig, case: str) -> tuple[Task, Task, float, float]:
    """Return ours, PyTorch's fused one, the bytes that have to move, and the error of ours after three updates."""
    kind, options, numbers = OPTIMIZERS[case]
    size = TINY_PARAMETERS if rig.tiny else PARAMETERS
    start, g = rig.randn(size), rig.randn(size, seed=1)
    p = tinycnn.Parameter(rig.cupy.asarray(rig.shared(start)).copy(), "p")
    optimizer = getattr(tinycnn.optim, kind)([p], **options)
    p.grad[...] = rig.shared(g)
    q = start.clone().requires_grad_()
    q.grad = g
    fused = {"fused": True} if kind != "RMSprop" else {"foreach": True}
    theirs = getattr(torch.optim, kind)([q], **options, **fused)
    for _ in range(3):
        optimizer.step()
        theirs.step()
    error = _error(p.data, q)
    _same(error, case)
    optimizer.prepare()
    return rig.captured_ours(optimizer.apply, p.data), theirs.step, 4.0 * numbers * size, error


def _quiet(task: Task) -> Task:
    """Return a task that returns nothing: results must not outlive it."""

    def quiet() -> None:
        task()

    return quiet


def _error(a: Any, b: torch.Tensor) -> float:
    """Return the distance of the first two million numbers, relative to PyTorch's."""
    n = 2_000_000
    ours, theirs = (on_host(v[: max(1, n // int(np.prod(v.shape[1:])))] if v.ndim > 1 else v[:n]) for v in (a, b))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def _same(error: float, case: str) -> None:
    if not error <= 1e-5:
        raise AssertionError(f"{case}: off by {error:.1e}")
