"""``golden`` and ``graph``: are training runs on a GPU right to the digits, and replayed ones to the bits?

``golden``: ten steps with the same weights and batches as PyTorch's in float64 on the CPU; the loss and every named
gradient are compared at every step (`tests/test_golden.py` has the same on a CPU).  In float32 both sides' losses are
compared with those, and the gradients of the first step.

``graph``: twenty steps, each with a batch of its own, a learning rate that changes, and an odd batch in between: eager,
eager once more, and captured and replayed.  Losses, parameters, statistics and the optimizer's state must have equal
bits in all three.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import tinycnn
from tinycnn import CapturedStep

from .agree import FLIPS, errors
from .gpu_rig import PRECISIONS, Rig, matched, on_host, to_card
from .networks import NETS
from .training import SGD
from .twins import TWINS

STEPS = 10
GOLDEN = ("lenet5 float64", "resnet20 float64", "lenet5 float32", "resnet20 float32")
CLOSE = {"float64": 1e-9, "float32": 2e-3}
"""The largest relative error of a loss; in float64 of a gradient too."""

REPLAYED = 20
GRAPH: dict[str, tuple[str, int, int | None]] = {
    f"{name} {precision}": (name, N, size)
    for name, N, size in (
        ("lenet5", 16, None),
        ("resnet20", 16, None),
        ("vgg16_bn_cifar", 16, None),
        ("resnet50", 4, 64),
    )
    for precision in PRECISIONS
}


def batches(name: str, N: int, steps: int, size: int | None = None, odd: int = -1) -> Iterator[tuple[Any, Any]]:
    """Yield batches, no two alike; number ``odd`` is of one image less."""
    rng = np.random.default_rng(7)
    C, H, W = NETS[name].image
    for step in range(steps):
        n = N - (step == odd)
        yield rng.standard_normal((n, C, size or H, size or W)), rng.integers(0, NETS[name].classes, n)


# ---- against PyTorch -------------------------------------------------------------------------------------------


def golden_cases(rig: Rig) -> list[str]:
    """Return the names of the runs."""
    return ["lenet5 float64"] if rig.tiny else list(GOLDEN)


def measure_golden(rig: Rig, case: str) -> dict[str, Any]:
    """Return the largest errors of a run."""
    name, dtype = case.split()
    steps, N = (2, 2) if rig.tiny else (STEPS, 8)
    ours, theirs = NETS[name].build(1).astype(dtype), TWINS[name]().double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    ours.to("cuda").require_dx(False)
    optimizer = tinycnn.optim.SGD(ours.parameters(), **SGD)
    optimizer_torch = torch.optim.SGD(theirs.parameters(), **SGD)
    loss_fn, worst = tinycnn.CrossEntropyLoss(), {"loss": 0.0, "gradient": 0.0}
    with matched("float32"):
        for step, (x, y) in enumerate(batches(name, N, steps)):
            loss, dlogits = loss_fn(ours(to_card(x.astype(dtype))), rig.array(y))
            ours.zero_grad()
            ours.backward(dlogits)
            optimizer_torch.zero_grad()
            x_torch = torch.from_numpy(x.astype(dtype)).double()
            loss_torch = F.cross_entropy(theirs(x_torch), torch.from_numpy(y))
            loss_torch.backward()  # type: ignore[no-untyped-call]
            worst["loss"] = max(worst["loss"], abs(float(loss) - loss_torch.item()) / loss_torch.item())
            if dtype == "float64" or step == 0:
                worst["gradient"] = max(worst["gradient"], _gradient_error(ours, theirs))
            optimizer.step()
            optimizer_torch.step()
    allowed = CLOSE[dtype]
    if not (worst["loss"] <= allowed and worst["gradient"] <= (allowed if dtype == "float64" else FLIPS)):
        raise AssertionError(f"{case}: {worst}, {allowed:.0e} allowed")
    return {"net": name, "title": NETS[name].title, "dtype": dtype, "steps": steps, **worst}


def _gradient_error(ours: Any, theirs: torch.nn.Module) -> float:
    found = {name: on_host(p.grad) for name, p in ours.named_parameters()}
    right = {name: on_host(p.grad) for name, p in theirs.named_parameters()}
    return max(errors(found, right).values())


# ---- replayed against eager ------------------------------------------------------------------------------------


def graph_cases(rig: Rig) -> list[str]:
    """Return the names of the runs."""
    return ["lenet5 float32"] if rig.tiny else list(GRAPH)


def measure_graph(rig: Rig, case: str) -> dict[str, Any]:
    """Compare the bits of three runs."""
    precision = case.split()[1]
    name, N, size = ("lenet5", 2, None) if rig.tiny else GRAPH[case]
    steps = 7 if rig.tiny else REPLAYED + 6
    with matched(precision):
        eager, _ = train(name, N, size, precision, steps, graph=False)
        again, _ = train(name, N, size, precision, steps, graph=False)
        replayed, step = train(name, N, size, precision, steps, graph=True)
    if step.state != "captured":
        raise AssertionError(f"{case}: the step was not captured: {step.reason or step.state}")
    for what, other in (("run twice", again), ("replayed", replayed)):
        wrong = [key for key, value in eager.items() if value.tobytes() != other[key].tobytes()]
        if wrong:
            raise AssertionError(f"{case}: {what}, {len(wrong)} of {len(eager)} arrays differ: {', '.join(wrong[:5])}")
    return {"net": name, "title": NETS[name].title, "precision": precision, "steps": steps, "arrays": len(eager)}


def train(
    name: str, N: int, size: int | None, precision: str, steps: int, graph: bool
) -> tuple[dict[str, np.ndarray], CapturedStep]:
    """Return the bits of a run: every loss, and at the end the state of network and optimizer."""
    model = NETS[name].build(0).to("cuda")
    model.require_dx(False)
    optimizer = tinycnn.optim.SGD(model.parameters(), **SGD)
    step = CapturedStep(model, optimizer, tinycnn.CrossEntropyLoss(), graph=graph, precision=precision)
    losses, logits = [], None
    for i, (x, y) in enumerate(batches(name, N, steps, size, odd=steps - 2)):
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + i)
        loss, logits = step(to_card(x.astype(np.float32)), to_card(y))
        losses.append(float(loss))
    state = {f"model {key}": value for key, value in model.state_dict().items()}
    for slot, values in optimizer.state_dict()["state"].items():
        state |= {f"{slot} {key}": value for key, value in values.items()}
    return state | {"losses": np.array(losses), "logits": on_host(logits)}, step
