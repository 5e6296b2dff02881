"""A small network with auxiliary heads, the same in PyTorch, and how to make one output of several."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from tinycnn.layers import (
    AvgPool2d,
    BatchNormReLU2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Linear,
    MaxPool2d,
    ReLU,
    Sequential,
)
from tinycnn.layers.base import Layer
from tinycnn.models import NetworkWithHeads


def small(classes=3, dropout=0.0, norm=True, seed=0, wrap=lambda layer: layer, channels=2, heads=True):
    """conv1 ─ pool ─ conv2 ─ conv3 ─ fc, with aux1 behind the pool and aux2 behind conv2."""
    rng = np.random.default_rng(seed)
    after = BatchNormReLU2d if norm else lambda C: ReLU()
    layers = {
        "conv1": Sequential(Conv2d(channels, 4, 3, padding=1, rng=rng), after(4)),
        "pool": MaxPool2d(2),
        "conv2": wrap(Sequential(Conv2d(4, 5, 3, padding=1, rng=rng), after(5))),
        "conv3": Sequential(Conv2d(5, 6, 3, rng=rng), after(6)),
        "aux1": Sequential(AvgPool2d(2), Flatten(), Dropout(dropout, rng=rng), Linear(16, classes, rng=rng)),
        "aux2": Sequential(GlobalAvgPool2d(), Flatten(), Dropout(dropout, rng=rng), Linear(5, classes, rng=rng)),
        "average": GlobalAvgPool2d(),
        "flatten": Flatten(),
        "dropout": Dropout(dropout, rng=rng),
        "fc": Linear(6, classes, rng=rng),
    }
    places = {"pool": "aux1", "conv2": "aux2"}
    if not heads:
        layers, places = {name: layer for name, layer in layers.items() if not name.startswith("aux")}, {}
    auxiliary = [f"{name}.3" for name in places.values()]
    return NetworkWithHeads(layers, places, features="conv3", classifier="fc", auxiliary=auxiliary)


class Small(nn.Module):
    """The same, without dropout."""

    def __init__(self, classes=3, norm=True):
        super().__init__()
        after = nn.BatchNorm2d if norm else lambda C: nn.Identity()
        self.conv1 = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), after(4))
        self.conv2 = nn.Sequential(nn.Conv2d(4, 5, 3, padding=1), after(5))
        self.conv3 = nn.Sequential(nn.Conv2d(5, 6, 3), after(6))
        self.aux1 = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Identity(), nn.Linear(16, classes))
        self.aux2 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity(), nn.Linear(5, classes))
        self.fc = nn.Linear(6, classes)

    def forward(self, x):
        x1 = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x2 = F.relu(self.conv2(x1))
        y = self.fc(F.relu(self.conv3(x2)).mean((2, 3)))
        return (y, self.aux2(x2), self.aux1(x1)) if self.training else y


class Joined(Layer):
    """A network whose scores and heads' scores lie side by side in one array."""

    def __init__(self, model):
        super().__init__()
        self.add("", model)

    def forward(self, x):
        ys = self._children[""].forward(x)
        self.widths = np.cumsum([y.shape[1] for y in ys])[:-1]
        return np.concatenate(ys, axis=1)

    def backward(self, dy):
        return self._children[""].backward(tuple(np.split(dy, self.widths, axis=1)))


def joined(module):
    """Make a module of PyTorch do likewise."""
    forward = module.forward
    module.forward = lambda x: torch.cat(forward(x), 1)
    return module


def images(N=4, dtype=np.float64, shape=(2, 8, 9), seed=0):
    return np.random.default_rng(seed).standard_normal((N, *shape)).astype(dtype)
