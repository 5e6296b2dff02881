"""Networks in files: safetensors, never a pickle.

A checkpoint holds every parameter and buffer under PyTorch's names, in C order, so any tool that reads
safetensors reads it; what tinycnn needs besides (which architecture, how images were prepared) lies in the
file's own text metadata, one JSON value per key.  From the file alone, the network can be rebuilt and used.

The format has no checksum of its own: a bit that flips in a weight would go unnoticed.  ``checksum`` in the
metadata covers arrays and metadata, and `read` compares it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, models
from ..backend import Array
from ..layers import Layer, LayerError
from ..layers.fused import FusedConv2d, FusedResidual
from ..layers.state import arrays_of
from .mapped import CheckpointError, PathLike, Weights
from .tensors import parts_of, read_tensors, write_tensors

__all__ = [
    "TRAINING_STATE", "WEIGHTS", "Checkpoint", "CheckpointError", "build", "created", "describe", "load", "load_into",
    "native_metadata", "of_network", "read", "save", "verify", "write",
]  # fmt: skip
DAMAGED = "damaged: its checksum does not fit its content: take another copy"
WEIGHTS, TRAINING_STATE = "weights", "training state"
PREPROCESSING = "preprocessing."
"""What the names of arrays begin with that are no weights."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: of the file.
        arrays: by name, views of the mapped file.
        metadata: by key, decoded; ``kind`` is ``"weights"`` or ``"training state"``.
    """

    path: Path
    arrays: Weights
    metadata: dict[str, Any]


# ---- networks ----------------------------------------------------------------------------------------------


def save(model: Layer, path: PathLike, learnt: Mapping[str, Array] | None = None, **metadata: Any) -> None:
    """Write a network's parameters and buffers, and what it takes to build it anew, to a file.

    Args:
        model: made by `tinycnn.models.create`.
        path: conventionally ends in ``.safetensors``; replaced if it is there, in one step.
        learnt: arrays that images are prepared with, by name (`tinycnn.train.normalization`).
        metadata: anything else to keep that JSON can say.

    Raises:
        ValueError: the network does not know its architecture, or was fused.
        OSError: the file cannot be written.

    >>> import tempfile
    >>> from tinycnn import models
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(models.create("lenet5"), f"{folder}/net.safetensors", note="untrained")
    ...     net = load(f"{folder}/net.safetensors")
    >>> len(list(net.parameters()))
    10
    """
    if any(isinstance(layer, FusedConv2d | FusedResidual) for layer in model.layers()):
        raise ValueError(
            f"{type(model).__name__} was fused, and cannot be rebuilt from a file: save the network it was made from, "
            "and fuse that again once it is loaded"
        )
    if not hasattr(model, "architecture"):
        raise ValueError(
            f"{type(model).__name__} has no attribute 'architecture', so it could not be rebuilt from a file: make it "
            "with tinycnn.models.create, or keep model.state_dict() in a file of your own"
        )
    arrays = arrays_of(model) | {PREPROCESSING + name: x for name, x in (learnt or {}).items()}
    write(path, arrays, {"kind": WEIGHTS, "architecture": model.architecture, **metadata})


def load(path: PathLike, device: str = "cpu") -> Layer:
    """Rebuild a network from a file that `save` or a training run wrote.

    Args:
        path: of the file, or of a run folder, whose best weights are then taken.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.

    Returns:
        The network, in evaluation mode.

    Raises:
        CheckpointError: no such file; damaged; not tinycnn's; of an architecture that this version cannot build.
    """
    checkpoint = _open(path, WEIGHTS)
    with ThreadPoolExecutor(1) as other:  # the checksum takes longer than all else: it is compared meanwhile
        whole = other.submit(verify, checkpoint.arrays)
        try:
            model = build(checkpoint)
        finally:
            whole.result()  # damage explains whatever else is wrong
    return model.to(device)


def load_into(model: Layer, path: PathLike) -> None:
    """Copy the weights in a file into a network that is there already.

    Raises:
        CheckpointError: as for `load`, or the file is of another architecture.
    """
    checkpoint = read(path, WEIGHTS)
    saved, own = checkpoint.metadata.get("architecture"), getattr(model, "architecture", None)
    if own is not None and saved != own:
        raise CheckpointError(f"{checkpoint.path}: holds {describe(saved)}, the network is {describe(own)}")
    _fill(model, checkpoint)


def build(checkpoint: Checkpoint) -> Layer:
    """Return the network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        CheckpointError: this version knows no such architecture, or the weights are not of that architecture.
    """
    model = created(checkpoint.path, checkpoint.metadata)
    model.astype("float64" if any(value.dtype == np.float64 for value in checkpoint.arrays.values()) else "float32")
    _fill(model, checkpoint)
    return model.eval()


def created(path: PathLike, metadata: Mapping[str, Any]) -> Layer:
    """Return the network that the metadata of the file at ``path`` describe, without weights.

    Raises:
        CheckpointError: this version knows no such architecture.
    """
    try:
        return models.create(**metadata.get("architecture") or {}, initialize=False)
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError, MemoryError) as error:
        raise CheckpointError(  # whatever a file may say
            f"{path}: cannot build the architecture it names ({error}); "
            f"tinycnn {metadata.get('tinycnn')} wrote it, this is {__version__}"
        ) from None


def _fill(model: Layer, checkpoint: Checkpoint) -> None:
    try:
        model.load_state_dict(of_network(checkpoint.arrays))
    except LayerError as error:
        named = describe(checkpoint.metadata.get("architecture"))
        detail = str(error).replace(str(model), "the network") if "\n" in str(model) else str(error)
        raise CheckpointError(f"{checkpoint.path}: its weights are not those of {named}: {detail}") from None


def of_network(arrays: Weights) -> Weights:
    """Return the arrays in a file that are the network's own."""
    own = {name: x for name, x in arrays.items() if not name.startswith(PREPROCESSING)}
    return arrays if len(own) == len(arrays) else arrays.renamed(own)


def preprocessing_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return how images are prepared for the network in a checkpoint that a training run wrote.

    Raises:
        CheckpointError: the file does not say, or says what cannot be.
    """
    if "preprocessing" not in checkpoint.metadata:
        raise CheckpointError(
            f"{checkpoint.path}: does not say how images are prepared: use one that tinycnn train wrote"
        )
    how = checkpoint.metadata["preprocessing"]
    rules: dict[str, Callable[[Any], bool]] = {
        "data": lambda v: isinstance(v, str),
        "classes": lambda v: isinstance(v, list) and all(isinstance(name, str) for name in v),
        **dict.fromkeys(("image_size", "input_size"), lambda v: _numbers(v, int, 1) and len(v) == 2),
        "mean": lambda v: _numbers(v, (int, float), -math.inf),
        "std": lambda v: _numbers(v, (int, float), 1e-6),
    }
    for name, fits in rules.items():
        if not isinstance(how, dict) or not fits(how.get(name)):
            raise CheckpointError(
                f"{checkpoint.path}: damaged: how images are prepared makes no sense ({name}): take another copy"
            )
    return how


def _numbers(value: object, kind: Any, least: float) -> bool:
    """Whether this is a list of a few numbers of some kind, none below the least."""
    largest = 1 << 14  # pixels along one side, more than any network's
    return (
        isinstance(value, list)
        and 0 < len(value) <= largest
        and all(isinstance(v, kind) and not isinstance(v, bool) and least <= v <= largest for v in value)
    )


def describe(architecture: Any) -> str:
    """Return an architecture in words: ``lenet5 (num_classes=10, in_channels=1)``."""
    if not isinstance(architecture, Mapping) or "name" not in architecture:
        return "no architecture"
    options = ", ".join(f"{name}={value}" for name, value in architecture.items() if name != "name")
    return f"{architecture.get('name')} ({options})"


# ---- files -------------------------------------------------------------------------------------------------


def write(path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata to a file, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    text = {key: json.dumps(value) for key, value in {"tinycnn": __version__, **metadata}.items()}
    text["checksum"] = json.dumps(_checksum(arrays, text))
    write_tensors(path, arrays, text)


def read(path: PathLike, kind: str) -> Checkpoint:
    """Read a file that `write` wrote, and make sure that it is whole.

    Args:
        path: of the file; or of a run folder, of which the best weights (or its training state) are meant.
        kind: what it must hold, ``"weights"`` or ``"training state"``.

    Raises:
        CheckpointError: missing, unreadable, truncated, damaged, another program's, or of the other kind.
    """
    checkpoint = _open(path, kind)
    verify(checkpoint.arrays)
    return checkpoint


def _open(path: PathLike, kind: str) -> Checkpoint:
    """`read`, without a look at the checksum."""
    path = _file_meant(Path(path), kind)
    arrays = read_tensors(path)
    metadata = native_metadata(arrays)
    if not metadata:
        raise CheckpointError(
            f"{path}: a safetensors file, but not one of tinycnn's: build the network with tinycnn.models.create and "
            "hand the file to tinycnn.interop.load_weights"
        )
    if metadata["kind"] != kind:
        cure = "best.safetensors beside it holds weights" if kind == WEIGHTS else "a run folder has one"
        raise CheckpointError(
            f"{path}: holds a {metadata['kind']}, not a {kind}: {cure}".replace("a weights", "weights")
        )
    return Checkpoint(path, arrays, metadata)


def _file_meant(path: Path, kind: str) -> Path:
    if path.is_dir():
        name = "best.safetensors" if kind == WEIGHTS else "training_state.safetensors"
        if not (path / name).is_file():
            raise CheckpointError(f"{path}: this folder has no {name}: name a run folder, or a checkpoint file")
        return path / name
    if not path.exists():
        raise CheckpointError(f"{path}: there is no such file or folder: name a run folder, or a checkpoint file")
    return path


def native_metadata(weights: Weights) -> dict[str, Any]:
    """Return the metadata of a mapped safetensors file, decoded; empty where tinycnn has not written it.

    Raises:
        CheckpointError: it cannot be decoded.
    """
    text = weights.extra
    if "tinycnn" not in text or "kind" not in text:
        return {}
    try:
        return {key: json.loads(value) for key, value in text.items()}
    except (ValueError, RecursionError):
        raise CheckpointError(f"{weights.file.path}: {DAMAGED}") from None


def verify(weights: Weights) -> None:
    """Compare the checksum in a file that tinycnn has written.

    Raises:
        CheckpointError: it does not fit: the file is damaged.
    """
    if json.dumps(_checksum(weights, weights.extra)) != weights.extra.get("checksum"):
        raise CheckpointError(f"{weights.file.path}: {DAMAGED}")


def _checksum(arrays: Mapping[str, Array], text: Mapping[str, str]) -> str:
    """Return a digest of every array (name, type, shape, content) and every piece of metadata but the checksum."""
    digest = hashlib.blake2b(digest_size=16)
    release = getattr(arrays, "release", lambda: None)
    for key in sorted(set(text) - {"checksum"}):
        digest.update(f"{key}={text[key]}\n".encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        for part in parts_of(arrays[name]):
            digest.update(part)
            release()
    return digest.hexdigest()
