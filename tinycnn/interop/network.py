"""From a file of weights to a network that has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import models
from ..layers import Layer
from ..layers.state import arrays_of
from ..messages import nearest
from ..train.checkpoint import created, describe, native_metadata
from ..train.mapped import CheckpointError, PathLike, Weights
from .weights import fit_names, load_weights, obvious_rename, read_weights, without_spare_heads


def load_network(
    source: PathLike | Weights,
    name: str | None = None,
    *,
    rename: Mapping[str, str] | None = None,
    drop: Iterable[str] | str = (),
    key: str | None = None,
    guess: bool = False,
    **options: Any,
) -> Layer:
    """Build a network and give it the weights in a file, in whatever format.

        model = load_network("resnet20-12fca82f.th", "resnet20", rename={"linear": "fc"})

    Args:
        source: path of a file, or what `read_weights` made of one.
        name: of the architecture.  A checkpoint of tinycnn's own knows it; other files do not.
        rename, drop, key: as for `load_weights`.
        guess: whether to rename one path where that, and nothing else, makes all names and shapes fit.
        options: arguments of the architecture.  The number of classes is that of the weights, if nothing is said.

    Returns:
        The network, in evaluation mode, with the attributes ``renamed``: what of ``rename`` was guessed, and
        ``left_out``: names in the file that are for auxiliary heads which the network was built without.

    Raises:
        CheckpointError: as for `load_weights`, or nobody says which architecture it is.
        ValueError, TypeError: no architecture of that name, or an argument that it has not.
    """
    weights = source if isinstance(source, Weights) else read_weights(source, key)
    arguments, metadata = {**_arguments(weights, name), **options}, native_metadata(weights)
    if metadata.get("architecture") and not options:  # then what is wrong with it is the file's fault
        model = created(weights.file.path, metadata)
    else:
        model = models.create(**arguments, initialize=False)
    weights, spare = without_spare_heads(model, weights)
    guessed = obvious_rename(model, weights, drop) if guess and not rename else {}
    rename = {**(rename or {}), **guessed}
    try:
        fitted = fit_names(weights, arrays_of(model), rename, drop)
    except ValueError as error:
        raise CheckpointError(f"{weights.file.path}: {error}") from None
    classes = _classes(model, fitted)
    if "num_classes" not in arguments and classes not in (None, model.architecture["num_classes"]):
        model = models.create(**arguments, num_classes=classes, initialize=False)
    load_weights(model, fitted)
    model.renamed, model.left_out = guessed, spare
    return model.eval()


def _arguments(weights: Weights, name: str | None) -> dict[str, Any]:
    """Return what `models.create` needs, from the file's own metadata or the ``name`` given."""
    path = weights.file.path
    metadata = native_metadata(weights)
    known = metadata.get("architecture")
    if known is not None:
        if not isinstance(known, dict) or known.get("name") not in models.names():
            created(path, metadata)  # says what is wrong with it
        if name is not None and name != known.get("name"):
            raise CheckpointError(f"{path}: holds {describe(known)}, not {name}: leave the name out")
        return known
    if name is None:
        near = nearest(Path(path).stem.split("-")[0], models.names())
        raise CheckpointError(f"{path}: does not say which network it is of: name it (model){near}")
    return {"name": name}


def _classes(model: Layer, weights: Weights) -> int | None:
    """Return how many classes the weights of a network's classifier are for."""
    path = getattr(model, "classifier_path", None)
    found = (weights.get(f"{path}.{part}") for part in ("bias", "weight"))
    return next((len(x) for x in found if x is not None and x.size and x.ndim), None)
