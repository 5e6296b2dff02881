"""VGG, written from table 1 of the paper, column by column."""

from torch import nn
from torch.nn import functional as F

TABLE_1 = {
    11: "64 | 128 | 256 256 | 512 512 | 512 512 |",
    13: "64 64 | 128 128 | 256 256 | 512 512 | 512 512 |",
    16: "64 64 | 128 128 | 256 256 256 | 512 512 512 | 512 512 512 |",
    19: "64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512 |",
}
"""The channels of conv3-channels, a bar for each maxpool; column D for 16 and E for 19."""


class VGG(nn.Module):
    """`hidden` is None for the form with a single linear layer on images of 32×32."""

    def __init__(self, depth, batch_norm=False, num_classes=1000, in_channels=3, hidden=4096, dropout=0.5):
        super().__init__()
        layers, C = [], in_channels
        for word in TABLE_1[depth].split():
            if word == "|":
                layers.append(nn.MaxPool2d(2, 2))
                continue
            layers.append(nn.Conv2d(C, int(word), kernel_size=3, padding=1))
            C = int(word)
            if batch_norm:
                layers.append(nn.BatchNorm2d(C))
            layers.append(nn.ReLU())
        self.features = nn.Sequential(*layers)
        if hidden is None:
            self.classifier = nn.Linear(512, num_classes)
        else:
            fc6, fc7, fc8 = nn.Linear(25088, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, num_classes)
            drop6, drop7 = nn.Dropout(dropout), nn.Dropout(dropout)
            self.classifier = nn.Sequential(fc6, nn.ReLU(), drop6, fc7, nn.ReLU(), drop7, fc8)

    def forward(self, x):
        x = self.features(x)
        if isinstance(self.classifier, nn.Sequential):
            x = F.adaptive_avg_pool2d(x, 7)
        return self.classifier(x.flatten(1))
