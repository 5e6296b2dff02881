"""What the trained network itself has to show: its layers, its filters, and its answers on the test images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import CPU, DeviceError, device_of, resolve_device, to_numpy
from ..data import DataError, Dataset
from ..evaluation import Predictions, predict
from ..layers import Conv2d, Layer, LayerError
from ..layers.summary import Summary
from ..train import CheckpointError, normalization
from ..train.checkpoint import WEIGHTS, Checkpoint, build, preprocessing_of, read
from ..train.images import Photographs, fitted, for_evaluation, load
from .story import Story

WORST = 24
"""Images that are shown."""


@dataclass(frozen=True)
class Evidence:
    """What could be found out; what could not is None, and ``notes`` say why.

    Attributes:
        model: with the best weights.
        epoch: these are of.
        summary: of one image.
        predictions: for the test images, of a finished run.
        worst: (number, (C, H, W) pixels) of the images that it is furthest from telling right.
        notes: what is missing, and why.
    """

    model: Layer | None
    epoch: int | None
    summary: Summary | None
    predictions: Predictions | None
    worst: list[tuple[int, np.ndarray]]
    notes: list[str]


def find(story: Story, device: str | None = None, data_dir: Path | str | None = None) -> Evidence:
    """Look at the network of a run, and let it look at the test images if the run is finished.

    Args:
        story: of the run.
        device, data_dir: where to compute, and where the data are, if not where they were.
    """
    model, epoch, summary, found = None, None, None, None
    worst: list[tuple[int, np.ndarray]] = []
    notes = []
    try:
        checkpoint = read(story.folder, WEIGHTS)
        model, epoch = build(checkpoint), checkpoint.metadata.get("metrics", {}).get("epoch")
        how = preprocessing_of(checkpoint)
        summary = model.summary((1, len(how["mean"]), *how["input_size"]))
        if story.result:
            test = _test_images(story, how, data_dir or story.config.get("data_dir"))
            found = _predictions(model.to(_device(device or story.config.get("device"))), test, checkpoint)
            worst = [(int(i), _image(test, int(i))) for i in found.most_wrong(WORST)]
        else:
            notes.append("The run is not finished. The test images are looked at once, when it is.")
    except (CheckpointError, DataError, LayerError, ValueError, OSError, MemoryError) as error:
        notes.append(f"Some of the report is missing: {' '.join(str(error).split()) or type(error).__name__}.")
    return Evidence(model, epoch, summary, found, worst, notes)


def _device(wanted: Any) -> str:
    try:
        return resolve_device(wanted or CPU)
    except (DeviceError, ValueError):
        return CPU


def _test_images(story: Story, how: dict[str, Any], data_dir: Path | str | None) -> Dataset | Photographs:
    """Return the images that the network was trained for.

    Raises:
        DataError: it is not here, or has become another.
    """
    test: Dataset | Photographs = load(how["data"], "test", data_dir, **story.settings.get("data_options") or {})
    if list(test.classes) != how["classes"] or test.shape[0] != len(how["mean"]):
        raise DataError(f"{how['data']}: has other classes or channels than the images that the network was trained on")
    return test


def _predictions(model: Layer, test: Dataset | Photographs, checkpoint: Checkpoint) -> Predictions:
    first, how = next(model.parameters()).data, checkpoint.metadata["preprocessing"]
    scale = normalization.of_checkpoint(checkpoint, str(first.dtype))
    part = fitted(test, tuple(how["input_size"]))
    loader = for_evaluation(part, scale, how.get("normalize", "standard"), device_of(first))
    return predict(model, loader, classes=test.classes)


def _image(test: Dataset | Photographs, i: int) -> np.ndarray:
    """Return an image (C, H, W)."""
    return test.get(np.array([i]))[0] if isinstance(test, Photographs) else to_numpy(test.images[i])


def first_filters(model: Layer) -> np.ndarray | None:
    """Return the weights (OC, C, KH, KW) of the first convolution, if the network begins with one."""
    for layer in model.layers():
        if isinstance(layer, Conv2d):
            return to_numpy(layer.weight.data)
    return None
