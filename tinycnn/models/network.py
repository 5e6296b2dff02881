"""What all architectures share: a network with a classifier at its end, and what the registry knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..layers import Sequential
from ..layers.base import Layer


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
    """

    build: Callable[..., Layer]
    input_shape: tuple[int, int, int]
    parameters: int
    macs: int
    source: str
    num_classes: int = 10


class Network(Sequential):
    """An architecture: layers one after another, of which one extracts the last features and one classifies them.

    Args:
        layers: by name, in order; the names are those of the published state dicts.
        features: path of the layer whose output are the last feature maps, (N, C, H, W).
        classifier: path of the layer that turns features into scores of the classes.
    """

    def __init__(self, layers: Mapping[str, Layer], *, features: str, classifier: str) -> None:
        super().__init__(layers)
        self.features_path, self.classifier_path = features, classifier
