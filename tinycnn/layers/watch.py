"""Looking at a network while it works, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..backend import Array
from .base import Layer


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
    switches = [(layer, layer.training, layer.saving) for layer in model.layers()]
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
