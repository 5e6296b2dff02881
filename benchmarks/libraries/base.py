"""What every library is asked to do, and how tinycnn does it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import tinycnn

from ..networks import batch

LR = 0.05
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """Something to time, and what it computed the last time: arrays by name, in PyTorch's shapes."""

    run: Callable[[], object]
    results: Callable[[], Arrays]


class Library:
    """Base of all.

    Attributes:
        name: what it is called.
        package: on PyPI.
        note: what a reader of its numbers should know.
    """

    name, package, note = "", "", ""

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        """Forward and backward of a 3×3 convolution with padding 1; results y, dx, dw."""
        raise NotImplementedError

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        """A step of LeNet-5; results: the loss before it, and every parameter after it."""
        raise NotImplementedError


class TinyCNN(Library):
    """Ours."""

    name, package = "tinycnn", "tinycnn"

    def convolution(self, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> Task:
        layer = tinycnn.Conv2d(w.shape[1], w.shape[0], 3, padding=1, bias=False)
        layer.load_state_dict({"weight": w})
        found: Arrays = {}

        def run() -> None:
            layer.zero_grad()
            found.update(y=layer.forward(x), dx=layer.backward(dy), dw=layer.weight.grad)

        return Task(run, lambda: found)

    def training(self, state: Arrays, x: np.ndarray, y: np.ndarray) -> Task:
        model = tinycnn.models.create("lenet5")
        model.load_state_dict(state)
        model.require_dx(False)
        optimizer = tinycnn.optim.SGD(model.parameters(), lr=LR)
        loss_fn, found = tinycnn.CrossEntropyLoss(), {}

        def run() -> None:
            loss, dlogits = loss_fn(model(x), y)
            model.zero_grad()
            model.backward(dlogits)
            optimizer.step()
            found["loss"] = loss

        return Task(run, lambda: found | model.state_dict())


def lenet_batch(N: int) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Return initial weights, images and labels."""
    return tinycnn.models.create("lenet5").state_dict(), *batch("lenet5", N)
