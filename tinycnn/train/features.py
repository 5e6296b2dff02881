"""What frozen layers compute, computed once and kept in a file.

A network that is not trained gives the same features for the same image every time.  So they are computed once, and a
shallow model learns from the file, in a fraction of the time: the way to learn from few images::

    features = save_features(network, loader, "ants.safetensors")       # what comes to the classifier
    shallow = Sequential(Linear(features.x.shape[1], 2))
    Trainer(shallow, optim.AdamW(shallow.parameters()), CrossEntropyLoss()).fit(features.loader(32), epochs=50)

The file is safetensors with two arrays, ``features`` and ``labels``, and is mapped into memory: what is not looked at
is not read, so it may be larger than memory.  Feature maps lie channels-last, (N, H, W, C).  It also says what they
were computed from (architecture, digests of weights and of images), so that a file from other weights is noticed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..backend import Array, device_of, to_device, to_numpy
from ..data import Loader, Normalize
from ..layers.base import Layer
from ..layers.state import arrays_of
from ..layers.watch import forward_to, input_of, undisturbed, watched
from .checkpoint import describe
from .mapped import CheckpointError, PathLike
from .tensors import Stream, parts_of, read_tensors, write_tensors
from .trainer import Batches

KIND = "features"
INPUT_OF_CLASSIFIER = ""
"""In place of a layer's name."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False, repr=False)
class Features:
    """Features of labelled images, in a file that is mapped into memory.

    Attributes:
        path: of the file.
        x: (N, F), or (N, C, H, W) on channels-last memory; not to be written to.
        labels: (N, …).
        metadata: ``architecture``, ``layer`` and what else the file says of its origin.
    """

    path: Path
    x: np.ndarray
    labels: np.ndarray
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.x)

    def loader(self, batch_size: int, **options: Any) -> Loader:
        """Return a `Loader` of the features, with its options."""
        return Loader(self.x, self.labels, batch_size, **options)

    def __repr__(self) -> str:
        layer = self.metadata["layer"]
        what = f"the output of {layer}" if layer else "what comes to the classifier"
        return f"Features({self.path}: {what} for {len(self):,} images, {self.x.dtype} {self.x.shape})"


def save_features(
    model: Layer,
    images: Batches | Array,
    path: PathLike,
    layer: str | None = None,
    labels: Array | None = None,
    progress: Progress | None = None,
) -> Features:
    """Compute the features of images in evaluation mode and keep them in a file; where they are there, take those.

    They are computed anew if weights that they depend on, images or layer are not those of the file.  The classifier
    is none of these weights: it may have been trained or replaced.

    Args:
        model: the network, which stays as it is.
        images: a loader, of whose epoch 0 each image is taken once (one that neither shuffles nor augments, then); or
            an array (N, C, H, W) of floats as the network takes them.
        path: of the file, conventionally ``.safetensors``; replaced in one step.
        layer: whose output to keep, as in `Network.forward_to`; by default what comes to the classifier, which is one
            vector for each image in most networks.
        labels: of the images, where those are an array.
        progress: called with the number of batches done and of all.

    Raises:
        LayerError: no such layer.
        ValueError: an array without labels; a network that does not say where its classifier is.
        OSError: the file cannot be written.
    """
    if not hasattr(images, "epoch"):
        if labels is None:
            raise ValueError("save_features: images in an array need labels")
        images = Loader(images, to_numpy(labels), 64, shuffle=False)
    path, name = Path(path), INPUT_OF_CLASSIFIER if layer is None else layer
    with undisturbed(model), np.errstate(over="ignore", invalid="ignore"):
        model.eval()
        one, labels, digest = _look_at(images)
        shape, dtype, parts = _try(model, one, name)
        normalize = getattr(images, "normalize", None)
        origin = {
            **parts,
            "layer": name,
            "images": digest,
            "labels": _digest({"labels": labels}),
            "image_shape": one.shape[1:],
            "preprocessing": asdict(normalize) if isinstance(normalize, Normalize) else None,
        }
        if (found := _if_whole(path)) is not None and _same(found.metadata, origin):
            return found
        text = {key: json.dumps(value) for key, value in {"tinycnn": __version__, "kind": KIND, **origin}.items()}
        stream = Stream((len(labels), *shape), dtype, _computed(model, images, name, progress))
        write_tensors(path, {"features": stream, "labels": labels}, text)
    return load_features(path)


def load_features(path: PathLike, model: Layer | None = None) -> Features:
    """Open a file that `save_features` wrote.

    Args:
        path: of the file.
        model: the network that the features should be of.

    Raises:
        CheckpointError: missing, damaged, no features, or of a network with other weights than ``model``.
    """
    tensors = read_tensors(path)
    if json.loads(tensors.extra.get("kind", "null")) != KIND:
        raise CheckpointError(f"{path}: holds no features: make such a file with tinycnn.train.save_features")
    metadata = {key: json.loads(text) for key, text in tensors.extra.items()}
    if model is not None:
        now = {"architecture": _architecture(model), "weights": _weights(model, metadata["without"])}
        if not _same(metadata, now):
            theirs = describe(metadata["architecture"]) if metadata["architecture"] else "a network"
            raise CheckpointError(
                f"{path}: stale: computed by {theirs}, with other weights or options "
                "than this network's: compute the features again with save_features"
            )
    x = tensors["features"]
    # (N, H, W, C) -> (N, C, H, W)
    return Features(Path(path), x.transpose(0, 3, 1, 2) if x.ndim == 4 else x, tensors["labels"], metadata)


# ---- where they come from --------------------------------------------------------------------------------------


def _look_at(images: Batches) -> tuple[Array, np.ndarray, str]:
    """Go through all images.  Returns one of them, all labels, and a digest of the images."""
    digest, labels, one = hashlib.blake2b(digest_size=16), list[np.ndarray](), None
    for x, y in images.epoch(0):
        for part in parts_of(x):
            digest.update(part)
        labels.append(to_numpy(y))
        one = x[:1] if one is None else one
    if one is None:
        raise ValueError("save_features: the loader has no batches")
    return one, np.concatenate(labels), f"{one.dtype} {digest.hexdigest()}"


def _try(model: Layer, one: Array, name: str) -> tuple[tuple[int, ...], np.dtype, dict[str, Any]]:
    """Send one image through the network.  Returns shape and type of its features, and what they depend on."""
    finished = set[Layer]()
    with watched(model, lambda layer, x, y: finished.add(layer)):
        y = _features(model, one, name)
    without = _left_out(model, finished)
    parts = {"architecture": _architecture(model), "weights": _weights(model, without), "without": without}
    return y.shape[1:], y.dtype, parts


def _architecture(model: Layer) -> dict[str, Any] | None:
    """Return the arguments that the network was built from, but for what its classifier has."""
    known = getattr(model, "architecture", None)
    return known and {key: value for key, value in known.items() if key != "num_classes"}


def _weights(model: Layer, without: list[str]) -> str:
    """Return a digest of all parameters and buffers, without those of these layers."""
    apart = tuple(f"{name}." for name in without)
    return _digest({name: x for name, x in arrays_of(model).items() if not name.startswith(apart)})


def _digest(arrays: Mapping[str, Array]) -> str:
    """Return a digest of names, types, shapes and contents."""
    digest = hashlib.blake2b(digest_size=16)
    for name, x in arrays.items():
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        for part in parts_of(x):
            digest.update(part)
    return digest.hexdigest()


def _left_out(model: Layer, finished: set[Layer]) -> list[str]:
    """Return the outermost layers that have taken no part in what was computed, as far as they have weights."""
    names: list[str] = []

    def visit(layer: Layer, name: str) -> None:
        if layer in finished:
            return
        if any(below in finished for below in layer.layers()):
            for child, inner in layer._children.items():
                visit(inner, ".".join(filter(None, (name, child))))
        elif next((True for _ in (*layer.named_parameters(), *layer.named_buffers())), False):
            names.append(name)

    visit(model, "")
    return names


def _same(found: Mapping[str, Any], origin: Mapping[str, Any]) -> bool:
    return all(found.get(key) == json.loads(json.dumps(value)) for key, value in origin.items())


def _if_whole(path: Path) -> Features | None:
    try:
        return load_features(path) if path.exists() else None
    except CheckpointError:
        return None


# ---- computing -------------------------------------------------------------------------------------------------


def _features(model: Layer, x: Array, name: str) -> np.ndarray:
    """Return the features of a batch in memory order: (n, H, W, C) or (n, F)."""
    x = to_device(x, device_of(next(model.parameters()).data))
    if name == INPUT_OF_CLASSIFIER:
        path = getattr(model, "classifier_path", None)
        if path is None:
            raise ValueError(f"save_features: {model} does not say where its classifier is: name a layer")
        y = input_of(model, path, x)
    else:
        y = forward_to(model, [name], x)[name]
    # (n, C, H, W) -> (n, H, W, C)
    return to_numpy(y.transpose(0, 2, 3, 1) if y.ndim == 4 else y)


def _computed(model: Layer, images: Batches, name: str, progress: Progress | None) -> Iterator[np.ndarray]:
    for i, (x, _) in enumerate(images.epoch(0), start=1):
        yield _features(model, x, name)
        if progress is not None:
            progress(i, len(images))
