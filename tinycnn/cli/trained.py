"""Networks that are trained already, as commands name them, and the images that they are measured on."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import parallel
from ..messages import nearest
from .convert import network_of
from .data import ready
from .images import bright_border

NORMALIZATIONS = ("imagenet", "cifar10", "inception", "none")
SPLITS = ("test", "train", "validation")
RUNS = Path("runs")
"""Where ``tinycnn train`` makes the folders of its runs."""


@dataclass(frozen=True)
class Trained:
    """A network on its device, and how images are prepared for it.

    Attributes:
        path: where it comes from.
        model, architecture: the network, and what it is made of.
        how: what a checkpoint says of images: ``data``, ``classes``, ``input_size``, ….
        scale: brings pixels of that size to what the network takes.
        settings: of its run; empty if that is not known.
    """

    path: Path
    model: Any
    architecture: dict[str, Any]
    how: dict[str, Any]
    scale: Callable[[Any], Any]
    settings: dict[str, Any]

    @property
    def like(self) -> Any:
        """One of the weights, for dtype and device."""
        return next(self.model.parameters()).data

    @property
    def input_size(self) -> tuple[int, int]:
        """(H, W) that the network was made for."""
        H, W = self.how["input_size"]
        return H, W


def newest_run() -> str | None:
    """Return the run folder in `RUNS` in which weights were written last; None if there is none."""
    written = {path.parent: path.stat().st_mtime for path in RUNS.glob("*/best.safetensors")}
    return str(max(written, key=lambda folder: written[folder])) if written else None


def open_trained(path: Path, device: str, threads: int | None) -> Trained:
    """Return the network of a run, or of a checkpoint that a run wrote, which says how images are prepared.

    Raises:
        ValueError, DeviceError: there is none; it is damaged, or does not say that; no such device.
    """
    from ..train import normalization
    from ..train.checkpoint import WEIGHTS, CheckpointError, build, preprocessing_of, read
    from ..train.run import read_config

    device = _device(device, threads)
    if _unfinished(path):
        command = f"tinycnn train --resume {shlex.quote(str(path))}"
        raise CheckpointError(f"{path}: no epoch is finished yet: go on with {command}")
    saved = read(path, WEIGHTS)
    how, model = preprocessing_of(saved), build(saved).to(device)
    scale = normalization.of_checkpoint(saved, str(next(model.parameters()).data.dtype))
    config = read_config(path) if (path / "config.json").is_file() else {}
    settings = config.get("settings", {}) | {"data_dir": config.get("data_dir")}
    return Trained(path, model, saved.metadata["architecture"], how, scale, settings)


def open_foreign(
    path: Path,
    name: str | None,
    data: str | None,
    normalize: str | None,
    changes: tuple[list[str] | None, list[str] | None, list[str] | None, str | None],
    device: str,
    threads: int | None,
) -> Trained:
    """Return the network with weights from elsewhere, and what is said of its images.

    Raises:
        ValueError, DeviceError: they do not fit; it is not said; no such device.
    """
    from .. import models
    from ..data import Normalize

    device = _device(device, threads)
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
    scale = Normalize(mean, std, str(next(model.parameters()).data.dtype))
    return Trained(path, model, architecture, how, scale, {})


def _device(name: str, threads: int | None) -> str:
    from ..backend import resolve_device

    if threads is not None:
        parallel.set_num_threads(threads)
    return resolve_device(name)


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


# ---- images ----------------------------------------------------------------------------------------------------


def loader_for(
    trained: Trained, name: str | None, data_dir: Path | None, split: str, scales: tuple[int, ...] = ()
) -> tuple[Any, Any]:
    """Return a loader of a dataset's images, as the network takes them, and the dataset.

    Args:
        trained: the network.
        name, data_dir: of the dataset; by default those that it was trained on.
        split: one of `SPLITS`; ``"validation"`` is what its run has set aside.
        scales: sizes that the images will be brought to: photographs come in the largest of them.

    Raises:
        ValueError, OSError: no such data, or they do not fit the network.
    """
    from ..backend import device_of
    from ..data import registry
    from ..train.images import fitted, for_evaluation

    normalize, size, larger = trained.how.get("normalize", "standard"), trained.input_size, dict[str, Any]()
    if scales and normalize == "standard" and "shorter" in registry.entry(name or trained.how["data"]).options:
        size = max(scales), max(scales)
        larger = {"size": size, "shorter": max(scales)}
    dataset = fitted(images_of(trained, name, data_dir, split, **larger), size)
    return for_evaluation(dataset, trained.scale, normalize, device_of(trained.like)), dataset


def images_of(trained: Trained, name: str | None, data_dir: Path | None, split: str = "test", **options: Any) -> Any:
    """Return a dataset whose images fit the network, in the sizes they have.

    Args:
        trained, name, data_dir, split: as those of `loader_for`.
        options: of the dataset, before those that the network's run had.

    Raises:
        ValueError, OSError: no such data, or they do not fit the network.
    """
    from ..train.images import load

    known = trained.settings.get("data_options", {}) if name in (None, trained.how["data"]) else {}
    name, data_dir = name or trained.how["data"], data_dir or trained.settings.get("data_dir")
    ready(name, data_dir)
    published = load(name, "train" if split == "validation" else split, data_dir, **{**known, **options})
    dataset = _split(trained, published, split)
    _check_fits(trained, dataset)
    return dataset


def as_input(trained: Trained, pixels: Any) -> Any:
    """Return one image (1, C, h, w) as the network takes it: in the size of its dataset's, then in its own, scaled."""
    from ..data import fit_images

    for size in (trained.how["image_size"], trained.input_size):
        pixels = fit_images(pixels, tuple(size))
    return trained.scale(pixels)


def looks_inverted(trained: Trained, pixels: Any) -> bool:
    """Whether a grey image (1, 1, h, w) seems to be ink on paper, where the network has learnt from bright on dark."""
    return trained.architecture["in_channels"] == 1 and max(trained.how["mean"]) < 0.5 and bright_border(pixels)


def _split(trained: Trained, dataset: Any, split: str) -> Any:
    """Return the dataset, or the part of it that the network's run has set aside."""
    from ..train.images import divide

    if split != "validation":
        return dataset
    settings = trained.settings
    if not settings.get("val_fraction"):
        raise ValueError(f"{trained.path}: validation images are known of run folders only, that set some aside")
    return divide(dataset, settings.get("fraction", 1), settings["val_fraction"], settings["seed"])[1]


def _check_fits(trained: Trained, dataset: Any) -> None:
    """Raise ValueError if a dataset's images have other channels than the network takes, or other classes."""
    C, K = trained.architecture["in_channels"], len(trained.how["classes"])
    if dataset.shape[0] != C or dataset.num_classes != K:
        raise ValueError(
            f"{trained.path}: the network takes {C} channels and tells {K} classes apart, {dataset.name} has "
            f"{dataset.shape[0]} and {dataset.num_classes}: choose another dataset"
        )
