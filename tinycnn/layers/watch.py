"""Looking at a network while it works, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from ..backend import Array
from ..messages import nearest
from .base import Layer, LayerError


@contextmanager
def watched(model: Layer, note: Callable[[Layer, Array, Array], None]) -> Iterator[None]:
    """Call ``note(layer, x, y)`` whenever a forward of ``model`` or of a layer below has finished.

    Inner layers finish before the outer ones they belong to.
    """
    before = {layer: layer.__dict__.get("forward") for layer in model.layers()}

    def watch(layer: Layer) -> None:
        forward = layer.forward

        def forward_and_note(x: Array, *others: Array) -> Array:
            y = forward(x, *others)
            note(layer, x, y)
            return y

        layer.__dict__["forward"] = forward_and_note

    for layer in before:
        watch(layer)
    try:
        yield
    finally:
        for layer, forward in before.items():
            del layer.__dict__["forward"]
            if forward is not None:
                layer.__dict__["forward"] = forward


@contextmanager
def restored(model: Layer) -> Iterator[None]:
    """Put every layer's switches, running statistics and random stream back in the end."""
    switches = [(layer, layer._training, layer.saving) for layer in model.layers()]
    buffers = {name: value.copy() for name, value in model.named_buffers()}
    streams = model.random_state()
    try:
        yield
    finally:
        for layer, training, saving in switches:
            layer.training, layer.saving = training, saving
        for name, value in model.named_buffers():
            value[...] = buffers[name]
        model.set_random_state(streams)


class Reached(BaseException):
    """All that was to be seen has been seen: what is left of a forward need not be computed."""


def forward_to(model: Layer, names: Iterable[str], x: Array) -> dict[str, Array]:
    """Return the outputs of the layers of these names for the input ``x``, by name; nothing after them is computed.

    Raises:
        LayerError: an unknown name, or a layer that the forward has not called.
    """
    names, wanted = list(names), dict[Layer, list[str]]()
    for name in names:
        wanted.setdefault(find(model, name), []).append(name)
    seen: dict[str, Array] = {}

    def note(layer: Layer, x: Array, y: Array) -> None:
        seen.update((name, y) for name in wanted.pop(layer, ()))
        if not wanted:
            raise Reached

    with undisturbed(model), watched(model, note), suppress(Reached):
        if wanted:
            model.forward(x)
    for layer in wanted:
        raise LayerError(
            f"{layer}: no forward came through it: the layer around it does its work by itself, or leaves it out "
            f"in {'training' if model.training else 'evaluation'}"
        )
    return {name: seen[name] for name in names}


def input_of(model: Layer, name: str, x: Array) -> Array:
    """Return what reaches the layer called ``name`` when ``x`` goes into the network; nothing more is computed.

    Raises:
        LayerError: as for `forward_to`.
    """
    layer, seen = find(model, name), list[Array]()

    def stop(x: Array, *others: Array) -> Array:
        seen.append(x)
        raise Reached

    before = layer.__dict__.get("forward")
    layer.__dict__["forward"] = stop
    try:
        with undisturbed(model), suppress(Reached):
            model.forward(x)
    finally:
        del layer.__dict__["forward"]
        if before is not None:
            layer.__dict__["forward"] = before
    if not seen:
        raise LayerError(f"{layer}: nothing came to it in this forward")
    return seen[0]


@contextmanager
def undisturbed(model: Layer) -> Iterator[None]:
    """Go forward within this, and a backward after it works from the forward before it; see also `restored`."""
    saved = [(layer, layer._saved) for layer in model.layers()]
    with restored(model):
        model.set_saving(False)
        try:
            yield
        finally:
            for layer, arrays in saved:
                layer._saved = arrays


def find(model: Layer, name: str) -> Layer:
    """Return the layer called ``name``; of several around each other under one name the outermost.

    Raises:
        LayerError: there is none; the message suggests the nearest, or names the layer that a parameter is of.
    """
    layers: dict[str, Layer] = {}
    for path, layer in model._walk(""):
        layers.setdefault(path, layer)
    if name in layers:
        return layers[name]
    if name in {n for n, _ in (*model.named_parameters(), *model.named_buffers())}:
        owner, _, last = name.rpartition(".")
        raise LayerError(f"{model}: {name} is the {last} of a layer: name the layer, {owner!r}")
    raise LayerError(f"{model}: no layer is called {name!r}{nearest(name, layers)}")
