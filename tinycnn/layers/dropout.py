"""Layers that drop numbers at random while training: Dropout, Dropout2d, StochasticDepth.

**Idea.**  A network that cannot rely on any one of its parts being there spreads what it knows.  In training
each part is set to zero with probability p and what stays is divided by 1 − p, so that the expected value of
the output is the input; in evaluation nothing happens.

Forward and backward are the same product, with m a mask of ones (kept) and zeros (dropped)::

    y = x · m/(1 − p)          dx = dy · m/(1 − p)

What a "part" is tells the three layers apart: a number, a channel of an image, a whole image (or the batch).

**Random numbers by address.**  The masks come from a counter-based generator, Philox (`tinycnn.kernels.dropout`):
number i of step s under key k is a function of (k, s, i), with no state that passes from one number to the next.
Threads can therefore draw any part of a mask at any time, and the mask is the same on every number of threads,
dtype and device, and again the same when a step is repeated.

**Saved for backward:** on a CPU the mask, one byte per part; it could be drawn again from its address, but that takes
longer than all the rest of the layer's work.  On a GPU it does not, and the address, k and s, is all that is saved.
The step is counted in the GPU's memory, so that a captured graph of kernels draws anew whenever it is replayed.

Sources: Srivastava et al. 2014 (Dropout; they scale in evaluation instead); Tompson et al. 2015 (whole
channels); Huang et al. 2016 (stochastic depth); Salmon et al. 2011 (Philox).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ..backend import Array, device_of, is_device_array, to_device
from ..kernels.dropout import dropout, dropout_backward
from .base import Layer, LayerError


class RandomStream:
    """The address of a layer's random numbers: a key of its own, and a step that counts its draws.

    Args:
        rng: the key is drawn from it; a fresh one by default.

    Attributes:
        key: what tells this stream from all others, 63 bits.
        place: key and step as an array, on the device that draws.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.key, self.place = 0, np.zeros(2, np.uint64)
        self.seed(int(rng.integers(2**63)))

    @property
    def step(self) -> int:
        """Number of the next draw.  On a GPU, to ask for it is to wait for what was drawn so far."""
        return int(self.place[1])

    @step.setter
    def step(self, step: int) -> None:
        self.place[1] = step

    def seed(self, key: int) -> None:
        """Start again with ``key``."""
        self.set_state([key, 0])

    def on(self, device: str) -> Array:
        """Return ``place``, moved to ``device``."""
        if device_of(self.place) != device:
            self.place = to_device(self.place, device)
        return self.place

    def state(self) -> list[Any]:
        """Return [key, step]; where a GPU counts, the step is a copy there, for which nobody has waited."""
        return [self.key, self.place[1].copy() if is_device_array(self.place) else int(self.place[1])]

    def set_state(self, state: list[Any]) -> None:
        """Go to where `state` was asked for: the masks drawn since then are drawn again.

        Raises:
            ValueError: not two numbers.
        """
        if len(state) != 2:
            raise ValueError(f"the state of a random stream is [key, step], got {state!r}")
        key, step = state
        if int(key) != self.key:
            self.key = self.place[0] = int(key)
        self.place[1] = step if is_device_array(self.place) else int(step)


class RandomMask(Layer):
    """Base of the layers here: y = x·m/(1 − p) in training, y = x in evaluation.

    Args:
        p: probability that a part is dropped.
        rng: generator that the key of the masks is drawn from; a fresh one by default.

    Attributes:
        stream: where the masks come from.
    """

    rank: int | None = None

    def __init__(self, p: float, rng: np.random.Generator | None) -> None:
        super().__init__()
        if not isinstance(p, int | float | np.floating) or not 0 <= p <= 1:
            raise LayerError(f"{type(self).__name__}: p is the probability of dropping, from 0 to 1, got {p!r}")
        self.p = float(p)
        self.stream = RandomStream(rng)

    def parts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the mask for an x whose memory is of ``shape``, (N, H, W, C) for images."""
        raise TypeError(f"{type(self).__name__} must define parts")

    def forward(self, x: Array) -> Array:
        """Return x·m/(1 − p) with a new mask, or x in evaluation."""
        x = self.check_input(x, rank=self.rank)
        if not self.training or self.p == 0:
            self.save(x.shape, None)
            return x
        y, mask = dropout(_memory(x), self.stream.on(device_of(x)), self.p, self.parts(_memory(x).shape))
        self.save(x.shape, mask)
        return _shaped(y)

    def backward(self, dy: Array) -> Array:
        """Return dy·m/(1 − p) with the mask of the forward, or dy in evaluation."""
        shape, mask = self.take_saved()
        dy = self.check_gradient(dy, shape)
        if mask is None:
            return dy
        return _shaped(dropout_backward(_memory(dy), mask, self.p, self.parts(_memory(dy).shape)))

    def options(self) -> str:
        """Return the probability of dropping."""
        return f"p={self.p}"


def _memory(x: Array) -> Array:
    """Return ``x`` with its axes in the order of its memory."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x  # (N, C, H, W) -> (N, H, W, C)


def _shaped(y: Array) -> Array:
    """Undo `_memory`."""
    return y.transpose(0, 3, 1, 2) if y.ndim == 4 else y  # (N, H, W, C) -> (N, C, H, W)


class Dropout(RandomMask):
    """Drops single numbers, each with probability ``p``.

    Shape:
        any.

    Raises:
        LayerError: ``p`` is outside [0, 1].

    >>> y = Dropout(0.5)(np.ones((100, 100)))
    >>> sorted(set(y.ravel().tolist()))
    [0.0, 2.0]
    """

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        super().__init__(p, rng)

    def parts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape itself: every number is a part."""
        return shape


class Dropout2d(RandomMask):
    """Drops whole channels, each channel of each image with probability ``p``.

    Neighbouring pixels are so alike that dropping some of them hides nothing.

    Shape:
        (N, C, H, W), unchanged.

    Raises:
        LayerError: ``p`` is outside [0, 1]; an input of another rank.

    >>> y = Dropout2d(0.5, rng=np.random.default_rng(0))(np.ones((1, 4, 2, 2)))
    >>> y[0, :, 0, 0].tolist() == y[0, :, 1, 1].tolist()  # a channel is there, doubled, or it is not
    True
    """

    rank = 4

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        super().__init__(p, rng)

    def parts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, 1, 1, C)."""
        return shape[0], 1, 1, shape[3]


class StochasticDepth(RandomMask):
    """Drops the whole output of a residual branch, so that the network is a shallower one for that step.

    Put last into a branch: ``Residual(Sequential(…, StochasticDepth(0.2)))``.

    Args:
        p: probability of dropping.
        mode: ``'batch'``, all images or none, as published; ``'row'``, each image by itself.
        rng: as for `Dropout`.

    Shape:
        any, the first axis being the batch.

    Raises:
        LayerError: ``p`` is outside [0, 1], ``mode`` unknown.

    >>> drop = StochasticDepth(0.5, "row", rng=np.random.default_rng(0))
    >>> sorted(set(drop(np.ones((100, 2))).ravel().tolist()))
    [0.0, 2.0]
    """

    def __init__(
        self, p: float, mode: Literal["batch", "row"] = "batch", *, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(p, rng)
        self.mode = mode
        if mode not in ("batch", "row"):
            raise LayerError(f"StochasticDepth: mode must be 'batch' or 'row', got {mode!r}")

    def parts(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, 1, …), or (1, 1, …) for the whole batch."""
        return (shape[0] if self.mode == "row" else 1, *(1 for _ in shape[1:]))

    def options(self) -> str:
        """Return the probability of dropping and the mode."""
        return f"p={self.p}, mode={self.mode!r}"
