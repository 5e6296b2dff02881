"""One training step of ours: zero the gradients, forward, loss, backward, update."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinycnn

from .networks import NETS, batch

SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}
"""Hyper-parameters of every step that is measured, here and in PyTorch."""


class Ours:
    """A tinycnn network in training.

    Args:
        name: a network of `NETS`.
        N: batch size.
        size: height and width of the images, if not the network's own.
        dtype: of everything.
    """

    def __init__(self, name: str, N: int, size: int | None = None, dtype: str = "float32") -> None:
        x, self.y = batch(name, N, size)
        self.x = x.astype(dtype)
        self.model = NETS[name].build(0).astype(dtype)
        self.model.require_dx(False)
        self.optimizer = tinycnn.optim.SGD(self.model.parameters(), **SGD)
        self.loss_fn = tinycnn.CrossEntropyLoss()
        self.seen: dict[str, np.ndarray] = {}

    def step(self) -> None:
        """Do one training step."""
        self.model.zero_grad()
        logits = self.model.forward(self.x)
        loss, dlogits = self.loss_fn(logits, self.y)
        self.model.backward(dlogits)
        self.optimizer.step()
        self.seen = {"loss": loss, "logits": logits}

    def results(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what the last step computed, by kind and name."""
        gradients = {name: np.array(p.grad) for name, p in self.model.named_parameters()}
        return {"outputs": self.seen, "gradients": gradients, "parameters": self.model.state_dict()}
