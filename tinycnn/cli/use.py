"""``tinycnn eval`` and ``tinycnn predict``: using a trained network, from its file alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .. import parallel
from ..messages import nearest
from .convert import ArgumentOption, DropOption, RenameOption, network_of
from .data import ready
from .errors import FAILED, OUT_OF_MEMORY, CommandError, bad_input
from .images import bright_border, read_image

CheckpointArgument = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file.")]
OptionalCheckpoint = Annotated[Path | None, typer.Argument(help="A run folder, or a checkpoint file.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
ThreadsOption = Annotated[int | None, typer.Option(help="CPU threads. [default: all cores]")]
JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
NORMALIZATIONS = ("imagenet", "cifar10", "inception", "none")


def evaluate(
    checkpoint: OptionalCheckpoint = None,
    data: Annotated[str | None, typer.Option(help="Another dataset than the one it was trained on.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the data files. [default: $TINYCNN_DATA]")] = None,
    split: Annotated[str, typer.Option(help="test or train.")] = "test",
    weights: Annotated[Path | None, typer.Option(help="A file of weights: .pth, .pt, .th, .safetensors.")] = None,
    model_name: Annotated[str | None, typer.Option("--model", help="The network that --weights are of.")] = None,
    normalize: Annotated[str | None, typer.Option(help="imagenet, cifar10, inception or none: for --weights.")] = None,
    rename: RenameOption = None,
    drop: DropOption = None,
    option: ArgumentOption = None,
    device: DeviceOption = "cpu",
    threads: ThreadsOption = None,
    json_line: JsonLine = False,
) -> None:
    """Measure a trained network on the test images.

    Of a run or a checkpoint of tinycnn's, everything is known.  Weights from elsewhere need --model, --data and
    --normalize: images are brought to the network's size, pixels to 0..1, and then the mean is subtracted and the
    result divided by the standard deviation of ImageNet's or CIFAR-10's images, channel by channel (inception: 0.5 and
    0.5, which GoogLeNet's and the Inceptions' published weights expect; none: neither).
    """
    from ..train import NonFiniteError
    from ..train import evaluate as measure

    with bad_input():
        path = checkpoint or weights
        if path is None or (checkpoint and weights):
            raise ValueError("name either a run or a checkpoint, or a file of weights with --weights")
        if weights:
            model, metadata = _foreign(path, model_name, data, normalize, (rename, drop, option), device, threads)
        elif model_name or normalize or rename or drop or option:
            raise ValueError("--model, --normalize, --rename, --drop and --option are for --weights: a run knows them")
        else:
            model, metadata = _load(path, device, threads)
        loader, name = _test_loader(model, metadata, path, data, data_dir, split)
    try:
        means = measure(model, loader)
    except NonFiniteError as error:
        raise CommandError(str(error), FAILED) from error
    except MemoryError as error:
        raise CommandError(OUT_OF_MEMORY, FAILED) from error
    N = len(loader.labels)
    result = {"data": name, "split": split, "images": N, **means, "checkpoint": str(path)}
    result |= {"model": metadata["architecture"]["name"]}
    if split == "test":
        result["test_accuracy"] = means["accuracy"]
    if json_line:
        print(json.dumps(result))
    else:
        right = round(means["accuracy"] * N)
        print(
            f"{name} {split}: accuracy {100 * means['accuracy']:.2f} % ({right:,} of {N:,}), loss {means['loss']:.4f}"
        )


def _load(path: Path, device: str, threads: int | None) -> tuple[Any, dict[str, Any]]:
    """Return the network, on its device, and the checkpoint's metadata, which must say how images are prepared."""
    from ..backend import resolve_device
    from ..train.checkpoint import WEIGHTS, CheckpointError, build, preprocessing_of, read

    if threads is not None:
        parallel.set_num_threads(threads)
    device = resolve_device(device)
    if _unfinished(path):
        command = f"tinycnn train --resume {shlex.quote(str(path))}"
        raise CheckpointError(f"{path}: no epoch is finished yet: go on with {command}")
    saved = read(path, WEIGHTS)
    preprocessing_of(saved)
    return build(saved).to(device), saved.metadata


def _foreign(
    path: Path,
    name: str | None,
    data: str | None,
    normalize: str | None,
    changes: tuple[list[str] | None, list[str] | None, list[str] | None],
    device: str,
    threads: int | None,
) -> tuple[Any, dict[str, Any]]:
    """Return the network with weights from elsewhere, and what a checkpoint's metadata would say of it."""
    from .. import models
    from ..backend import resolve_device

    if threads is not None:
        parallel.set_num_threads(threads)
    device = resolve_device(device)
    if data is None or normalize is None:
        raise ValueError("--weights say nothing of images: name a dataset with --data, and --normalize for its pixels")
    if normalize not in NORMALIZATIONS:
        known = ", ".join(NORMALIZATIONS)
        raise ValueError(f"--normalize: unknown {normalize!r}{nearest(normalize, NORMALIZATIONS)} (known: {known})")
    model = network_of(path, name, *changes).to(device)
    architecture = model.architecture
    mean, std = _normalization(normalize, architecture["in_channels"])
    how = {
        "data": data,
        "input_size": models.architecture(architecture["name"]).input_shape[1:],
        "classes": range(architecture["num_classes"]),
        "mean": mean,
        "std": std,
    }
    return model, {"architecture": architecture, "preprocessing": how}


def _normalization(name: str, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation by channel."""
    from ..data import cifar, imagefolder

    if name in (same := {"none": (0.0, 1.0), "inception": (0.5, 0.5)}):
        mean, std = same[name]
        return (mean,) * channels, (std,) * channels
    source = imagefolder if name == "imagenet" else cifar
    if len(source.MEAN) != channels:
        raise ValueError(f"--normalize {name} is for images of {len(source.MEAN)} channels, not {channels}: use none")
    return source.MEAN, source.STD


def _unfinished(run: Path) -> bool:
    """Whether this is a run folder in which no epoch has ended: a state to go on from, and no weights."""
    weights = (run / f"{name}.safetensors" for name in ("best", "last"))
    return (run / "training_state.safetensors").is_file() and not any(path.exists() for path in weights)


def _test_loader(
    model: Any, metadata: dict[str, Any], checkpoint: Path, name: str | None, data_dir: Path | None, split: str
) -> tuple[Any, str]:
    from .. import data
    from ..backend import device_of, to_device
    from ..train.run import EVALUATION_BATCH, read_config

    how = metadata["preprocessing"]
    name = name or how["data"]
    if data_dir is None and (checkpoint / "config.json").is_file():
        data_dir = read_config(checkpoint).get("data_dir")
    ready(name, data_dir)
    dataset = data.load(name, split, data_dir)
    C, K = metadata["architecture"]["in_channels"], len(how["classes"])
    if dataset.shape[0] != C or dataset.num_classes != K:
        raise ValueError(
            f"{checkpoint}: the network takes {C} channels and tells {K} classes apart, {name} has "
            f"{dataset.shape[0]} and {dataset.num_classes}: choose another dataset"
        )
    first = next(model.parameters()).data
    dataset = data.prepare(dataset, tuple(how["input_size"]))
    normalize = data.Normalize(tuple(how["mean"]), tuple(how["std"]), str(first.dtype))
    images, labels = (to_device(array, device_of(first)) for array in (dataset.images, dataset.labels))
    return data.Loader(images, labels, EVALUATION_BATCH, shuffle=False, normalize=normalize), name


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
        model, metadata = _load(checkpoint, device, threads)
        how = metadata["preprocessing"]
        pixels = [read_image(path, metadata["architecture"]["in_channels"], invert) for path in images]
        probabilities = _probabilities(model, how, pixels)
    results = [
        {"image": str(path), **_ranking(p, how["classes"], top)} for path, p in zip(images, probabilities, strict=True)
    ]
    for path, x in zip(images, pixels, strict=True):
        if not invert and max(how["mean"]) < 0.5 and bright_border(x):
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


def _probabilities(model: Any, how: dict[str, Any], pixels: list[np.ndarray]) -> list[np.ndarray]:
    from .. import data
    from ..backend import device_of, to_device, to_numpy
    from ..losses import softmax

    first = next(model.parameters()).data
    normalize = data.Normalize(tuple(how["mean"]), tuple(how["std"]), str(first.dtype))
    found = []
    for x in pixels:
        for size in (how["image_size"], how["input_size"]):
            x = data.fit_images(x, tuple(size))
        logits = model.forward(to_device(normalize(x), device_of(first)))
        found.append(to_numpy(softmax(logits))[0])
    return found


def _ranking(p: np.ndarray, classes: list[str], top: int) -> dict[str, Any]:
    order = np.argsort(-p, kind="stable")[:top]
    ranked = [{"class": classes[k], "label": int(k), "probability": float(p[k])} for k in order]
    return {"class": ranked[0]["class"], "probability": ranked[0]["probability"], "top": ranked}
