"""The training step of ours on a GPU: eager, or captured as a CUDA graph."""

from __future__ import annotations

from typing import Any

import numpy as np

import tinycnn
from tinycnn import CapturedStep
from tinycnn.backend import to_device

from .gpu_rig import Rig, on_host
from .networks import NETS, batch
from .training import SGD

STEPS_TO_CAPTURE = 6
"""Calls after which a step that can be captured has been."""


class OurStep:
    """A tinycnn network in training on a GPU.

    In mixed precision all activations are of 16 bits; images, parameters, their gradients and statistics are float32.

    Args:
        rig: where.
        name: a network of `NETS`.
        N: batch size.
        precision: from `gpu_rig.PRECISIONS`.
        graph: capture the step.
        dtype: of the parameters.
        size: height and width of the images, if not the network's own.
    """

    def __init__(
        self,
        rig: Rig,
        name: str,
        N: int,
        precision: str = "float32",
        graph: bool = True,
        dtype: str = "float32",
        size: int | None = None,
    ) -> None:
        x, y = batch(name, N, size)
        self.x, self.y = rig.array(x.astype(dtype)), to_device(y, "cuda")
        self.model = NETS[name].build(0).astype(dtype).to("cuda")
        self.model.require_dx(False)
        self.optimizer = tinycnn.optim.SGD(self.model.parameters(), **SGD)
        own = precision if dtype == "float32" else None
        loss_fn = tinycnn.CrossEntropyLoss()
        self.captured = CapturedStep(self.model, self.optimizer, loss_fn, graph=graph, precision=own)
        self.seen: dict[str, Any] = {}

    def step(self) -> None:
        """Do one training step; a captured one finds its batch where it reads it."""
        x, y = self.captured.inputs or (self.x, self.y)
        loss, logits = self.captured.run(x, y)
        self.seen = {"loss": loss, "logits": logits}

    def capture(self) -> str | None:
        """Do the steps that it takes to capture one; returns why that was not possible."""
        for _ in range(STEPS_TO_CAPTURE):
            self.step()
        return None if self.captured.state == "captured" else self.captured.reason or self.captured.state

    def results(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what the last step computed, by kind and name."""
        outputs = {name: on_host(value) for name, value in self.seen.items()}
        gradients = {name: on_host(p.grad) for name, p in self.model.named_parameters()}
        parameters = {name: on_host(value) for name, value in self.model.state_dict().items()}
        return {"outputs": outputs, "gradients": gradients, "parameters": parameters}
