"""Asking a network for its probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from ..backend import Array, to_numpy
from ..layers import LayerError
from ..layers.base import Layer
from ..layers.watch import undisturbed
from ..losses import softmax
from .predictions import Predictions
from .views import SingleView, Views


class Batches(Protocol):
    """Where batches come from: `tinycnn.data.Loader` is one."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
        """Return the batches of an epoch."""
        ...


def predict(model: Layer, loader: Batches, views: Views | None = None, classes: tuple[str, ...] = ()) -> Predictions:
    """Return what a network believes of every image, in evaluation mode; it is left as it was.

    With several views p is the mean of the softmax of each, added up in float64.

    Args:
        model: the network.
        loader: of images and their labels; its epoch 0 is taken, so it had better not shuffle.
        views: how often, and what part of, each image is shown (`tinycnn.evaluation.views`); once, whole, by default.
        classes: their names.

    Raises:
        LayerError: the network does not take the images.
        ValueError: it does not take them in a view's size, or gives no scores (N, K); targets are no labels;
            scores that are infinite or not numbers.
        OutOfMemoryError: the GPU's memory does not suffice.

    >>> from tinycnn import data, models
    >>> x, y = np.zeros((3, 1, 32, 32), np.uint8), np.array([0, 1, 0])
    >>> predict(models.create("lenet5"), data.Loader(x, y, batch_size=2, shuffle=False)).probabilities.shape
    (3, 10)
    """
    views, noted = views or SingleView(), Noted()
    with undisturbed(model), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model.eval()
        for x, y in loader.epoch(0):
            noted.add(_mean_probabilities(model, x, views), y)
    return noted.predictions(classes)


def _mean_probabilities(model: Layer, x: Array, views: Views) -> Array:
    each = [probabilities(_scores(model, view, x, views)) for view in views(x)]
    return sum(each[1:], each[0]) / len(each)


def _scores(model: Layer, view: Array, x: Array, views: Views) -> Array:
    try:
        return model.forward(view)
    except LayerError as error:
        H, W = view.shape[2:]
        if x.shape[2:] == (H, W):
            raise
        raise ValueError(f"{views}: of {H}×{W}, the network says: {error}: choose views of a size it takes") from error


def probabilities(logits: Array) -> Array:
    """Return the softmax of scores (N, K), in float64.

    Raises:
        ValueError: scores of another shape.
    """
    if logits.ndim != 2:
        raise ValueError(f"the network must give scores (N, K), one for each class, got {tuple(logits.shape)}")
    return softmax(logits.astype(np.float64))


class Noted:
    """Probabilities and labels of batch after batch."""

    def __init__(self) -> None:
        self._probabilities: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, p: Array, y: Array) -> None:
        """Note a batch: probabilities (n, K) and labels (n,)."""
        self._probabilities.append(to_numpy(p))
        self._labels.append(to_numpy(y))

    def beside(
        self, loss_fn: Callable[[Array, Array], tuple[Array, Array]]
    ) -> Callable[[Array, Array], tuple[Array, Array]]:
        """Return a loss that is ``loss_fn``, and notes what it sees: for one pass that measures both."""

        def noting(logits: Array, targets: Array) -> tuple[Array, Array]:
            self.add(probabilities(logits), targets)
            return loss_fn(logits, targets)

        return noting

    def predictions(self, classes: tuple[str, ...] = ()) -> Predictions:
        """Return all that was noted.

        Raises:
            ValueError: as `Predictions`.
        """
        return Predictions(np.concatenate(self._probabilities), np.concatenate(self._labels), classes)
