"""What is added up over an epoch: loss, right answers, examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..kernels.metrics import count_batch


class Sums:
    """Running sums of an epoch, kept where the network is: adding to them never waits for a GPU.

    Args:
        like: an array on the device to keep them on.
        state: what `state` returned.
    """

    def __init__(self, like: Array, state: Sequence[float] = (0.0, 0, 0, 0)) -> None:
        xp = array_module(like)
        self._loss, self._correct = xp.zeros(1, np.float64), xp.zeros(1, np.int64)
        self.labels, self.examples = 0, 0
        self.set(state)

    def set(self, state: Sequence[float] = (0.0, 0, 0, 0)) -> None:
        """Begin anew, with what `state` returned."""
        self._loss[...], self._correct[...] = float(state[0]), int(state[1])
        self.labels, self.examples = int(state[2]), int(state[3])

    def add(self, loss: Array, logits: Array, targets: Array) -> None:
        """Count a batch; accuracy only where the targets are labels."""
        self.add_numbers(loss, logits, targets)
        self.add_batch(targets)

    def add_numbers(self, loss: Array, logits: Array, targets: Array) -> None:
        """Do the device's part of `add`."""
        count_batch(logits, targets, loss, self._loss, self._correct)

    def add_batch(self, targets: Array) -> None:
        """Do Python's part of `add`."""
        self.examples += len(targets)
        if targets.dtype.kind in "iu":
            self.labels += targets.size

    def means(self) -> dict[str, float]:
        """Return ``loss``, and ``accuracy`` between 0 and 1, over what was counted."""
        means = {"loss": float(self._loss[0]) / max(self.examples, 1)}
        return means | ({"accuracy": int(self._correct[0]) / self.labels} if self.labels else {})

    def state(self) -> list[Any]:
        """Return the arguments that make an equal object."""
        return [float(self._loss[0]), int(self._correct[0]), self.labels, self.examples]
