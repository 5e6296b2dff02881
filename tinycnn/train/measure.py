"""Measuring a network on batches that it does not learn from."""

from __future__ import annotations

import numpy as np

from ..layers.base import Layer
from ..layers.watch import restored
from .batches import AnyBatches, Batches, as_batches
from .diagnose import NonFiniteError, check_labels, diagnose
from .step import Loss
from .sums import Sums


def evaluate(model: Layer, loader: AnyBatches, loss_fn: Loss | None = None) -> dict[str, float]:
    """Measure a network, in evaluation mode; the mode it was in is restored.

    Args:
        model: the network.
        loader: of the batches; its epoch 0 is taken, so it had better not shuffle (the sums would round otherwise).
        loss_fn: cross-entropy by default.

    Returns:
        The mean ``loss`` and, where targets are labels, the ``accuracy`` between 0 and 1.

    Raises:
        NonFiniteError: the loss is infinite or not a number.

    >>> from tinycnn import Flatten, Linear, Sequential, data
    >>> digits = data.load("digits", split="test")
    >>> loader = data.Loader(digits.images, digits.labels, batch_size=100, shuffle=False)
    >>> sorted(evaluate(Sequential(Flatten(), Linear(64, 10)), loader))
    ['accuracy', 'loss']
    """
    if loss_fn is None:
        from ..losses import CrossEntropyLoss

        loss_fn = CrossEntropyLoss()
    loader = as_batches(loader)
    sums: Sums | None = None
    with restored(model), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        model.eval()
        for x, y in loader.epoch(0):
            logits = model.forward(x)
            sums = sums or Sums(logits)
            sums.add(loss_fn(logits, y)[0], logits, y)
        check_labels(loss_fn)
        means = sums.means() if sums else {"loss": 0.0}
        if not np.isfinite(means["loss"]):
            raise NonFiniteError(f"loss on held-out images is {means['loss']}", _first_trouble(model, loader))
    return means


def _first_trouble(model: Layer, loader: Batches) -> str | None:
    """Return where the first non-finite value comes from, going through the batches once more."""
    for x, _ in loader.epoch(0):
        if (found := diagnose(model, x)) is not None:
            return found
    return None
