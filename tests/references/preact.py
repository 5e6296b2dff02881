"""Pre-activation and wide residual networks, from He et al. 2016 ("Identity mappings") and Zagoruyko & Komodakis 2016.

In the first block of a stage the shortcut begins after the first ReLU; a projection is not normalised.
"""

from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """conv1 … convK, each behind a normalisation and ReLU: kernel sizes, channels and the strides are given."""

    def __init__(self, channels, kernels, stride, parts_late, option, name):
        super().__init__()
        self.depth, self.parts_late = len(kernels), parts_late
        for i, kernel in enumerate(kernels):
            self.add_module(f"bn{i + 1}", nn.BatchNorm2d(channels[i]))
            convolution = nn.Conv2d(
                channels[i], channels[i + 1], kernel, stride if i == 0 else 1, kernel // 2, bias=False
            )
            self.add_module(f"conv{i + 1}", convolution)
        self.stride, self.new, self.front = stride, channels[-1] - channels[0], 0 if option == "A end" else None
        self.projection = None
        if option == "B" and (self.new or stride > 1):
            way = nn.Conv2d(channels[0], channels[-1], 1, stride, bias=False)
            self.add_module(name, nn.Sequential(way) if name == "downsample" else way)
            self.projection = name

    def past(self, x):
        if self.projection:
            return getattr(self, self.projection)(x)
        if not self.new:
            return x
        front = self.new // 2 if self.front is None else self.front
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.new - front))

    def forward(self, x):
        y = F.relu(self.bn1(x))
        shortcut = self.past(y if self.parts_late else x)
        y = self.conv1(y)
        for i in range(2, self.depth + 1):
            y = getattr(self, f"conv{i}")(F.relu(getattr(self, f"bn{i}")(y)))
        return y + shortcut


class PreAct(nn.Module):
    def __init__(self, n, bottleneck, option, num_classes=10, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        C = 16
        for i, width in enumerate((16, 32, 64)):
            blocks = []
            for j in range(n):
                OC = 4 * width if bottleneck else width
                channels, kernels = ((C, width, width, OC), (1, 3, 1)) if bottleneck else ((C, OC, OC), (3, 3))
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(channels, kernels, stride, j == 0, option, "downsample"))
                C = OC
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(C)
        self.fc = nn.Linear(C, num_classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        return self.fc(F.relu(self.bn(x)).mean((2, 3)))


class Stage(nn.Module):
    def __init__(self, C, OC, n, stride):
        super().__init__()
        first = Block((C, OC, OC), (3, 3), stride, C != OC, "B", "convShortcut")
        others = [Block((OC, OC, OC), (3, 3), 1, False, "B", "convShortcut") for _ in range(n - 1)]
        self.layer = nn.Sequential(first, *others)

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    """WRN-d-k, without dropout."""

    def __init__(self, depth, k, num_classes=10, in_channels=3):
        super().__init__()
        n = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(16, 16 * k, n, 1)
        self.block2 = Stage(16 * k, 32 * k, n, 2)
        self.block3 = Stage(32 * k, 64 * k, n, 2)
        self.bn1 = nn.BatchNorm2d(64 * k)
        self.fc = nn.Linear(64 * k, num_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))
