"""The same network in evaluation in PyTorch, convolutions and normalisations folded into one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .networks import batch
from .torch_training import FORMATS
from .twins import TWINS


class Theirs:
    """A PyTorch network in evaluation.

    Args:
        name: a network of `TWINS`.
        N: batch size.
        state: weights and running statistics, by name.
        memory_format: of weights and images, from `FORMATS`.
        dtype: of everything.
        folded: whether normalisations are folded into the convolutions before them.
    """

    def __init__(
        self,
        name: str,
        N: int,
        state: Mapping[str, np.ndarray],
        memory_format: str = "channels_last",
        dtype: torch.dtype = torch.float32,
        folded: bool = True,
    ) -> None:
        how: Any = {"dtype": dtype, "memory_format": FORMATS[memory_format]}
        x, _ = batch(name, N)
        self.x = torch.from_numpy(x).to(dtype).contiguous(memory_format=how["memory_format"])
        with torch.device("meta"):
            self.model = TWINS[name]()
        self.model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, assign=True)
        self.model.eval()
        if folded:
            fold(self.model)
        self.model.to(**how)
        self.scores: torch.Tensor | None = None

    @torch.inference_mode()
    def forward(self) -> None:
        """Compute the scores."""
        self.scores = self.model(self.x)


def fold(model: nn.Module) -> None:
    """Put one convolution in the place of each with a batch normalisation behind it, which becomes the identity."""
    for parent in list(model.modules()):
        for conv, norm in pairs(parent):
            setattr(parent, conv, fuse_conv_bn_eval(getattr(parent, conv), getattr(parent, norm)))
            setattr(parent, norm, nn.Identity())


def pairs(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of convolution and normalisation that follow each other among a module's children.

    (In the twins, children are in the order in which they are called.)
    """
    children = list(parent.named_children())
    for (name, child), (next_name, after) in itertools.pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
            yield name, next_name
