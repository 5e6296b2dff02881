"""Stochastic depth, from Huang et al. 2016, section 3: branches are scaled in evaluation, by their survival."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, C, OC, stride, survival):
        super().__init__()
        self.conv1 = nn.Conv2d(C, OC, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(OC)
        self.conv2 = nn.Conv2d(OC, OC, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(OC)
        self.new, self.stride, self.survival, self.open = OC - C, stride, survival, True

    def forward(self, x):
        way = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.new // 2, self.new - self.new // 2))
        if self.training and not self.open:
            return F.relu(way)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu((y if self.training else self.survival * y) + way)


class StochasticResNet(nn.Module):
    """6n + 2 layers, survival falling linearly to ``last``; ``blocks`` are all blocks, each with a switch ``open``."""

    def __init__(self, n, last=0.5, num_classes=10, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1, self.layer2, self.layer3 = nn.Sequential(), nn.Sequential(), nn.Sequential()
        C, number = 16, 0
        for stage, OC in ((self.layer1, 16), (self.layer2, 32), (self.layer3, 64)):
            for j in range(n):
                number += 1
                stage.append(Block(C, OC, 2 if OC > 16 and j == 0 else 1, 1 - number / (3 * n) * (1 - last)))
                C = OC
        self.fc = nn.Linear(64, num_classes)

    @property
    def blocks(self):
        return [*self.layer1, *self.layer2, *self.layer3]

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.fc(x.mean((2, 3)))

    def take(self, state):
        """Take the weights of a network that divides kept branches by their survival instead."""
        self.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
        for block in self.blocks:
            for p in block.bn2.parameters():
                p.data /= block.survival
