"""Inception-v4 and Inception-ResNet-v2 as trees of words, figure by figure, and a module that follows them.

A word is a convolution with normalisation and ReLU: height and width of its window, channels, and ``v`` where the
figure says V, ``s`` where it says stride 2.  ``max`` and ``avg`` are pools.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Conv(nn.Module):
    def __init__(self, C, word):
        super().__init__()
        size, OC = word.rstrip("vs").split("-")
        KH, KW = (int(digit) for digit in size)
        padding = (0, 0) if word[-1] in "vs" else ((KH - 1) // 2, (KW - 1) // 2)
        self.conv = nn.Conv2d(C, int(OC), (KH, KW), 2 if word[-1] == "s" else 1, padding, bias=False)
        self.bn = nn.BatchNorm2d(int(OC), eps=0.001)
        self.width = int(OC)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


def pool(word):
    if word == "max":
        return nn.MaxPool2d(3, stride=2)
    return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)


class Branches(nn.Module):
    """``{name: "word word …"}``; a branch of one word is no sequence."""

    def __init__(self, C, branches):
        super().__init__()
        self.order = list(branches)
        self.width = 0
        for name, words in branches.items():
            steps, width = [], C
            for word in words.split():
                steps.append(pool(word) if word in ("max", "avg") else Conv(width, word))
                width = getattr(steps[-1], "width", width)
            self.add_module(name, steps[0] if len(steps) == 1 else nn.Sequential(*steps))
            self.width += width

    def forward(self, x):
        return torch.cat([getattr(self, name)(x) for name in self.order], dim=1)


STEM_3, STEM_4, STEM_5 = (  # figure 3
    {"maxpool": "max", "conv": "33-96s"},
    {"branch0": "11-64 33-96v", "branch1": "11-64 17-64 71-64 33-96v"},
    {"conv": "33-192s", "maxpool": "max"},
)
A = {"branch0": "11-96", "branch1": "11-64 33-96", "branch2": "11-64 33-96 33-96", "branch3": "avg 11-96"}  # figure 4
B = {  # figure 5
    "branch0": "11-384",
    "branch1": "11-192 17-224 71-256",
    "branch2": "11-192 71-192 17-224 71-224 17-256",
    "branch3": "avg 11-128",
}
TO_17 = {"branch0": "33-384s", "branch1": "11-192 33-224 33-256s", "branch2": "max"}  # figure 7
TO_8 = {"branch0": "11-192 33-192s", "branch1": "11-256 17-256 71-320 33-320s", "branch2": "max"}  # figure 8


FORKED = {  # figure 6: channels of the input, and the convolution
    "branch0": (1536, "11-256"),
    "branch1_0": (1536, "11-384"),
    "branch1_1a": (384, "13-256"),
    "branch1_1b": (384, "31-256"),
    "branch2_0": (1536, "11-384"),
    "branch2_1": (384, "31-448"),
    "branch2_2": (448, "13-512"),
    "branch2_3a": (512, "13-256"),
    "branch2_3b": (512, "31-256"),
}


class C(nn.Module):
    """The middle branches fork."""

    def __init__(self):
        super().__init__()
        for name, (width, word) in FORKED.items():
            self.add_module(name, Conv(width, word))
        self.branch3 = nn.Sequential(pool("avg"), Conv(1536, "11-256"))

    def forward(self, x):
        b = self._modules
        short = b["branch1_0"](x)
        long = b["branch2_2"](b["branch2_1"](b["branch2_0"](x)))
        forks = b["branch1_1a"](short), b["branch1_1b"](short), b["branch2_3a"](long), b["branch2_3b"](long)
        return torch.cat([b["branch0"](x), *forks, b["branch3"](x)], dim=1)


class InceptionV4(nn.Module):
    def __init__(self, blocks=(4, 7, 3), num_classes=1000, in_channels=3, dropout=0.2):
        super().__init__()
        stem = [Conv(in_channels, "33-32s"), Conv(32, "33-32v"), Conv(32, "33-64")]
        stem += [Branches(64, STEM_3), Branches(160, STEM_4), Branches(192, STEM_5)]
        first = [Branches(384, A) for _ in range(blocks[0])]
        second = [Branches(1024, B) for _ in range(blocks[1])]
        third = [C() for _ in range(blocks[2])]
        self.features = nn.Sequential(*stem, *first, Branches(384, TO_17), *second, Branches(1024, TO_8), *third)
        self.last_linear = nn.Linear(1536, num_classes)
        self.dropout = dropout

    def forward(self, x):
        return self.last_linear(F.dropout(self.features(x).mean((2, 3)), self.dropout, self.training))


MIXED_5B = {"branch0": "11-96", "branch1": "11-48 55-64", "branch2": "11-64 33-96 33-96", "branch3": "avg 11-64"}
BLOCK_35 = {"branch0": "11-32", "branch1": "11-32 33-32", "branch2": "11-32 33-48 33-64"}  # figure 16
MIXED_6A = {"branch0": "33-384s", "branch1": "11-256 33-256 33-384s", "branch2": "max"}
BLOCK_17 = {"branch0": "11-192", "branch1": "11-128 17-160 71-192"}  # figure 17
MIXED_7A = {  # figure 18
    "branch0": "11-256 33-384s",
    "branch1": "11-256 33-288s",
    "branch2": "11-256 33-288 33-320s",
    "branch3": "max",
}
BLOCK_8 = {"branch0": "11-192", "branch1": "11-192 13-224 31-256"}  # figure 19


class Scaled(Branches):
    """Figure 20."""

    def __init__(self, C, branches, scale, relu=True):
        super().__init__(C, branches)
        self.conv2d = nn.Conv2d(self.width, C, 1)
        self.scale, self.relu = scale, relu

    def forward(self, x):
        y = x + self.scale * self.conv2d(super().forward(x))
        return torch.clamp(y, min=0) if self.relu else y


class InceptionResNetV2(nn.Module):
    def __init__(self, blocks=(10, 20, 10), num_classes=1000, in_channels=3, dropout=0.2):
        super().__init__()
        self.conv2d_1a = Conv(in_channels, "33-32s")
        self.conv2d_2a = Conv(32, "33-32v")
        self.conv2d_2b = Conv(32, "33-64")
        self.maxpool_3a = pool("max")
        self.conv2d_3b = Conv(64, "11-80")
        self.conv2d_4a = Conv(80, "33-192v")
        self.maxpool_5a = pool("max")
        self.mixed_5b = Branches(192, MIXED_5B)
        self.repeat = nn.Sequential(*[Scaled(320, BLOCK_35, 0.17) for _ in range(blocks[0])])
        self.mixed_6a = Branches(320, MIXED_6A)
        self.repeat_1 = nn.Sequential(*[Scaled(1088, BLOCK_17, 0.10) for _ in range(blocks[1])])
        self.mixed_7a = Branches(1088, MIXED_7A)
        self.repeat_2 = nn.Sequential(*[Scaled(2080, BLOCK_8, 0.20) for _ in range(blocks[2] - 1)])
        self.block8 = Scaled(2080, BLOCK_8, 1.0, relu=False)
        self.conv2d_7b = Conv(2080, "11-1536")
        self.classif = nn.Linear(1536, num_classes)
        self.dropout = dropout

    def forward(self, x):
        for name, module in self.named_children():
            if name != "classif":
                x = module(x)
        return self.classif(F.dropout(x.mean((2, 3)), self.dropout, self.training))
