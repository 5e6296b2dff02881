"""The layers that are measured: every shape of the usual networks, ours and PyTorch's side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from tinycnn import AvgPool2d, BatchNorm2d, BatchNormReLU2d, Conv2d, GlobalAvgPool2d, Layer, Linear, MaxPool2d, ReLU


@dataclass(frozen=True)
class Case:
    """One layer on one shape.

    Attributes:
        net: where it occurs.
        layer: its name in the table.
        shape: of its input.
        ours, theirs: make it.
        is_first: nobody needs the gradient of its input, an image.
    """

    net: str
    layer: str
    shape: tuple[int, ...]
    ours: Callable[[], Layer]
    theirs: Callable[[], nn.Module]
    is_first: bool = False

    def __str__(self) -> str:
        return f"{self.net}, {self.layer} on {'×'.join(map(str, self.shape))}"


# C, OC, kernel, stride, padding, groups, input size
Conv = tuple[int, int, int, int, int, int, int]
CONVS: dict[tuple[str, int], list[Conv]] = {
    ("LeNet-5", 64): [(1, 6, 5, 1, 0, 1, 32), (6, 16, 5, 1, 0, 1, 14)],
    ("AlexNet", 32): [
        (3, 64, 11, 4, 2, 1, 224),
        (64, 192, 5, 1, 2, 1, 27),
        (192, 384, 3, 1, 1, 1, 13),
        (384, 256, 3, 1, 1, 1, 13),
        (256, 256, 3, 1, 1, 1, 13),
        (96, 256, 5, 1, 2, 2, 27),  # the three layers of the original that ran on two GPUs
        (384, 384, 3, 1, 1, 2, 13),
        (384, 256, 3, 1, 1, 2, 13),
    ],
    ("VGG-16", 4): [
        *((C, OC, 3, 1, 1, 1, 224) for C, OC in ((3, 64), (64, 64))),
        *((C, OC, 3, 1, 1, 1, 112) for C, OC in ((64, 128), (128, 128))),
        *((C, OC, 3, 1, 1, 1, 56) for C, OC in ((128, 256), (256, 256))),
        *((C, OC, 3, 1, 1, 1, 28) for C, OC in ((256, 512), (512, 512))),
        (512, 512, 3, 1, 1, 1, 14),
    ],
    ("VGG-16 (CIFAR)", 32): [
        *((C, OC, 3, 1, 1, 1, 32) for C, OC in ((3, 64), (64, 64))),
        *((C, OC, 3, 1, 1, 1, 16) for C, OC in ((64, 128), (128, 128))),
        *((C, OC, 3, 1, 1, 1, 8) for C, OC in ((128, 256), (256, 256))),
        *((C, OC, 3, 1, 1, 1, 4) for C, OC in ((256, 512), (512, 512))),
        (512, 512, 3, 1, 1, 1, 2),
    ],
    ("ResNet-20", 128): [
        (3, 16, 3, 1, 1, 1, 32),
        (16, 16, 3, 1, 1, 1, 32),
        (16, 32, 3, 2, 1, 1, 32),
        (32, 32, 3, 1, 1, 1, 16),
        (32, 64, 3, 2, 1, 1, 16),
        (64, 64, 3, 1, 1, 1, 8),
    ],
    ("ResNet-18", 8): [
        (3, 64, 7, 2, 3, 1, 224),
        *((C, C, 3, 1, 1, 1, 3584 // C) for C in (64, 128, 256, 512)),
        *((C, 2 * C, 3, 2, 1, 1, 3584 // C) for C in (64, 128, 256)),
        *((C, 2 * C, 1, 2, 0, 1, 3584 // C) for C in (64, 128, 256)),
    ],
    ("ResNet-50", 8): [  # those that ResNet-18 has not; 3×3 at the stride, as torchvision has it
        (64, 64, 1, 1, 0, 1, 56),
        *((C, 4 * C, 1, 1, 0, 1, 3584 // C) for C in (64, 128, 256, 512)),
        *((4 * C, C, 1, 1, 0, 1, 3584 // C) for C in (64, 128, 256, 512)),
        *((4 * C, 2 * C, 1, 1, 0, 1, 3584 // C) for C in (64, 128, 256)),
        *((2 * C, 2 * C, 3, 2, 1, 1, 3584 // C) for C in (64, 128, 256)),
        *((4 * C, 8 * C, 1, 2, 0, 1, 3584 // C) for C in (64, 128, 256)),
    ],
}
BIASED = ("LeNet-5", "AlexNet", "VGG-16", "VGG-16 (CIFAR)")
QUICK = ("LeNet-5", "ResNet-20")


def cases(quick: bool) -> list[Case]:
    """Return all cases; ``quick`` ones are few and have small batches."""
    found = [*convolutions(), *pools(), *norms(), *linears()]
    if quick:
        small = [case for case in found if case.net in QUICK]
        found = [Case(c.net, c.layer, (8, *c.shape[1:]), c.ours, c.theirs, c.is_first) for c in small]
    return found


def convolutions() -> Iterator[Case]:
    """Yield every convolution of `CONVS`."""
    for (net, N), shapes in CONVS.items():
        for conv in shapes:
            yield _convolution(net, N, *conv)


def _convolution(net: str, N: int, C: int, OC: int, K: int, S: int, P: int, G: int, H: int) -> Case:
    words = f"conv {K}×{K}" + (f"/{S}" if S > 1 else "") + f", {C} → {OC}" + (f", {G} groups" if G > 1 else "")
    bias = net in BIASED
    return Case(
        net,
        words,
        (N, C, H, H),
        lambda: Conv2d(C, OC, K, stride=S, padding=P, groups=G, bias=bias),
        lambda: nn.Conv2d(C, OC, K, S, P, groups=G, bias=bias),
        is_first=C in (1, 3),
    )


def pools() -> Iterator[Case]:
    """Yield the poolings."""
    yield Case("LeNet-5", "max-pool 2×2", (64, 6, 28, 28), lambda: MaxPool2d(2), lambda: nn.MaxPool2d(2))
    yield Case("VGG-16", "max-pool 2×2", (4, 64, 224, 224), lambda: MaxPool2d(2), lambda: nn.MaxPool2d(2))
    yield Case("VGG-16 (CIFAR)", "max-pool 2×2", (32, 64, 32, 32), lambda: MaxPool2d(2), lambda: nn.MaxPool2d(2))
    yield Case("AlexNet", "max-pool 3×3/2", (32, 64, 55, 55), lambda: MaxPool2d(3, 2), lambda: nn.MaxPool2d(3, 2))
    yield Case(
        "ResNet-18", "max-pool 3×3/2", (8, 64, 112, 112), lambda: MaxPool2d(3, 2, 1), lambda: nn.MaxPool2d(3, 2, 1)
    )
    yield Case("LeNet-5", "average-pool 2×2", (64, 6, 28, 28), lambda: AvgPool2d(2), lambda: nn.AvgPool2d(2))
    yield Case("DenseNet-121", "average-pool 2×2", (8, 128, 56, 56), lambda: AvgPool2d(2), lambda: nn.AvgPool2d(2))
    for net, shape in (("ResNet-18", (8, 512, 7, 7)), ("ResNet-20", (128, 64, 8, 8))):
        yield Case(net, "global average", shape, GlobalAvgPool2d, lambda: nn.AdaptiveAvgPool2d(1))


def norms() -> Iterator[Case]:
    """Yield batch normalisation, alone and with ReLU, and ReLU alone."""
    for net, shape in (
        ("ResNet-20", (128, 16, 32, 32)),
        ("ResNet-20", (128, 64, 8, 8)),
        ("VGG-16 (CIFAR)", (32, 64, 32, 32)),
        ("VGG-16 (CIFAR)", (32, 512, 4, 4)),
        ("ResNet-18", (8, 64, 112, 112)),
        ("ResNet-18", (8, 512, 7, 7)),
    ):
        C = shape[1]
        yield Case(net, f"batch norm, {C}", shape, _make(BatchNorm2d, C), _make(nn.BatchNorm2d, C))
        yield Case(net, f"batch norm + ReLU, {C}", shape, _make(BatchNormReLU2d, C), _make(_torch_bn_relu, C))
    yield Case("ResNet-20", "ReLU", (128, 16, 32, 32), ReLU, nn.ReLU)


def linears() -> Iterator[Case]:
    """Yield the linear layers."""
    for net, N, features, outputs in (
        ("LeNet-5", 64, 400, 120),
        ("LeNet-5", 64, 120, 84),
        ("ResNet-20", 128, 64, 10),
        ("ResNet-18", 8, 512, 1000),
        ("AlexNet", 32, 9216, 4096),
        ("AlexNet", 32, 4096, 1000),
    ):
        words = f"linear, {features} → {outputs}"
        sizes = features, outputs
        yield Case(net, words, (N, features), _make(Linear, *sizes), _make(nn.Linear, *sizes))


def _make(kind: Callable, *arguments: int) -> Callable:
    return lambda: kind(*arguments)


def _torch_bn_relu(C: int) -> nn.Module:
    class BatchNormReLU(nn.BatchNorm2d):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return nn.functional.relu(super().forward(input), inplace=True)

    return BatchNormReLU(C)
