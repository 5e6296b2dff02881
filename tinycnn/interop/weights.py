"""Weights from files of other programs, and into files for them.

    weights = read_weights("resnet18.pth")             # a dict of arrays, whatever the format; torch is not needed
    load_weights(model, "resnet18.pth")                # every name and shape must fit
    load_weights(model, "mine.pth", rename={"linear": "fc"}, drop=["aux*"])
    save_for_torch(model, "resnet18.safetensors")      # module.load_state_dict(safetensors.torch.load_file(…))

=====================  ============================================================================================
.pth, .pt, .th         what ``torch.save`` writes, since PyTorch 0.1.10: `tinycnn.interop.torch_file`
.safetensors           of any program; of tinycnn's own the checksum is compared
=====================  ============================================================================================

The content decides which it is, not the name.

**What is in the way of the weights** is taken off: a dict around them (``{"state_dict": …, "epoch": 3}``), whose other
entries are ``weights.extra``; ``module.`` or ``_orig_mod.`` in front of every name, which DataParallel and
torch.compile put there.  Against a network, names that older versions of torchvision gave the layers of a DenseNet
(``norm.1``) are brought to today's (``norm1``), and ``num_batches_tracked`` may be absent.  Anything else is for the
caller to say.

**Numbers**: float16 stays so, bfloat16 and the 8-bit types become float32, which holds them exactly, and a network
converts to its own type what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ..backend import Array
from ..layers import Layer, LayerError
from ..layers.mismatch import guess_rename, renamed
from ..layers.state import arrays_of
from ..messages import nearest, some
from ..train.checkpoint import native_metadata, of_network, verify
from ..train.mapped import CheckpointError, MappedFile, PathLike, Weights
from ..train.tensors import read_tensors, write_tensors
from .pickles import RefusedError, shown
from .torch_file import read_stream, read_zip

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
"""Keys under which training programs keep the weights, the first that is there."""
PREFIXES = ("module.", "_orig_mod.")
DEEPEST = 3
PICKLES = {b"\x80", b"(", b"]", b"}", b"c", b"i"}
"""What pickles begin with."""
LONGEST_NAME = 1000
_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|conv))\.([12]\..*)")

CURES = {
    "refused": "do not open it with anything that runs pickles; of a file you trust, let PyTorch save "
    "model.state_dict() alone",
    "broken": "take another copy",
}


# ---- reading -----------------------------------------------------------------------------------------------


def read_weights(path: PathLike, key: str | None = None) -> Weights:
    """Return the arrays in a file of weights, by name.

    Args:
        path: of a file of ``torch.save`` or a safetensors file.
        key: under which of its entries the weights are, where a file has several, such as ``"model_ema"``.

    Returns:
        A dict of arrays, which are views of the mapped file, with the attribute ``extra``.

    Raises:
        CheckpointError: no such file; damaged; refers to anything but tensors, containers and numbers, which is then
            named (nothing in the file is run, in any case); or without weights.
    """
    start = bytes(MappedFile(path).bytes[:9])
    if start[8:] == b"{":
        weights = read_tensors(path)
        if not native_metadata(weights):
            return weights.renamed(without_prefix(weights))
        verify(weights)
        return of_network(weights)
    if start[:2] == b"PK" or start[:1] in PICKLES:
        return read_torch(path, key)
    raise CheckpointError(
        f"{path}: neither a file of torch.save nor a safetensors file (or damaged at its start): take another copy; "
        "one of before PyTorch 0.1.10 must be loaded and saved by PyTorch once more"
    )


def read_torch(path: PathLike, key: str | None = None) -> Weights:
    """Return the arrays in a file that ``torch.save`` wrote, as `read_weights`."""
    file = MappedFile(path)
    try:
        value = read_zip(file) if bytes(file.bytes[:2]) == b"PK" else read_stream(file)
        arrays, extra = _unwrapped(value, key)
    except _WhereError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except RefusedError as error:
        cure = CURES["refused" if "refers to" in str(error) else "broken"]
        raise CheckpointError(f"{path}: refused: {error}: {cure}") from None
    return Weights(without_prefix(arrays), file, extra)


class _WhereError(RefusedError):
    """Nothing is wrong with the file, but there are no weights where they were looked for; the message has the cure."""


def _unwrapped(value: Any, key: str | None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the state dict within the object of a file, and what is around it."""
    extra: dict[str, Any] = {}
    for _ in range(DEEPEST):
        if not isinstance(value, dict):
            raise RefusedError(f"it holds a {type(value).__name__}, and no state dict")
        inner = _wrapper(value, key)
        if inner is None:
            arrays = {name: x for name, x in value.items() if isinstance(x, np.ndarray)}
            _check_names(arrays, value)
            return arrays, extra | {str(k): x for k, x in value.items() if k not in arrays}
        extra |= {str(k): x for k, x in value.items() if k != inner}
        value, key = value[inner], None
    raise RefusedError("its state dict lies within too many others")


def _wrapper(value: Mapping[Any, Any], key: str | None) -> str | None:
    """Return the key in a dict under which the weights are."""
    if key is not None:
        if not isinstance(value.get(key), dict):
            raise _WhereError(f"it has no state dict {key!r}; its keys are {_keys(value)}: choose one of them")
        return key
    return next((name for name in WRAPPERS if isinstance(value.get(name), dict)), None)


def _keys(value: Iterable[Any]) -> str:
    return some(map(_short, value))


def _short(key: Any) -> str:
    return shown(str(key)[:60])


def _check_names(arrays: Mapping[Any, np.ndarray], around: Mapping[Any, Any]) -> None:
    if not arrays:
        inside = [key for key, value in around.items() if isinstance(value, dict) and _has_arrays(value)]
        if inside:
            raise _WhereError(f"its tensors are under {_keys(inside)}: say which are wanted, by key (--key)")
        raise _WhereError(f"it holds no tensors; its keys are {_keys(around)}: choose a file of weights")
    for name in arrays:
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise RefusedError("its state dict has a name that is none")


def _has_arrays(value: Mapping[Any, Any]) -> bool:
    return any(isinstance(x, np.ndarray) for x in value.values())


# ---- names -------------------------------------------------------------------------------------------------


def without_prefix(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return arrays without what wrappers put in front of every name."""
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if arrays and all(name.startswith(prefix) for name in arrays):
                arrays = {name.removeprefix(prefix): x for name, x in arrays.items()}
    return dict(arrays)


def fit_names(
    weights: Weights, own: Iterable[str], rename: Mapping[str, str] | None = None, drop: Iterable[str] | str = ()
) -> Weights:
    """Return the arrays under the names that a network has.

    Args:
        weights: as read.
        own: the network's names.
        rename: paths to replace, old → new; ``{"linear": "fc"}`` concerns ``linear.weight``, not ``linear2.weight``.
        drop: names to leave out; ``*`` stands for anything.

    Raises:
        ValueError: an entry of ``rename`` or ``drop`` concerns no name, or two arrays would have one name.
    """
    kept = dict(weights)
    for pattern in [drop] if isinstance(drop, str) else drop:
        gone = [name for name in kept if fnmatchcase(name, pattern)]
        if not gone:
            raise ValueError(f"drop: no name matches {pattern!r}{nearest(pattern, kept)}")
        kept = {name: x for name, x in kept.items() if name not in gone}
    for old in rename or {}:
        if not any(renamed(name, {old: "\n"}) != name for name in kept):
            raise ValueError(f"rename: no name is, or lies under, {old!r}{nearest(old, _paths(kept))}")
    known = frozenset(own)
    named: dict[str, np.ndarray] = {}
    for name, x in kept.items():
        new = _todays(renamed(name, rename or {}), known)
        if new in named:
            raise ValueError(f"rename: two of the arrays would be called {new!r}")
        named[new] = x
    return weights.renamed(named)


def _paths(names: Iterable[str]) -> list[str]:
    """Return every path that names lie under."""
    return list(
        {".".join(parts[:n]): None for parts in (name.split(".") for name in names) for n in range(1, len(parts))}
    )


def _todays(name: str, own: frozenset[str]) -> str:
    """Return the name that torchvision gives today to what it called ``name`` once, if a network has that."""
    old = _OLD_DENSENET.fullmatch(name)
    return "".join(old.groups()) if old and name not in own and "".join(old.groups()) in own else name


def without_spare_heads(model: Layer, weights: Weights) -> tuple[Weights, list[str]]:
    """Leave out what is for auxiliary heads that a network has not (``droppable``); they matter in training only.

    Returns:
        (the others, the names left out).
    """
    patterns = getattr(model, "droppable", ())
    spare = [name for name in weights if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return weights.renamed({name: x for name, x in weights.items() if name not in spare}), spare


def obvious_rename(model: Layer, weights: Weights, drop: Iterable[str] | str = ()) -> dict[str, str]:
    """Return the one path to rename with which all weights fit a network, ``{"linear": "fc"}``; else nothing."""
    own = {name: tuple(x.shape) for name, x in arrays_of(model).items()}
    given = {name: tuple(x.shape) for name, x in fit_names(weights, own, drop=drop).items()}
    missing = {n: shape for n, shape in own.items() if n not in given}
    unexpected = {n: shape for n, shape in given.items() if n not in own}
    rename = guess_rename(missing, unexpected)
    moved = {renamed(n, rename): shape for n, shape in unexpected.items()}
    fits = len(moved) == len(unexpected) and moved.items() <= missing.items()
    return rename if fits and all(n.endswith("num_batches_tracked") for n in missing.keys() - moved) else {}


# ---- in and out --------------------------------------------------------------------------------------------


def load_weights(
    model: Layer,
    source: PathLike | Weights,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] | str = (),
    strict: bool = True,
    key: str | None = None,
) -> tuple[list[str], list[str]]:
    """Copy the weights in a file into a network; nothing changes unless everything fits.

    Args:
        model: the network, or any layer.
        source: path of a file, or what `read_weights` made of one.
        rename, drop: see `fit_names`.
        strict: raise on missing or unexpected names; otherwise they are returned and left alone.
        key: see `read_weights`.

    Returns:
        (missing names, unexpected names).  In a strict load the latter can only be those of auxiliary heads that the
        network was built without, such as GoogLeNet's.

    Raises:
        CheckpointError: the file cannot be read, or does not fit: all that is missing, unexpected or of another shape
            is listed.
    """
    weights = source if isinstance(source, Weights) else read_weights(source, key)
    path = weights.file.path
    try:
        fitted, spare = without_spare_heads(model, fit_names(weights, arrays_of(model), rename, drop))
        missing, unexpected = model.load_state_dict(fitted, strict)
        return missing, unexpected + spare
    except LayerError as error:
        words = str(error).replace(str(model), "the network")
        raise CheckpointError(
            f"{path}: {words}: choose the network that the file is of, or say what to rename or drop"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def save_for_torch(model: Layer | Mapping[str, Array], path: PathLike) -> None:
    """Write a network's parameters and buffers as a state dict for PyTorch: a safetensors file, atomically.

    ``module.load_state_dict(safetensors.torch.load_file(path))`` takes it.  (Checkpoints of `tinycnn.save` do, too;
    this one has no metadata of tinycnn's, and `tinycnn.load` cannot rebuild a network from it.)

    Args:
        model: a layer, or arrays by name.
        path: conventionally ends in ``.safetensors``.

    Raises:
        OSError: the file cannot be written.

    >>> import tempfile
    >>> from tinycnn import Linear
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_for_torch(Linear(3, 2), f"{folder}/linear.safetensors")
    ...     weights = {name: a.shape for name, a in read_weights(f"{folder}/linear.safetensors").items()}
    >>> weights
    {'bias': (2,), 'weight': (2, 3)}
    """
    arrays = arrays_of(model) if isinstance(model, Layer) else model
    write_tensors(path, arrays, {"format": "pt"})
