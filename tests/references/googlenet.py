"""GoogLeNet from the paper's table 1 and figures 2 and 3, and as torchvision's keys and options describe its own."""

import torch
from torch import nn
from torch.nn import functional as F

TABLE_1 = """
3a  192   64   96 128  16  32   32
3b  256  128  128 192  32  96   64
4a  480  192   96 208  16  48   64
4b  512  160  112 224  24  64   64
4c  512  128  128 256  24  64   64
4d  512  112  144 288  32  64   64
4e  528  256  160 320  32 128  128
5a  832  256  160 320  32 128  128
5b  832  384  192 384  48 128  128
"""


class ConvNormReLU(nn.Module):
    """torchvision's kind of convolution."""

    def __init__(self, C, OC, k, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(C, OC, k, stride, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(OC, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class ConvReLU(nn.Module):
    """The paper's."""

    def __init__(self, C, OC, k, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(C, OC, k, stride, k // 2)

    def forward(self, x):
        return F.relu(self.conv(x))


class Inception(nn.Module):
    def __init__(self, conv, third, C, c1, r3, c3, r5, c5, p):
        super().__init__()
        self.branch1 = conv(C, c1, 1)
        self.branch2 = nn.Sequential(conv(C, r3, 1), conv(r3, c3, 3))
        self.branch3 = nn.Sequential(conv(C, r5, 1), conv(r5, c5, third))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv(C, p, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Head(nn.Module):
    def __init__(self, conv, pool, C, classes, p):
        super().__init__()
        self.conv = conv(C, 128, 1)
        self.fc1 = nn.Linear(2048, 1024)
        self.fc2 = nn.Linear(1024, classes)
        self.pool, self.dropout = pool, nn.Dropout(p)

    def forward(self, x):
        x = self.conv(self.pool(x)).flatten(1)
        return self.fc2(self.dropout(F.relu(self.fc1(x))))


class GoogLeNet(nn.Module):
    """Either of them; ``paper`` says which.  In training with heads it returns (scores, aux2's, aux1's)."""

    def __init__(self, classes=1000, in_channels=3, heads=False, paper=False, dropout=0.0, aux_dropout=0.0):
        super().__init__()
        conv = ConvReLU if paper else ConvNormReLU
        self.paper, self.heads = paper, heads
        self.conv1 = conv(in_channels, 64, 7, 2)
        self.conv2 = conv(64, 64, 1)
        self.conv3 = conv(64, 192, 3)
        for line in TABLE_1.strip().splitlines():
            name, *widths = line.split()
            setattr(self, f"inception{name}", Inception(conv, 5 if paper else 3, *map(int, widths)))
        if heads:
            for name, C in (("aux1", 512), ("aux2", 528)):
                pool = nn.AvgPool2d(5, 3) if paper else nn.AdaptiveAvgPool2d((4, 4))
                setattr(self, name, Head(conv, pool, C, classes, aux_dropout))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, classes)
        self.compete = nn.LocalResponseNorm(5, 1e-4, 0.75) if paper else nn.Identity()

    def forward(self, x):
        x = self.compete(F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True))
        x = self.compete(self.conv3(self.conv2(x)))
        x = self.inception3b(self.inception3a(F.max_pool2d(x, 3, 2, ceil_mode=True)))
        a = self.inception4a(F.max_pool2d(x, 3, 2, ceil_mode=True))
        d = self.inception4d(self.inception4c(self.inception4b(a)))
        x = F.max_pool2d(self.inception4e(d), 3 if self.paper else 2, 2, ceil_mode=True)
        x = self.inception5b(self.inception5a(x))
        y = self.fc(self.dropout(x.mean((2, 3))))
        return (y, self.aux2(d), self.aux1(a)) if self.heads and self.training else y
