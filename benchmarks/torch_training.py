"""The same training step in PyTorch, in each of the ways that PyTorch offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .networks import batch
from .training import SGD
from .twins import TWINS

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
UPDATES: dict[str, Any] = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True, "fused": False},
    "fused": {"foreach": False, "fused": True},
}


class Theirs:
    """A PyTorch network in training.

    Args:
        name: a network of `TWINS`.
        N: batch size.
        state: initial weights, by name; its own if not given.
        memory_format: of weights and images, from `FORMATS`.
        update: how the optimizer goes through the parameters, from `UPDATES`.
        dtype: of everything.
        size: height and width of the images, if not the network's own.
    """

    def __init__(
        self,
        name: str,
        N: int,
        state: Mapping[str, np.ndarray] | None = None,
        memory_format: str = "channels_last",
        update: str = "single",
        dtype: torch.dtype = torch.float32,
        size: int | None = None,
    ) -> None:
        x, y = batch(name, N, size)
        how: Any = {"dtype": dtype, "memory_format": FORMATS[memory_format]}
        self.x, self.y = (
            torch.from_numpy(x).to(dtype).contiguous(memory_format=how["memory_format"]),
            torch.from_numpy(y),
        )
        self.model = TWINS[name]()
        if state is not None:
            self.model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        self.model.to(**how)
        self.optimizer = torch.optim.SGD(self.model.parameters(), **SGD, **UPDATES[update])
        self.seen: dict[str, torch.Tensor] = {}

    def step(self) -> None:
        """Do one training step."""
        self.optimizer.zero_grad()
        logits = self.model(self.x)
        loss = F.cross_entropy(logits, self.y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.seen = {"loss": loss, "logits": logits}

    def results(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what the last step computed, by kind and name."""
        outputs = {name: value.detach().numpy() for name, value in self.seen.items()}
        gradients = {name: p.grad.numpy() for name, p in self.model.named_parameters() if p.grad is not None}
        parameters = {name: value.numpy().copy() for name, value in self.model.state_dict().items()}
        return {"outputs": outputs, "gradients": gradients, "parameters": parameters}
