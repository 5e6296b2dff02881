"""An exponential moving average of the weights: a smoother network to evaluate, at the price of a copy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..backend import Array, array_module, is_device_array, to_numpy
from ..kernels.cuda.optim import Follow
from ..parameter import channels_last
from .groups import members_of
from .vectors import Batch, cut, lerp, memory_order, numbers, run_all, with_work


class EMA:
    """Averages of parameters that follow the training at a distance.

        average ← d·average + (1 − d)·p         after every optimizer step; the first time average ← p

    The average is over about the last 1/(1 − d) steps.  Steps of stochastic gradient descent scatter around a
    minimum, and the mean of the scatter lies lower than its points; a decayed learning rate gains the same.

    Buffers (BatchNorm's running statistics) are not averaged: the network is evaluated with its present ones.
    They belong to slightly other weights; with ``use_buffers=True`` floating-point buffers are averaged and
    swapped like parameters, which fits better.  PyTorch's ``AveragedModel`` has the same choice.

        ema = EMA(model, decay=0.999)
        …; optimizer.step(); ema.update()
        with ema.averaged():
            evaluate(model)

    On a GPU an update is one launch.  As with an `Optimizer`, `prepare` and `apply` are its two halves, of which the
    second may be part of a CUDA graph, until ``revision`` changes.

    Args:
        source: a layer, or parameters in an order.
        decay: d.
        use_buffers: average a layer's floating-point buffers too.
        warmup: use min(d, (1 + t)/(10 + t)) in update t (from 0), so that a short run is not mostly its start.

    Raises:
        ValueError: ``decay`` is not between 0 and 1; buffers are asked for without a layer.

    Sources: Polyak & Juditsky 1992 (averaging); Tarvainen & Valpola 2017, "Mean teachers", eq. 1 (the average above).

    >>> from tinycnn import Parameter
    >>> p = Parameter(np.array([8.0]))
    >>> ema = EMA([p], decay=0.75)
    >>> ema.update()
    >>> p.data[:] = 0
    >>> ema.update()
    >>> with ema.averaged():
    ...     p.data.item()
    6.0
    """

    def __init__(self, source: Any, decay: float = 0.999, use_buffers: bool = False, warmup: bool = False) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"EMA: decay must lie between 0 and 1, got {decay!r}")
        if use_buffers and not hasattr(source, "named_buffers"):
            raise ValueError("EMA: use_buffers=True needs a layer, not parameters: pass the model itself")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._parameters = members_of(source, "EMA")
        self._layer = source if use_buffers else None
        if len(dict(self._named())) < len(self._named()):
            raise ValueError("EMA: two parameters have the same name: pass the parameters of one network")
        self._averages = [_copy(x) for x in self._values()]
        self._cut: list[Batch] = []
        self._cut_for: list[Array] = []
        self._follow: Follow | None = None
        self._weight = 1.0
        self.revision = 0
        self._swapped = False

    def _named(self) -> list[tuple[str, Array]]:
        """Return (name, the network's own array) of everything averaged."""
        named = [(p.name or f"#{i}", p.data) for i, p in enumerate(self._parameters)]
        if self._layer is not None:
            named += [(name, x) for name, x in self._layer.named_buffers() if x.dtype.kind == "f"]
        return named

    def _values(self) -> list[Array]:
        return [value for _, value in self._named()]

    def _pairs(self) -> list[tuple[Array, Array]]:
        """Return (average, value) of every array, after checking that they still match."""
        for (name, value), average in zip(self._named(), self._averages, strict=True):
            if array_module(average) is not array_module(value) or average.dtype != value.dtype:
                raise RuntimeError(f"EMA: {name} was moved or converted since: do that first, then make the EMA")
        return list(zip(self._averages, self._values(), strict=True))

    def update(self) -> None:
        """Move the averages towards the present values.

        Raises:
            RuntimeError: inside `averaged`, where the network holds the averages themselves.
        """
        self.prepare()
        self.apply()

    def prepare(self) -> None:
        """Count the update and compute how far the averages move; on a GPU send that there."""
        self._forbid_inside("update")
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        self._weight = 1 - decay if self.updates else 1
        self._find()
        if self._follow is not None:
            self._follow.send(self._weight)
        self.updates += 1

    def apply(self) -> None:
        """Move the averages, as `prepare` has it."""
        if self._follow is not None:
            return self._follow.launch()
        run_all([functools.partial(_follow, batch, self._weight) for batch in self._cut], self._cut)

    def _find(self) -> None:
        """Cut averages and values into stretches, or set up the launch; anew when the network has other arrays."""
        pairs = self._pairs()
        if len(pairs) == len(self._cut_for) and all(x is y for (_, x), y in zip(pairs, self._cut_for, strict=True)):
            return
        self._cut_for = [value for _, value in pairs]
        self.revision += 1
        if pairs and is_device_array(pairs[0][0]):
            self._follow = Follow([average for average, _ in pairs], self._cut_for)
        else:
            self._cut = cut([(memory_order(average), memory_order(value)) for average, value in pairs], work=1)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the network the averages for the duration of the block, and its own values back at the end of it.

        The two are exchanged, no third copy is made; so train only outside the block.
        """
        self._forbid_inside("averaged")
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for average, value in self._pairs():
            own = _copy(value)
            value[...] = average
            average[...] = own
        self._swapped = not self._swapped

    def _forbid_inside(self, what: str) -> None:
        if self._swapped:
            raise RuntimeError(f"EMA: {what} was called inside averaged(): leave the block first")

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"updates": n, "decay": d, "state": {"average": {name: array}}}``, C-ordered NumPy copies."""
        self._forbid_inside("state_dict")
        named = zip(self._named(), self._averages, strict=True)
        arrays = {name: np.array(to_numpy(average), order="C") for (name, _), average in named}
        return {"updates": self.updates, "decay": self.decay, "state": {"average": arrays}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved average stood; nothing changes unless everything fits.

        Raises:
            ValueError: the averages of another network.
        """
        self._forbid_inside("load_state_dict")
        if not {"updates", "decay", "state"} <= set(state) or "average" not in state["state"]:
            raise ValueError("EMA: the state does not fit: it is not an EMA's state_dict()")
        own, saved = dict(self._named()), state["state"]["average"]
        for name in {**own, **saved}:
            here, there = (tuple(np.shape(x[name])) if name in x else None for x in (own, saved))
            if here != there:
                raise ValueError(f"EMA: the state does not fit: {name} has shape {there} there and {here} here")
        for name, average in zip(own, self._averages, strict=True):
            average[...] = array_module(average).asarray(saved[name])
        self.updates, self.decay = int(state["updates"]), float(state["decay"])


def _copy(x: Array) -> Array:
    return channels_last(x.copy(order="K"))


def _follow(batch: Batch, weight: float) -> None:
    """average ← average + weight·(value − average), on stretches; weight 1 is a copy, exactly."""
    (share,) = numbers(batch.stretches[0][0], weight)
    for average, value, a in with_work(batch, ("a",)):
        if weight == 1:
            average[...] = value
        else:
            lerp(average, value, share, a)
