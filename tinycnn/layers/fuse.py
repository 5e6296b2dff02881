"""A network for inference: each normalisation, ReLU and shortcut's sum goes into the convolution before it.

`fuse` looks for convolutions, and for what may follow one and be part of it, along every chain of layers in order
(`tinycnn.layers.combine.in_order`), and makes a copy of the network in which these convolutions are `FusedConv2d`, with
an `Identity` in the place of what they have taken in::

    Conv2d → BatchNorm2d, Scale, in any order and number → ReLU or BatchNormReLU2d
    Residual(… → Conv2d → BatchNorm2d) → ReLU                        the sum and ReLU go into the last convolution
    ResidualNormReLU(… → Conv2d)                                     norm, sum and ReLU do

Norms that measure their input even in evaluation stay, as do those that no convolution is before.  What does nothing in
evaluation (dropout, stochastic depth, checkpoints) is left out.

A copy shares all arrays that are the same: of a VGG-16 the 124 million weights of its linear layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, TypeVar, cast

import numpy as np

from ..backend import Array, array_module
from .activation import ReLU
from .base import Layer
from .batchnorm import BatchNorm2d
from .combine import Checkpointed, Residual, ResidualNormReLU, in_order
from .conv import Conv2d
from .dropout import RandomMask
from .fused import FusedConv2d, FusedResidual
from .scale import Scale
from .shape import Identity
from .stochastic import StochasticBranch

Model = TypeVar("Model", bound=Layer)


def fuse(model: Model) -> Model:
    """Return the network for inference that computes what ``model`` does in evaluation, to rounding, but faster.

    It is in evaluation mode.  Layers keep their names: one that became part of the convolution before it is an
    `Identity` now, and hands on what that one does.  State dicts have the names of what is left: of convolutions, all
    with a bias where a norm followed, and none of norms that they took in.

    ``model`` stays as it is.  The two share the arrays of parameters and buffers that are equal (of linear layers,
    say), and no others: after further training call `fuse` again.

    Fused layers have no backward, and their filters cannot be written to: load weights first, then fuse.

    >>> from tinycnn import BatchNormReLU2d, Sequential
    >>> fuse(Sequential(Conv2d(3, 8, 3), BatchNormReLU2d(8)))
    Sequential(
      (0): FusedConv2d(3, 8, 3, relu=True)
      (1): Identity()
    )
    """
    work = _Fusion()
    work.follow(model)
    return work.copied(model).eval()


class _Fold:
    """A convolution with the linear map, the sum and the ReLU that follow it."""

    def __init__(self, conv: Conv2d) -> None:
        self.conv, self.summed, self.relu = conv, False, False
        self.gain: Array = None
        self.shift: Array = None

    @property
    def takes_shortcut(self) -> bool:
        """Whether a shortcut can still be added."""
        return not (self.summed or self.relu)

    def take(self, layer: Layer) -> bool:
        """Take ``layer`` in, if that is possible, and say whether it was."""
        is_linear = isinstance(layer, Scale) or (isinstance(layer, BatchNorm2d) and layer.track_running_stats)
        if self.relu or not (is_linear or type(layer) is ReLU) or (is_linear and self.summed):
            return False
        self.relu = type(layer) is ReLU or getattr(layer, "relu", False)
        if is_linear:
            self._follow_by(*_linear_map(layer, self.conv))
        return True

    def _follow_by(self, gain: Array, shift: Array) -> None:
        """Have gain·y + shift where y was before."""
        if self.gain is None:
            self.gain, self.shift = gain, shift
        else:
            self.gain, self.shift = self.gain * gain, self.shift * gain + shift

    def fused(self) -> FusedConv2d:
        """Return the convolution that does all of it."""
        return FusedConv2d(self.conv, self.gain, self.shift, self.relu)


def _linear_map(layer: Layer, conv: Conv2d) -> tuple[Array, Array]:
    """Return (gain, shift) of each channel of what ``layer`` does behind ``conv``, in float64."""
    xp, C = array_module(conv.weight.data), conv.out_channels
    if isinstance(layer, Scale):
        return xp.full(C, layer.factor), xp.zeros(C)
    norm = cast(BatchNorm2d, layer)
    gain = (norm.running_var.astype(np.float64) + norm.eps) ** -0.5
    if norm.weight is not None:
        gain = gain * norm.weight.data
    shift = -norm.running_mean * gain
    return gain, shift if norm.bias is None else shift + norm.bias.data


class _Fusion:
    """What is to become of the layers of a network: found by `follow`, done by `copied`."""

    def __init__(self) -> None:
        self.folds: list[_Fold] = []
        self.idle: list[Layer] = []
        """Layers that are to do nothing."""
        self.around: list[Layer] = []
        """Layers around others that give way to what is in them, or to a `FusedResidual`; inner ones first."""

    def follow(self, layer: Layer) -> _Fold | None:
        """Go along a chain of layers, and into its links; return the convolution that may take in what comes next."""
        fold: _Fold | None = None
        for link in in_order(layer):
            if isinstance(link, RandomMask | Identity) or (fold is not None and fold.take(link)):
                self.idle.append(link)
            elif type(link) is Conv2d:
                fold = _Fold(link)
                self.folds.append(fold)
            else:
                fold = self._enter(link)
        return fold

    def _enter(self, layer: Layer) -> _Fold | None:
        """Follow the chains within a layer; return the convolution at its end, likewise."""
        folds = [self.follow(child) for child in layer.children()]
        if isinstance(layer, Checkpointed | StochasticBranch):
            self.around.append(layer)
            return folds[0]
        if type(layer) not in (Residual, ResidualNormReLU) or folds[0] is None or not folds[0].takes_shortcut:
            return None
        fold, norms = folds[0], list(layer.children())[1:-1]
        if not all(map(fold.take, norms)):
            return None
        self.around.append(layer)
        fold.summed = True
        return fold

    def copied(self, model: Model) -> Model:
        """Return the network as it is to be."""
        memo: dict[int, Any] = {id(array): array for array in _arrays(model)}
        memo |= {id(layer._saved): () for layer in model.layers() if layer._saved is not None}
        memo |= {id(fold.conv): fold.fused() for fold in self.folds}
        memo |= {id(layer): Identity() for layer in self.idle}
        for layer in self.around:
            memo[id(layer)] = _replacement(layer, memo)
        new = deepcopy(model, memo)
        new.__dict__.pop("architecture", None)  # `create` would not build it anew
        new._set_path(model.path)
        return new


def _replacement(layer: Layer, memo: dict[int, Any]) -> Layer:
    """Return what comes in the place of a layer around others."""
    if isinstance(layer, Checkpointed | StochasticBranch):
        return deepcopy(layer.layer, memo)
    main, *_, shortcut = layer.children()
    return FusedResidual(deepcopy(main, memo), deepcopy(shortcut, memo), list(layer._children)[-1])


def _arrays(model: Layer) -> Iterator[Array]:
    """Every array of parameters, their gradients and buffers."""
    yield from model.buffers()
    for p in model.parameters():
        yield from (p.data, p._grad)
