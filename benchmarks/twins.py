"""The networks of `networks` once more, in PyTorch, written from the papers; names of parameters are the same."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from .networks import DEPTHS

VGG16 = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""Channels of VGG-16's convolutions (configuration D), and where it pools."""


class LeNet5(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class VGG16BN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        C = 3
        for OC in VGG16:
            if isinstance(OC, str):
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(C, OC, 3, padding=1), nn.BatchNorm2d(OC), nn.ReLU(inplace=True)]
                C = OC
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


class VGG(nn.Module):
    """VGG-16 for ImageNet, configuration D, without normalisation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        C = 3
        for OC in VGG16:
            layers += [nn.MaxPool2d(2)] if isinstance(OC, str) else [nn.Conv2d(C, OC, 3, padding=1), nn.ReLU(True)]
            C = C if isinstance(OC, str) else OC
        self.features = nn.Sequential(*layers)
        hidden = [nn.Linear(512 * 49, 4096), nn.ReLU(True), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(True)]
        self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, 1000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut: a projection, or option A's zero channels, where the size changes."""

    def __init__(self, C: int, OC: int, stride: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(C, OC, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(OC)
        self.conv2 = nn.Conv2d(OC, OC, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(OC)
        self.stride, self.new = stride, OC - C
        if project and self.new:
            self.downsample = nn.Sequential(nn.Conv2d(C, OC, 1, stride, bias=False), nn.BatchNorm2d(OC))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "downsample"):
            return self.downsample(x)
        if not self.new:
            return x
        front = self.new // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.new - front))


class Bottleneck(nn.Module):
    """1×1, 3×3 with the stride, 1×1 to four times the width, and a shortcut, projected where the size changes."""

    def __init__(self, C: int, width: int, stride: int) -> None:
        super().__init__()
        OC = 4 * width
        self.conv1 = nn.Conv2d(C, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, OC, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(OC)
        self.downsample = nn.Identity()
        if stride != 1 or C != OC:
            self.downsample = nn.Sequential(nn.Conv2d(C, OC, 1, stride, bias=False), nn.BatchNorm2d(OC))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


def _stage(C: int, OC: int, blocks: int, stride: int, project: bool) -> nn.Sequential:
    return nn.Sequential(Block(C, OC, stride, project), *[Block(OC, OC, 1, project) for _ in range(blocks - 1)])


class ResNet(nn.Module):
    """The stem and the head that all ResNets for ImageNet share; a subclass has ``layer1`` to ``layer4``."""

    def __init__(self, C: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.add_stages()
        self.fc = nn.Linear(C, 1000)

    def add_stages(self) -> None:
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ResNet18(ResNet):
    def __init__(self) -> None:
        super().__init__(512)

    def add_stages(self) -> None:
        for i, (C, OC, stride) in enumerate(((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)), start=1):
            self.add_module(f"layer{i}", _stage(C, OC, 2, stride, True))


class ResNet50(ResNet):
    def __init__(self) -> None:
        super().__init__(2048)

    def add_stages(self) -> None:
        C = 64
        for i, (n, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), start=1):
            first = Bottleneck(C, width, 1 if i == 1 else 2)
            C = 4 * width
            self.add_module(f"layer{i}", nn.Sequential(first, *[Bottleneck(C, width, 1) for _ in range(n - 1)]))


class ResNetCifar(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, n, 1, False)
        self.layer2 = _stage(16, 32, n, 2, False)
        self.layer3 = _stage(32, 64, n, 2, False)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)), inplace=True))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


TWINS: dict[str, Callable[[], nn.Module]] = {
    "lenet5": LeNet5,
    "vgg16_bn_cifar": VGG16BN,
    "vgg16": VGG,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
} | {f"resnet{d}": partial(ResNetCifar, d) for d in DEPTHS}
