"""The training step in PyTorch on a GPU, in every way that PyTorch offers there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .gpu_rig import Rig, Task, autocast, on_host
from .networks import batch
from .torch_training import FORMATS, UPDATES
from .training import SGD
from .twins import TWINS


class TorchStep:
    """A PyTorch network in training, in mixed precision by autocast.

    Args:
        rig: where.
        name: a network of `TWINS`.
        N: batch size.
        state: initial weights, by name.
        precision: from `gpu_rig.PRECISIONS`; whether products of float32 use tensor cores is set by `gpu_rig.matched`.
        memory_format, update: from `FORMATS` and `UPDATES`.
        dtype: of the weights.
        size: height and width of the images, if not the network's own.
    """

    def __init__(
        self,
        rig: Rig,
        name: str,
        N: int,
        state: Mapping[str, np.ndarray],
        precision: str = "float32",
        memory_format: str = "channels_last",
        update: str = "foreach",
        dtype: torch.dtype = torch.float32,
        size: int | None = None,
    ) -> None:
        x, y = batch(name, N, size)
        self.rig, self.precision = rig, precision
        self.x, self.y = rig.tensor(x, FORMATS[memory_format]).to(dtype), rig.tensor(y)
        self.model: Any = TWINS[name]()
        self.model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()})
        self.model.to(device=rig.device, dtype=dtype, memory_format=FORMATS[memory_format])
        self.optimizer = torch.optim.SGD(self.model.parameters(), **SGD, **UPDATES[update])
        self.seen: dict[str, torch.Tensor] = {}

    def step(self) -> None:
        """Do one training step."""
        self.optimizer.zero_grad()
        with autocast(self.precision, self.rig.device):
            logits = self.model(self.x)
            loss = F.cross_entropy(logits, self.y)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.seen = {"loss": loss, "logits": logits}

    def as_graph(self) -> Task:
        """Return what replays the step as a CUDA graph."""
        return self.rig.captured_theirs(self.step)

    def compiled(self) -> Task:
        """Return the step with the network compiled, CUDA graphs included."""
        self.model = torch.compile(self.model, mode="reduce-overhead")

        def step() -> None:
            self.seen = {}  # what lives in the compiled graph's memory is over with the next step
            torch.compiler.cudagraph_mark_step_begin()
            self.step()

        return step

    def results(self) -> dict[str, dict[str, np.ndarray]]:
        """Return what the last step computed, by kind and name."""
        outputs = {name: on_host(value) for name, value in self.seen.items()}
        gradients = {name: on_host(p.grad) for name, p in self.model.named_parameters() if p.grad is not None}
        parameters = {name: on_host(value) for name, value in self.model.state_dict().items()}
        return {"outputs": outputs, "gradients": gradients, "parameters": parameters}
