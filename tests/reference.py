"""The architectures once more, in PyTorch, written from the papers; nothing here comes from tinycnn.

Names of parameters are the same, so that one state dict fits both.
"""

import torch
from torch import nn
from torch.nn import functional as F


class LeNet5(nn.Module):
    def __init__(self, in_channels=1, num_classes=10):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x)))))


class Block(nn.Module):
    def __init__(self, C, OC, stride, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(C, OC, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(OC)
        self.conv2 = nn.Conv2d(OC, OC, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(OC)
        self.shortcut, self.stride, self.new = shortcut, stride, OC - C
        if shortcut == "B" and (stride != 1 or C != OC):
            self.downsample = nn.Sequential(nn.Conv2d(C, OC, 1, stride, bias=False), nn.BatchNorm2d(OC))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut == "none":
            return F.relu(y)
        if hasattr(self, "downsample"):
            return F.relu(y + self.downsample(x))
        if self.new:
            front = 0 if self.shortcut == "A end" else self.new // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.new - front))
        return F.relu(y + x)


class ResNetCifar(nn.Module):
    def __init__(self, depth, shortcut="A", in_channels=3, num_classes=10):
        super().__init__()
        n = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*[Block(16, 16, 1, shortcut) for _ in range(n)])
        self.layer2 = nn.Sequential(Block(16, 32, 2, shortcut), *[Block(32, 32, 1, shortcut) for _ in range(n - 1)])
        self.layer3 = nn.Sequential(Block(32, 64, 2, shortcut), *[Block(64, 64, 1, shortcut) for _ in range(n - 1)])
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean(dim=(2, 3)))


class LeNet1998(nn.Module):
    """The sparse C3 as a dense convolution under a mask; the table is written as the paper prints it."""

    TABLE = (
        "X...XXX..XXXX.XX",
        "XX...XXX..XXXX.X",
        "XXX...XXX..X.XXX",
        ".XXX..XXXX..X.XX",
        "..XXX..XXXX.XX.X",
        "...XXX..XXXX.XXX",
    )

    def __init__(self, patterns):
        super().__init__()
        self.c1, self.c3, self.c5, self.f6 = (
            nn.Conv2d(1, 6, 5),
            nn.Conv2d(6, 16, 5),
            nn.Conv2d(16, 120, 5),
            nn.Linear(120, 84),
        )
        self.s2, self.s4 = nn.Conv2d(6, 6, 1, groups=6), nn.Conv2d(16, 16, 1, groups=16)
        mask = torch.tensor([[cell == "X" for cell in row] for row in self.TABLE]).T  # (6, 16) -> (16, 6)
        self.register_buffer("mask", mask)
        self.register_buffer("patterns", patterns)

    @staticmethod
    def squash(x):
        return 1.7159 * torch.tanh(2 * x / 3)

    def forward(self, x):
        x = self.squash(self.c1(x))
        x = self.squash(self.s2(4 * F.avg_pool2d(x, 2)))
        x = self.squash(F.conv2d(x, self.c3.weight * self.mask[:, :, None, None], self.c3.bias))
        x = self.squash(self.s4(4 * F.avg_pool2d(x, 2)))
        x = self.squash(self.f6(self.squash(self.c5(x)).flatten(1)))
        return -((x[:, None] - self.patterns) ** 2).sum(2)


def gradients(module):
    return {name: p.grad.numpy() for name, p in module.named_parameters()}


def load(module, model):
    """Give a PyTorch module the weights of a tinycnn model of the same names."""
    module.load_state_dict({name: torch.from_numpy(value) for name, value in model.state_dict().items()})
    return module
