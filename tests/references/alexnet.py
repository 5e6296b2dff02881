"""AlexNet twice: as described in the paper of 2012, and as in footnote 1 of "One weird trick"."""

import torch
from torch import nn
from torch.nn import functional as F


class AlexNet(nn.Module):
    def __init__(self, num_classes=1000, in_channels=3, hidden=4096):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, 4, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, 1, 2),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Linear(9216, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), (6, 6)).flatten(1))


def compete(x, n=5, k=2.0, alpha=1e-4, beta=0.75):
    """Section 3.3, its sum written out: b[i] = a[i] / (k + α Σ_{j = max(0, i − n/2)}^{min(C − 1, i + n/2)} a[j]²)^β."""
    C = x.shape[1]
    sums = [(x[:, max(0, i - n // 2) : min(C - 1, i + n // 2) + 1] ** 2).sum(1) for i in range(C)]
    return x / (k + alpha * torch.stack(sums, 1)) ** beta


class AlexNet2012(nn.Module):
    def __init__(self, num_classes=1000, in_channels=3, hidden=4096):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, 1, 2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, 1, 1)
        self.conv4 = nn.Conv2d(384, 384, 3, 1, 1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, 1, 1, groups=2)
        self.fc6 = nn.Linear(9216, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)

    def features(self, x):
        x = F.max_pool2d(compete(F.relu(self.conv1(x))), 3, 2)
        x = F.max_pool2d(compete(F.relu(self.conv2(x))), 3, 2)
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        return F.max_pool2d(F.relu(self.conv5(x)), 3, 2)

    def forward(self, x):
        x = F.dropout(F.relu(self.fc6(self.features(x).flatten(1))), 0.5, self.training)
        return self.fc8(F.dropout(F.relu(self.fc7(x)), 0.5, self.training))
