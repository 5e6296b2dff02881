"""Network in network, as the authors' definitions for Caffe list it, layer by layer."""

from torch import nn
from torch.nn import functional as F

CIFAR = """
conv1 5 1 2 192 | cccp1 1 1 0 160 | cccp2 1 1 0 96 | max | drop
conv2 5 1 2 192 | cccp3 1 1 0 192 | cccp4 1 1 0 192 | ave | drop
conv3 3 1 1 192 | cccp5 1 1 0 192 | cccp6 1 1 0 classes
"""
IMAGENET = """
conv1 11 4 0 96 | cccp1 1 1 0 96 | cccp2 1 1 0 96 | max
conv2 5 1 2 256 | cccp3 1 1 0 256 | cccp4 1 1 0 256 | max
conv3 3 1 1 384 | cccp5 1 1 0 384 | cccp6 1 1 0 384 | max | drop
conv4 3 1 1 1024 | cccp7 1 1 0 1024 | cccp8 1 1 0 classes
"""
"""Names, then kernel_size, stride, pad and num_output."""


class NiN(nn.Module):
    def __init__(self, table, num_classes, in_channels=3):
        super().__init__()
        self.steps = [step.split() for line in table.strip().splitlines() for step in line.split("|")]
        C = in_channels
        for name, *numbers in self.steps:
            if numbers:
                size, stride, pad, OC = (num_classes if word == "classes" else int(word) for word in numbers)
                self.add_module(name, nn.Conv2d(C, OC, size, stride, pad))
                C = OC

    def forward(self, x):
        for name, *numbers in self.steps:
            if numbers:
                x = F.relu(getattr(self, name)(x))
            elif name == "drop":
                x = F.dropout(x, 0.5, self.training)
            else:
                x = self.pool(x, name)
        return x.mean(dim=(2, 3))

    @staticmethod
    def pool(x, kind):
        """Caffe rounds the number of windows up; the last hold what cells there are, of which ave is the mean."""
        H, W = (2 * -(-(size - 3) // 2) + 3 for size in x.shape[2:])
        wide = (0, W - x.shape[3], 0, H - x.shape[2])
        if kind == "max":
            return F.max_pool2d(F.pad(x, wide, value=-float("inf")), 3, 2)
        ones = F.pad(x.new_ones(1, 1, *x.shape[2:]), wide)
        return F.avg_pool2d(F.pad(x, wide), 3, 2) / F.avg_pool2d(ones, 3, 2)
