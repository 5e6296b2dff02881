"""Freezing a part of a network: it stays what it is, and costs nothing to train around.

A network that has learned from many images knows edges and textures that serve for other images too.  So its lower
layers are kept, and only what is above them learns.  A layer that is frozen

* has no trained parameters: no gradient is computed for them, and optimizers leave them alone;
* behaves in training as in evaluation, so that it computes always the same function: batch normalisation takes its
  running statistics and does not move them, dropout and stochastic depth drop nothing.  What frozen layers compute may
  therefore be computed once and kept;
* is not gone back through, if nothing below it is trained either: backward stops above it, and its forward saves
  nothing (`Layer.require_dx`).

Sources: Yosinski, Clune, Bengio & Lipson 2014, "How transferable are features in deep neural networks?"; that the
statistics of normalisation are fixed together with the weights, He et al. 2016, "Deep residual learning for image
recognition", appendix A (for detection).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from ..messages import nearest
from ..parameter import Parameter
from .base import Layer, LayerError


def set_frozen(model: Layer, patterns: Sequence[str], frozen: bool) -> list[str]:
    """Freeze or thaw whatever matches one of the ``patterns``, without one everything (`Layer.freeze`).

    Returns:
        The names of the parameters that this concerned.

    Raises:
        LayerError: a pattern matches neither a layer nor a parameter; nothing has changed then.
    """
    layers, parameters = _matching(model, patterns or ("*",))
    for p in parameters:
        p.requires_grad = not frozen
    for layer in model.layers():
        own = set(layer._parameters.values())
        if layer in layers or (own and own <= parameters) or (own & parameters and not frozen):
            layer.frozen = frozen
    settle(model)
    model.require_dx(model.needs_dx and (bool(model.path) or not frozen))
    return [name for name, p in model.named_parameters() if p in parameters]


def _matching(model: Layer, patterns: Sequence[str]) -> tuple[set[Layer], set[Parameter]]:
    """Return the layers that match, with all layers below them, and the parameters: theirs, and those that match."""
    layers: set[Layer] = set()
    parameters: set[Parameter] = set()
    for pattern in patterns:
        hit = [layer for path, layer in model._walk("") if fnmatchcase(path, pattern)]
        named = [p for name, p in model.named_parameters() if fnmatchcase(name, pattern)]
        if not hit and not named:
            known = [*(path for path, _ in model._walk("")), *(name for name, _ in model.named_parameters())]
            raise LayerError(f"{model}: no layer and no parameter matches {pattern!r}{nearest(pattern, known)}")
        layers.update(below for layer in hit for below in layer.layers())
        parameters.update(named)
    parameters.update(p for layer in layers for p in layer._parameters.values())
    return layers, parameters


def settle(model: Layer) -> None:
    """Have layers made of layers, and of nothing else, frozen where all of those are."""
    for layer in reversed(list(model.layers())):  # those within come first
        if layer._children:
            layer.frozen = all(c.frozen for c in layer.children()) and (layer.frozen or not layer._parameters)


def frozen_parts(model: Layer) -> dict[str, list[str]]:
    """Return what is frozen: the names of ``layers``, those made of layers left out, and of ``parameters``."""
    return {
        "layers": [path for path, layer in model._walk("") if layer.frozen and _counts(layer)],
        "parameters": [name for name, p in model.named_parameters() if not p.requires_grad],
    }


def restore_frozen(model: Layer, parts: Mapping[str, Collection[str]]) -> None:
    """Freeze just what `frozen_parts` found frozen; the gradient of the input is wanted or not as it was."""
    for path, layer in model._walk(""):
        if _counts(layer):
            layer.frozen = path in parts["layers"]
    for name, p in model.named_parameters():
        p.requires_grad = name not in parts["parameters"]
    settle(model)
    model.require_dx(model.needs_dx)


def _counts(layer: Layer) -> bool:
    return bool(layer._parameters) or not layer._children
