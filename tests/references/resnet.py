"""Residual networks for ImageNet, from He et al. 2016 (table 1, sections 3.3, 4.1); ResNeXt, from Xie et al. 2017."""

from torch import nn
from torch.nn import functional as F


class Basic(nn.Module):
    expansion = 1

    def __init__(self, C, planes, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(C, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = shortcut(C, planes, stride, option)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """``inner`` channels in the middle; the stride in the first 1×1 convolution (the paper) or in the 3×3 one."""

    expansion = 4

    def __init__(self, C, planes, stride, option, inner=None, groups=1, paper=False):
        super().__init__()
        inner, OC = inner or planes, 4 * planes
        self.conv1 = nn.Conv2d(C, inner, 1, stride if paper else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, 1 if paper else stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, OC, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(OC)
        self.downsample = shortcut(C, OC, stride, option)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


class ZeroChannels(nn.Module):
    """Option A: every other pixel, and zeros for the channels that are new."""

    def __init__(self, new, stride, front):
        super().__init__()
        self.new, self.stride, self.front = new, stride, front

    def forward(self, x):
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.front, self.new - self.front))


def shortcut(C, OC, stride, option):
    if C == OC and stride == 1:
        return nn.Identity()
    if option == "B":
        return nn.Sequential(nn.Conv2d(C, OC, 1, stride, bias=False), nn.BatchNorm2d(OC))
    return ZeroChannels(OC - C, stride, 0 if option == "A end" else (OC - C) // 2)


class ResNet(nn.Module):
    """``block(C, planes, stride)`` makes a block; ``width`` is 64 in the papers."""

    def __init__(self, block, expansion, counts, num_classes=1000, in_channels=3, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        C = width
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                blocks.append(block(C, width << i, 2 if i and not j else 1))
                C = expansion * width << i
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(C, num_classes)

    def stem(self, x):
        return F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        for i in range(1, 5):
            if hasattr(self, f"layer{i}"):
                x = getattr(self, f"layer{i}")(x)
        return self.fc(x.mean((2, 3)))


class ResNeXt29(ResNet):
    """For 32×32 images: a 3×3 stem of 64 channels and three stages of three blocks."""

    def __init__(self, G, D, num_classes=10, in_channels=3, n=3, width=64):
        super().__init__(resnext_block(G, D), 4, (n, n, n), num_classes, in_channels, width)
        self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)

    def stem(self, x):
        return F.relu(self.bn1(self.conv1(x)))


def basic(option="B"):
    return lambda C, planes, stride: Basic(C, planes, stride, option)


def bottleneck(option="B", paper=False):
    return lambda C, planes, stride: Bottleneck(C, planes, stride, option, paper=paper)


def resnext_block(G, D):
    """G paths of D channels where the network has 64 planes, and in proportion elsewhere."""
    return lambda C, planes, stride: Bottleneck(C, planes, stride, "B", inner=G * (D * planes // 64), groups=G)
