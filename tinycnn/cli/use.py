"""``tinycnn eval`` and ``tinycnn predict``: using trained networks, from their files alone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .convert import ArgumentOption, DropOption, KeyOption, RenameOption
from .errors import bad_input
from .images import read_image
from .look import Look, Measured, class_table, more_words_for, one_dataset, sizes, summary, words_for
from .trained import Trained, as_input, looks_inverted, open_foreign, open_trained

CheckpointArgument = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file.")]
CheckpointsArgument = Annotated[
    list[Path] | None, typer.Argument(help="Run folders, or checkpoint files.", metavar="[CHECKPOINTS]...")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads. [default: all cores]")]
JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def evaluate(
    checkpoints: CheckpointsArgument = None,
    data: Annotated[str | None, typer.Option(help="Another dataset than the one it was trained on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data files. [default: $TINYCNN_DATA]")] = None,
    split: Annotated[str, typer.Option(help="test, train, or validation: what the run has set aside.")] = "test",
    views: Annotated[str, typer.Option(help="single, mirrored, ten-crop or multi-scale.")] = "single",
    scales: Annotated[str | None, typer.Option(help="Sizes that images are brought to before: 256,288.")] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Show precision, recall and F1 of each.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Divide scores by the temperature that fits the validation images.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all that is measured, as JSON.")] = None,
    confusion: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the confusion matrix, a PNG.")] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw accuracy by confidence, a PNG.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="A file of weights: .pth, .pt, .th, .safetensors.")] = None,
    model_name: Annotated[str | None, typer.Option("--model", help="The network that --weights are of.")] = None,
    normalize: Annotated[str | None, typer.Option(help="imagenet, cifar10, inception or none: for --weights.")] = None,
    rename: RenameOption = None,
    drop: DropOption = None,
    option: ArgumentOption = None,
    key: KeyOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    json_line: JsonLine = False,
) -> None:
    """Measure a trained network on the test images, or several and their mean: an ensemble.

    Of a run or a checkpoint of tinycnn's, everything is known.  Weights from elsewhere need --model, --data and
    --normalize: images are brought to the network's size, pixels to 0..1, and then the mean is subtracted and the
    result divided by the standard deviation of ImageNet's or CIFAR-10's images, channel by channel (inception: 0.5 and
    0.5, which GoogLeNet's and the Inceptions' published weights expect; none: neither).

    Each image is looked at once, or in several views, whose probabilities are averaged: with its mirror image; in ten
    crops of the network's size (of images 8/7 as large, or of --scales); or whole in several sizes, and mirrored.  With
    --scales, single and mirrored look at the middle: --scales 256 is how published weights for 224 pixels are measured.
    """
    with bad_input():
        if bool(checkpoints) == bool(weights):
            raise ValueError("name either a run or a checkpoint, or a file of weights with --weights")
        look = Look(views, sizes(scales), split)
        files = Files(report, confusion, calibration)
        if weights:
            changes = rename, drop, option, key
            members = [open_foreign(weights, model_name, data, normalize, changes, device, threads)]
        elif model_name or normalize or rename or drop or option or key:
            words = "--model, --normalize, --rename, --drop, --option and --key are for --weights: a run knows them"
            raise ValueError(words)
        else:
            members = [open_trained(path, device, threads) for path in checkpoints or []]
        data = one_dataset(members, data)
        if calibrate and split != "test":
            raise ValueError("--calibrate fits a temperature to the validation images, and is for --split test")
    measured = [look.measure(one, data, data_dir) for one in members]
    found, loss = _together(measured)
    result = {"data": measured[0].data, "split": split, **summary(found, loss), **_which(look, measured)}
    lines = _lines(look, measured, found, loss)
    if calibrate:
        held_out = [look.at_validation().measure(one, data, data_dir) for one in members]
        found = _calibrated(found, _together(held_out)[0], result, lines)
    if per_class:
        lines.append(class_table(found))
    files.write(result, found)
    print(json.dumps(result) if json_line else "\n".join(lines))


def _together(measured: list[Measured]) -> tuple[Any, float]:
    """Return predictions and loss of one network, or of the mean of several."""
    from ..evaluation import average

    if len(measured) == 1:
        return measured[0].found, measured[0].loss
    with bad_input():
        try:
            found = average([one.found for one in measured])
        except ValueError as error:
            raise ValueError(f"{measured[0].data} {measured[0].split}: {error}") from None
    return found, found.loss


def _which(look: Look, measured: list[Measured]) -> dict[str, Any]:
    """Return which networks were measured, and how."""
    first, several = measured[0], len(measured) > 1
    which: dict[str, Any] = {"views": look.views}
    if several:
        which["members"] = [one.to_dict() for one in measured]
    else:
        which |= {name: first.to_dict()[name] for name in ("scales", "checkpoint", "model")}
    return which | ({"test_accuracy": _together(measured)[0].accuracy} if look.split == "test" else {})


def _lines(look: Look, measured: list[Measured], found: Any, loss: float) -> list[str]:
    """Return the result in words."""
    what = look.words(measured[0])
    lines = [f"{one.trained.path}: {words_for(one.found, one.loss)}" for one in measured if len(measured) > 1]
    what = f"mean of {len(measured)}, {what}" if lines else what
    return [*lines, f"{what}: {words_for(found, loss)}", more_words_for(found)]


def _calibrated(found: Any, held_out: Any, result: dict[str, Any], lines: list[str]) -> Any:
    """Return the predictions at the temperature that fits held-out images, and say so."""
    from ..evaluation import fit_temperature

    T = fit_temperature(held_out.probabilities, held_out.labels)
    cooled = found.at_temperature(T)
    result["calibrated"] = {"temperature": T, "fitted_to": len(held_out), **summary(cooled, cooled.loss)}
    error = 100 * cooled.calibration().error
    lines.append(
        f"at temperature {T:.3f}, fitted to {len(held_out):,} validation images: loss {cooled.loss:.4f}, "
        f"calibration error {error:.2f} %"
    )
    return cooled


@dataclass(frozen=True)
class Files:
    """What an evaluation is to write.

    Raises:
        ValueError: a folder is not there, or a picture cannot be drawn here.
    """

    report: Path | None
    confusion: Path | None
    calibration: Path | None

    def __post_init__(self) -> None:
        for path in filter(None, (self.report, self.confusion, self.calibration)):
            if not path.parent.is_dir():
                raise ValueError(f"{path}: there is no folder {path.parent}: make it, or name another")
        if (self.confusion or self.calibration) and find_spec("matplotlib") is None:
            raise ValueError("pictures need matplotlib: pip install 'tinycnn[plot]'")

    def write(self, result: dict[str, Any], found: Any) -> None:
        """Write the files that are wanted."""
        from ..evaluation import draw_calibration, draw_confusion
        from ..files import write_json

        with bad_input():
            if self.report:
                write_json(self.report, found.to_dict() | result)
            if self.confusion:
                draw_confusion(found, self.confusion)
            if self.calibration:
                draw_calibration(found, self.calibration)


def predict(
    checkpoint: CheckpointArgument,
    images: Annotated[list[Path], typer.Argument(help="PNG, JPEG, …, or .npy arrays.")],
    top: Annotated[int, typer.Option(help="How many classes to show.")] = 3,
    invert: Annotated[bool, typer.Option("--invert", help="Turn dark on bright into bright on dark.")] = False,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    json_line: JsonLine = False,
) -> None:
    """Say what is on images.

    They are prepared as the training images were: brought to the dataset's size, then to the network's.  Colour is
    dropped for a network of grey images, transparent pixels count as white, and nothing is inverted unasked:
    MNIST and the like are bright on dark, a scan of ink on paper needs --invert.
    """
    with bad_input():
        if top < 1:
            raise ValueError(f"--top must be at least 1, got {top}")
        trained = open_trained(checkpoint, device, threads)
        how = trained.how
        pixels = [read_image(path, trained.architecture["in_channels"], invert) for path in images]
        probabilities = _probabilities(trained, pixels)
    results = [
        {"image": str(path), **_ranking(p, how["classes"], top)} for path, p in zip(images, probabilities, strict=True)
    ]
    for path, x in zip(images, pixels, strict=True):
        if not invert and looks_inverted(trained, x):
            hint = "is dark on bright, unlike the training images: try --invert"
            typer.echo(f"tinycnn: note: {path} {hint}", err=True)
    if json_line:
        print(json.dumps({"predictions": results}))
        return
    for result in results:
        print(
            f"{result['image']}: "
            + ", ".join(f"{one['class']} {100 * one['probability']:.1f} %" for one in result["top"])
        )


def _probabilities(trained: Trained, pixels: list[np.ndarray]) -> list[np.ndarray]:
    from ..backend import device_of, to_device, to_numpy
    from ..losses import softmax

    found = []
    for x in pixels:
        logits = trained.model.forward(to_device(as_input(trained, x), device_of(trained.like)))
        found.append(to_numpy(softmax(logits))[0])
    return found


def _ranking(p: np.ndarray, classes: list[str], top: int) -> dict[str, Any]:
    order = np.argsort(-p, kind="stable")[:top]
    ranked = [{"class": classes[k], "label": int(k), "probability": float(p[k])} for k in order]
    return {"class": ranked[0]["class"], "probability": ranked[0]["probability"], "top": ranked}
