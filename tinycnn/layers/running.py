"""What layers with running statistics share: batch and instance normalisation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import numpy as np

from ..backend import Array
from ..kernels.norm import Running, Sink
from ..parameter import Parameter
from .base import Layer, LayerError


def sinks(weight: Parameter | None, bias: Parameter | None) -> tuple[Sink, Sink]:
    """Return where the gradients of weight and bias go, where there are any."""
    return None if weight is None else weight.sink(), None if bias is None else bias.sink()


class RunningNorm(Layer):
    """Arguments, parameters, and the buffers ``running_mean``, ``running_var`` and ``num_batches_tracked``."""

    running_mean: Array
    running_var: Array
    num_batches_tracked: Array

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: np.typing.DTypeLike,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise LayerError(f"{type(self).__name__}: num_features must be at least 1, got {num_features}")
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.weight = Parameter(np.ones(num_features, dtype)) if affine else None
        self.bias = Parameter(np.zeros(num_features, dtype)) if affine else None
        if track_running_stats:
            self.register_buffer("running_mean", np.zeros(num_features, dtype))
            self.register_buffer("running_var", np.ones(num_features, dtype))
            self.register_buffer("num_batches_tracked", np.zeros((), np.int64))

    @property
    def measures(self) -> bool:
        """Whether forward takes the statistics of its input; otherwise it takes the running ones."""
        return self.training or not self.track_running_stats

    @property
    def running(self) -> Running | None:
        """The running statistics, if they are kept."""
        if not self.track_running_stats:
            return None
        return Running(self.running_mean, self.running_var, self.num_batches_tracked)

    def options(self) -> str:
        """Return the arguments that differ from the defaults: a subclass without them has those of its parent."""
        names = ("eps", "momentum", "affine", "track_running_stats")
        defaults = next(d for d in map(_arguments, type(self).__mro__) if d.keys() >= set(names))
        given = [(name, getattr(self, name)) for name in names]
        return ", ".join([str(self.num_features), *(f"{n}={v}" for n, v in given if v != defaults[n].default)])


def _arguments(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters
