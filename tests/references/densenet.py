"""DenseNets (Huang et al. 2017) as the paper defines them: a layer concatenates what it is given and what it adds."""

import torch
from torch import nn
from torch.nn import functional as F

BLOCKS = {121: (6, 12, 24, 16), 169: (6, 12, 32, 32), 201: (6, 12, 48, 32)}  # table 1


class Layer(nn.Module):
    """BN-ReLU-Conv(3×3), or BN-ReLU-Conv(1×1)-BN-ReLU-Conv(3×3) with 4k channels in between (section 3)."""

    def __init__(self, C, k, bottleneck):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(C)
        if bottleneck:
            self.conv1 = nn.Conv2d(C, bottleneck * k, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(bottleneck * k)
            self.conv2 = nn.Conv2d(bottleneck * k, k, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(C, k, 3, padding=1, bias=False)

    def forward(self, x):
        h = self.conv1(F.relu(self.norm1(x)))
        if hasattr(self, "conv2"):
            h = self.conv2(F.relu(self.norm2(h)))
        return torch.cat([x, h], dim=1)


class Block(nn.Module):
    def __init__(self, C, k, count, bottleneck=4):
        super().__init__()
        for i in range(count):
            self.add_module(f"denselayer{i + 1}", Layer(C + i * k, k, bottleneck))

    def forward(self, x):
        for layer in self.children():
            x = layer(x)
        return x


class Transition(nn.Module):
    def __init__(self, C, OC):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(C), nn.Conv2d(C, OC, 1, bias=False)

    def forward(self, x):
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """``stem``: "imagenet" (7×7 stride 2, BN, ReLU, pool) or "cifar" (3×3), of ``width`` channels."""

    def __init__(self, counts, k, stem, width, bottleneck=4, theta=0.5, in_channels=3, num_classes=10):
        super().__init__()
        features = self.features = nn.Sequential()
        if stem == "imagenet":
            features.conv0 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
            features.norm0 = nn.BatchNorm2d(width)
            features.relu0 = nn.ReLU()
            features.pool0 = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            features.conv0 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        C = width
        for i, count in enumerate(counts, start=1):
            features.add_module(f"denseblock{i}", Block(C, k, count, bottleneck))
            C += k * count
            if i < len(counts):
                features.add_module(f"transition{i}", Transition(C, int(theta * C)))
                C = int(theta * C)
        features.add_module("norm5" if stem == "imagenet" else "norm_final", nn.BatchNorm2d(C))
        self.classifier = nn.Linear(C, num_classes)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean(dim=(2, 3)))


def imagenet(depth, **options):
    return DenseNet(BLOCKS[depth], 32, "imagenet", 64, **{"num_classes": 1000} | options)


def bc_100_12(**options):
    return DenseNet((16, 16, 16), 12, "cifar", 24, **options)


def plain_40_12(**options):
    return DenseNet((12, 12, 12), 12, "cifar", 16, bottleneck=None, theta=1.0, **options)
