"""What all architectures share: a network with a classifier at its end, and what the registry knows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np

from ..backend import Array, device_of
from ..layers import Conv2d, Linear, Sequential
from ..layers.base import Layer
from ..layers.freeze import settle
from ..layers.fuse import fuse
from ..layers.watch import find, forward_to


@dataclass(frozen=True)
class Architecture:
    """What the registry knows of an architecture.

    Attributes:
        build: makes the network from (num_classes, in_channels, rng=…, **options).
        input_shape: (C, H, W) it was designed for.
        parameters: trainable scalars with the default arguments, as published.
        macs: multiply-adds of convolutions and linear layers, for one image of ``input_shape``.
        source: the paper.
        num_classes: outputs it was designed for.
        training: options with which ``tinycnn train`` builds it, as its paper trained it.
    """

    build: Callable[..., Layer]
    input_shape: tuple[int, int, int]
    parameters: int
    macs: int
    source: str
    num_classes: int = 10
    training: Mapping[str, Any] = field(default_factory=dict)


class Network(Sequential):
    """An architecture: layers one after another, of which one extracts the last features and one classifies them.

    Args:
        layers: by name, in order; the names are those of the published state dicts.
        features: path of the layer whose output are the last feature maps, (N, C, H, W).
        classifier: path of the layer that turns features into scores of the classes.
        auxiliary: paths of further layers that do so, in heads that help in training.

    Attributes:
        architecture: the arguments that `tinycnn.models.create` builds it anew from; absent if it did not build it.
    """

    architecture: dict[str, Any]

    def __init__(
        self, layers: Mapping[str, Layer], *, features: str, classifier: str, auxiliary: Iterable[str] = ()
    ) -> None:
        super().__init__(layers)
        self.features_path, self.classifier_path, self.auxiliary_paths = features, classifier, tuple(auxiliary)

    # ---- looking inside ------------------------------------------------------------------------------------

    @overload
    def forward_to(self, name: str, x: Array) -> Array: ...

    @overload
    def forward_to(self, name: Iterable[str], x: Array) -> dict[str, Array]: ...

    def forward_to(self, name: str | Iterable[str], x: Array) -> Array | dict[str, Array]:
        """Return the output of the layer called ``name``; nothing after it is computed.

        It behaves as it would in a forward in the present mode: in training with the statistics of this batch and
        with dropout, so call `eval` first for features.  But the network stays as it was: no statistics move, the
        random streams stay where they are, and a backward due from the forward before can still be done.

        Where a layer does two things its output is what both give: `BatchNormReLU2d`'s is that after the ReLU, and of
        the last one in a block with a shortcut, the block's.

        Args:
            name: as in the state dict, without ``.weight``: ``layer1.0.conv1``.  Several give a dict.
            x: (N, C, H, W).

        Raises:
            LayerError: an unknown name, or a layer that takes no part in this forward.
        """
        return forward_to(self, [name], x)[name] if isinstance(name, str) else forward_to(self, name, x)

    def features(self, x: Array) -> Array:
        """Return the last feature maps, (N, C, H, W): `forward_to` the layer at ``features_path``.

        A network with a child of this name has that in the place of this method, as in PyTorch.  Calling it gives the
        same, but is an ordinary forward of that part.
        """
        return self.forward_to(self.features_path, x)

    # ---- faster --------------------------------------------------------------------------------------------

    def fuse(self) -> Network:
        """Return a network for inference that computes what this one does in evaluation, faster (`tinycnn.fuse`)."""
        return fuse(self)

    # ---- another task --------------------------------------------------------------------------------------

    def reset_classifier(self, num_classes: int, seed: int | None = 0) -> Network:
        """Put a new classifier, with new weights, in the place of the old one, those of auxiliary heads likewise.

        Make the optimizer after that: one made before does not know the new parameters.

        Args:
            num_classes: outputs of the new one; the initial weights are drawn as the old one's were.
            seed: of those; None for others each time.

        Returns:
            This network; its ``architecture`` says the new number.

        Raises:
            ValueError: fewer than one class, or a classifier that is no linear layer and no convolution.
        """
        num_classes = checked_classes(num_classes)
        rng = np.random.default_rng(seed)
        olds = [find(self, path) for path in (self.classifier_path, *self.auxiliary_paths)]
        news = {old: _classifier_like(old, num_classes, rng) for old in olds}
        for parent in list(self.layers()):
            for name, child in list(parent._children.items()):
                if child in news:
                    parent.add(name, news[child])
        if hasattr(self, "architecture"):
            self.architecture = {**self.architecture, "num_classes": num_classes}
        settle(self)  # a frozen head with a new classifier learns again
        self.require_dx(self.needs_dx)
        return self


def checked_classes(number: int) -> int:
    """Return the number of outputs; if no network can have so many, raise a ValueError."""
    if not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(f"num_classes must be at least 1, got {number!r}: give a whole number of classes")
    return int(number)


def _classifier_like(old: Layer, num_classes: int, rng: np.random.Generator) -> Layer:
    """Return a layer like ``old`` with so many outputs."""
    if isinstance(old, Linear):
        new: Layer = Linear(old.in_features, num_classes, old.bias is not None, init=old.init, rng=rng)
    elif isinstance(old, Conv2d):
        w = old.window
        new = Conv2d(
            *(old.in_channels, num_classes, w.kernel, w.stride, old.padding, w.dilation, old.groups),
            bias=old.bias is not None,
            init=old.init,
            algorithm=old.algorithm,
            rng=rng,
        )
    else:
        raise ValueError(f"{old}: only a classifier that is a Linear or a Conv2d can be made anew for other classes")
    new.training, new.saving = old._training, old.saving
    return new.astype(next(old.parameters()).dtype).to(device_of(next(old.parameters()).data))
