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
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import __version__, models
from ..layers import Layer, LayerError
from .files import write_bytes

PathLike: TypeAlias = str | os.PathLike[str]
WEIGHTS, TRAINING_STATE = "weights", "training state"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or not what was asked for; the message names the file and the cure."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        path: of the file.
        arrays: by name.
        metadata: by key, decoded; ``kind`` is ``"weights"`` or ``"training state"``.
    """

    path: Path
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]


# ---- networks ----------------------------------------------------------------------------------------------


def save(model: Layer, path: PathLike, **metadata: Any) -> None:
    """Write a network's parameters and buffers, and what it takes to build it anew, to a file.

    Args:
        model: made by `tinycnn.models.create`.
        path: conventionally ends in ``.safetensors``; replaced if it is there, in one step.
        metadata: anything else to keep that JSON can say.

    Raises:
        ValueError: the network does not know its architecture.
        OSError: the file cannot be written.
    """
    if not hasattr(model, "architecture"):
        raise ValueError(
            f"{type(model).__name__} has no attribute 'architecture', so it could not be rebuilt from a file: make it "
            "with tinycnn.models.create, or keep model.state_dict() in a file of your own"
        )
    write(path, model.state_dict(), {"kind": WEIGHTS, "architecture": model.architecture, **metadata})


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
    return build(read(path, WEIGHTS)).to(device)


def load_into(model: Layer, path: PathLike) -> None:
    """Copy the weights in a file into a network that is there already.

    Raises:
        CheckpointError: as for `load`, or the file is of another architecture.
    """
    checkpoint = read(path, WEIGHTS)
    saved, own = checkpoint.metadata["architecture"], getattr(model, "architecture", None)
    if own is not None and saved != own:
        raise CheckpointError(f"{checkpoint.path}: holds {describe(saved)}, the network is {describe(own)}")
    _fill(model, checkpoint)


def build(checkpoint: Checkpoint) -> Layer:
    """Return the network that a checkpoint describes, with its weights, in evaluation mode.

    Raises:
        CheckpointError: this version knows no such architecture, or the weights are not of that architecture.
    """
    architecture = checkpoint.metadata.get("architecture") or {}
    try:
        model = models.create(**architecture)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint.path}: cannot build the architecture it names ({error}); "
            f"tinycnn {checkpoint.metadata.get('tinycnn')} wrote it, this is {__version__}"
        ) from None
    floats = {value.dtype for value in checkpoint.arrays.values() if value.dtype.kind == "f"}
    model.astype(max(floats, key=lambda dtype: dtype.itemsize, default=np.dtype("float32")))
    _fill(model, checkpoint)
    return model.eval()


def _fill(model: Layer, checkpoint: Checkpoint) -> None:
    try:
        model.load_state_dict(checkpoint.arrays)
    except LayerError as error:
        named = describe(checkpoint.metadata["architecture"])
        detail = str(error).replace(str(model), "the network") if "\n" in str(model) else str(error)
        raise CheckpointError(f"{checkpoint.path}: its weights are not those of {named}: {detail}") from None


def describe(architecture: Mapping[str, Any]) -> str:
    """Return an architecture in words: ``lenet5 (num_classes=10, in_channels=1)``."""
    options = ", ".join(f"{name}={value}" for name, value in architecture.items() if name != "name")
    return f"{architecture.get('name')} ({options})"


# ---- files -------------------------------------------------------------------------------------------------


def write(path: PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata to a file, atomically.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    text = {key: json.dumps(value) for key, value in {"tinycnn": __version__, **metadata}.items()}
    text["checksum"] = json.dumps(_checksum(arrays, text))
    write_bytes(Path(path), _in_order(to_bytes(dict(arrays), metadata=text)))


def _in_order(file: bytes) -> bytes:
    """Return a safetensors file with its metadata in alphabetical order: the library has it in a random one.

    Equal contents are equal bytes then.  Offsets of arrays count from the end of the header, so they stay.
    """
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # arrays stay aligned
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def read(path: PathLike, kind: str) -> Checkpoint:
    """Read a file that `write` wrote, and make sure that it is whole.

    Args:
        path: of the file; or of a run folder, of which the best weights (or its training state) are meant.
        kind: what it must hold, ``"weights"`` or ``"training state"``.

    Raises:
        CheckpointError: missing, unreadable, truncated, damaged, another program's, or of the other kind.
    """
    path = _file_meant(Path(path), kind)
    arrays, text = _read_safetensors(path)
    if "tinycnn" not in text or "kind" not in text:
        raise CheckpointError(
            f"{path}: a safetensors file, but not one of tinycnn's: build the network with tinycnn.models.create and "
            "hand the arrays to its load_state_dict"
        )
    if json.dumps(_checksum(arrays, text)) != text.get("checksum"):
        raise CheckpointError(f"{path}: damaged: its checksum does not fit its content: take another copy")
    metadata = {key: json.loads(value) for key, value in text.items()}
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


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        words = str(error)
        if "not fully covered" in words or "invalid header length" in words or "too small" in words:
            what = "truncated, or has bytes too many"
        else:
            what = "damaged, or not a safetensors file"
        raise CheckpointError(f"{path}: {what} ({words.split(': ', 1)[-1]}): take another copy") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): check the path and its permissions") from None
    except (TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{path}: holds arrays of a type that NumPy lacks ({error})") from None


def _checksum(arrays: Mapping[str, np.ndarray], text: Mapping[str, str]) -> str:
    """Return a digest of every array (name, type, shape, content) and every piece of metadata but the checksum."""
    digest = hashlib.blake2b(digest_size=16)
    for key in sorted(set(text) - {"checksum"}):
        digest.update(f"{key}={text[key]}\n".encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {arrays[name].shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data if array.size else b"")
    return digest.hexdigest()
