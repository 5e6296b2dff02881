"""``layers``: every convolution of ResNet-20, VGG-16 and ResNet-50 on a GPU, pass by pass, here and by cuDNN.

Each pass (forward, dx, dw) is captured ten times over in one CUDA graph, on both sides: what is timed is the kernels,
not Python.  PyTorch runs in both memory formats; whichever is the faster counts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from tinycnn import Conv2d

from .agree import check_close
from .gpu_rig import Rig, Task, matched, on_host
from .gpu_timing import LAYERS as EFFORT
from .gpu_timing import TINY, race
from .shapes import CONVS, Conv
from .timing import Spread, fastest, ratio
from .torch_training import FORMATS

PASSES = ("forward", "dx", "dw")
REPEATS = 10
"""Calls in a graph."""
FLOORS = {"float32": 1e-5, "tf32": 4e-3, "bf16": 3e-2}
"""Errors that are always allowed, see `agree`."""
BYTES = {"float32": 4, "tf32": 4, "bf16": 2}


def _resnet50() -> list[Conv]:
    """Return the convolutions of ResNet-50: those that ResNet-18 has too, and its own."""
    return [conv for conv in CONVS["ResNet-18", 8] if conv[3] == 1 or conv[2] == 7] + CONVS["ResNet-50", 8]


SHAPES: dict[str, tuple[int, list[Conv]]] = {
    "ResNet-20": (128, CONVS["ResNet-20", 128]),
    "VGG-16 (CIFAR)": (128, CONVS["VGG-16 (CIFAR)", 32]),
    "ResNet-50": (64, _resnet50()),
}
"""Batch size and convolutions."""
ORDER = (
    ("ResNet-20", "tf32"),
    ("VGG-16 (CIFAR)", "tf32"),
    ("ResNet-50", "tf32"),
    ("ResNet-20", "float32"),
    ("ResNet-50", "bf16"),
    ("VGG-16 (CIFAR)", "float32"),
    ("ResNet-50", "float32"),
)
"""The most wanted first."""


def words(conv: Conv) -> str:
    """Return a convolution in words."""
    C, OC, K, S, _, _, H = conv
    return f"{K}×{K}{f'/{S}' if S > 1 else ''}, {C} → {OC} on {H}²"


CASES: dict[str, tuple[str, int, Conv, str]] = {
    f"{net}, {words(conv)}, {precision}": (net, SHAPES[net][0], conv, precision)
    for net, precision in ORDER
    for conv in SHAPES[net][1]
}
TINY_CASES = {
    f"tiny {precision}": ("tiny", 2, (3, 5, 3, 2, 1, 1, 6), precision) for precision in ("float32", "tf32", "bf16")
}


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    return list(TINY_CASES if rig.tiny else CASES)


class OurConv:
    """A convolution of ours, each of its passes by itself, on memory that it shares with PyTorch's."""

    def __init__(self, rig: Rig, conv: Conv, x: torch.Tensor, dy: torch.Tensor, w: torch.Tensor) -> None:
        C, OC, K, S, P, G, _ = conv
        self.layer = Conv2d(C, OC, K, stride=S, padding=P, groups=G, bias=False)
        self.layer.load_state_dict({"weight": on_host(w)})
        self.layer.to("cuda")
        self.x, self.dy = rig.shared(x), rig.shared(dy)
        self.forward()
        self.saved = self.layer._saved

    def forward(self) -> Any:
        """Return y."""
        return self.layer.forward(self.x)

    def dx(self) -> Any:
        """Return dx, and nothing else is computed."""
        return self._backward(need_dx=True, need_dw=False)

    def dw(self) -> Any:
        """Return dw, and nothing else is computed."""
        self._backward(need_dx=False, need_dw=True)
        return self.layer.weight.grad

    def _backward(self, need_dx: bool, need_dw: bool) -> Any:
        layer = self.layer
        layer.needs_dx, layer.weight.requires_grad, layer._saved = need_dx, need_dw, self.saved
        layer.zero_grad()
        return layer.backward(self.dy)


class TorchConv:
    """The same in PyTorch."""

    def __init__(self, conv: Conv, x: torch.Tensor, dy: torch.Tensor, w: torch.Tensor, name: str) -> None:
        _, _, _, S, P, G, _ = conv
        self.x, self.dy, self.w = (t.contiguous(memory_format=FORMATS[name]) for t in (x, dy, w))
        self.window: Any = ([S, S], [P, P], [1, 1])
        self.G = G

    def forward(self) -> Any:
        """Return y."""
        return torch.nn.functional.conv2d(self.x, self.w, None, *self.window, self.G)

    def dx(self) -> Any:
        """Return dx."""
        return self._backward(True, False)[0]

    def dw(self) -> Any:
        """Return dw."""
        return self._backward(False, True)[1]

    def _backward(self, need_dx: bool, need_dw: bool) -> Any:
        backward = torch.ops.aten.convolution_backward
        mask = [need_dx, need_dw, False]
        return backward(self.dy, self.x, self.w, None, *self.window, False, [0, 0], self.G, mask)


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Check a convolution, time its passes, and return its row."""
    net, N, conv, precision = (TINY_CASES if rig.tiny else CASES)[case]
    C, OC, K, _, _, G, H = conv
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    shapes = (N, C, H, H), (N, OC, _out(conv), _out(conv)), (OC, C // G, K, K)
    x, dy, w = (rig.randn(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes))
    w = w / math.sqrt(K * K * C / G)
    with matched(precision):
        ours, theirs = OurConv(rig, conv, x, dy, w), {name: TorchConv(conv, x, dy, w, name) for name in FORMATS}
        row: dict[str, Any] = {"net": net, "layer": words(conv), "batch": N, "precision": precision}
        row |= {"algorithm": ours.layer.chosen_algorithm(shapes[0])}
        row |= check(rig, conv, ours, theirs["channels_last"], FLOORS[precision], case)
        flop, nbytes = _work(conv, N, BYTES[precision])
        row |= {"flop": flop, "bytes": nbytes}
        for which in PASSES if C != 3 else ("forward", "dw"):  # nobody needs the gradient of an image
            row |= measure_pass(rig, ours, theirs, which, flop)
    del ours, theirs
    rig.free()
    return row


def check(rig: Rig, conv: Conv, ours: OurConv, theirs: TorchConv, floor: float, what: str) -> dict[str, float]:
    """Make sure that every pass does the same here and in PyTorch; return the largest errors.

    Some images are compared with PyTorch's float64.  The whole batch, whose tiles are other ones, is compared with
    PyTorch's of the same precision: dw, and the last images of the others.
    """
    few = theirs.x[:8], theirs.dy[:8], theirs.w
    exact = TorchConv(conv, *(t.double() for t in few), "contiguous")
    small = OurConv(rig, conv, *few)
    own = [TorchConv(conv, *few, name) for name in FORMATS]
    mine, yours = check_close(_results(small), [_results(one) for one in own], _results(exact), what, floor)
    right = _results(theirs)
    check_close(_results(ours), [right], right, f"{what}, whole batch", 4 * floor)
    return {"error": mine, "torch_error": yours}


def _results(one: OurConv | TorchConv) -> dict[str, np.ndarray]:
    """Return dw, and the last images of y and dx."""
    return {"forward": on_host(one.forward()[-8:]), "dx": on_host(one.dx()[-8:]), "dw": on_host(one.dw())}


def measure_pass(rig: Rig, ours: OurConv, theirs: dict[str, TorchConv], which: str, flop: float) -> dict[str, Any]:
    """Return the cells of one pass."""
    trouble: dict[str, str] = {}
    tasks: dict[str, Task] = {"ours": _repeated(rig, ours, which, trouble, "ours")}
    tasks |= {name: _repeated(rig, one, which, trouble, name) for name, one in theirs.items()}
    samples = race(rig, tasks, TINY if rig.tiny else EFFORT)
    best = fastest(samples, "step", list(theirs))
    mine, yours = ([s / REPEATS for s in samples[name]["step"]] for name in ("ours", best))
    cells: dict[str, Any] = {which: Spread.of(mine).to_dict(), f"{which}_torch": Spread.of(yours).to_dict()}
    cells |= {f"{which}_best": best, f"{which}_ratio": ratio(yours, mine).to_dict()}
    cells |= {f"{which}_tflops": flop / cells[which]["median"] / 1e12}
    return cells | ({f"{which}_trouble": trouble} if trouble else {})


def _repeated(rig: Rig, one: OurConv | TorchConv, which: str, trouble: dict[str, str], name: str) -> Task:
    """Return ten calls as one graph; as ten calls, if that cannot be."""
    call = getattr(one, which)

    def ten() -> None:
        for _ in range(REPEATS):
            call()

    try:
        return rig.captured_ours(ten, one.x) if isinstance(one, OurConv) else rig.captured_theirs(ten)
    except Exception as error:
        trouble[name] = f"not captured: {type(error).__name__}: {error}".splitlines()[0][:300]
        return ten


def _out(conv: Conv) -> int:
    _, _, K, S, P, _, H = conv
    return (H + 2 * P - K) // S + 1


def _work(conv: Conv, N: int, itemsize: int) -> tuple[float, float]:
    """Return FLOP of a pass, and the bytes that it has to move at least."""
    C, OC, K, _, _, G, H = conv
    positions = N * _out(conv) ** 2
    elements = N * C * H * H + positions * OC + OC * C // G * K * K
    return 2.0 * positions * OC * C // G * K * K, float(elements * itemsize)
