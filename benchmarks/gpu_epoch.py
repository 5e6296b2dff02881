"""``epoch``: one epoch of CIFAR-10 through ResNet-20 on a GPU, everything included, on synthetic pixels.

50,000 images lie on the card as bytes; every batch of 128 is gathered, moved by up to four pixels, mirrored and
normalised there, and learnt from.  The first epoch compiles and captures; the second is what counts.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import tinycnn
from tinycnn.data import Augment, DeviceLoader, Normalize
from tinycnn.train.trainer import Trainer

from .gpu_rig import Rig, matched
from .networks import NETS

CASES = ("resnet20 tf32", "resnet20 float32", "resnet20 bf16", "lenet5 float32")
IMAGES, N = 50_000, 128
EPOCHS = 3


def cases(rig: Rig) -> list[str]:
    """Return the names of what is measured."""
    return ["lenet5 float32"] if rig.tiny else list(CASES)


def measure(rig: Rig, case: str) -> dict[str, Any]:
    """Return the seconds of every epoch."""
    name, precision = case.split()
    count, n = (20, 4) if rig.tiny else (IMAGES, N)
    C, H, W = NETS[name].image
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, C, H, W), np.uint8)
    labels = rng.integers(0, 10, count)
    normalize = Normalize((0.5,) * C, (0.25,) * C)
    loader = DeviceLoader(images, labels, n, transform=Augment(shift=4, mirror=True), normalize=normalize)
    with matched(precision):
        model = NETS[name].build(0).to("cuda")
        optimizer = tinycnn.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        trainer = Trainer(model, optimizer, tinycnn.CrossEntropyLoss(), precision=precision)
        seconds = []
        for epoch in range(2 if rig.tiny else EPOCHS):
            rig.synchronize()
            begin = time.perf_counter()
            trainer.fit(loader, epoch + 1)
            rig.synchronize()
            seconds.append(time.perf_counter() - begin)
    return {
        "net": name,
        "title": NETS[name].title,
        "precision": precision,
        "images": count,
        "batch": n,
        "first": seconds[0],
        "epoch": min(seconds[1:]),
        "all": seconds,
        "images_per_second": count / min(seconds[1:]),
        "state": trainer.captured.state,
        "reason": trainer.captured.reason,
        "loss": trainer.history[-1]["train_loss"],
    }
