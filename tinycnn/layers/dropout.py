"""Layers that drop numbers at random while training: Dropout, Dropout2d, StochasticDepth.

**Idea.**  A network that cannot rely on any one of its parts being there spreads what it knows.  In training
each part is set to zero with probability p and what stays is divided by 1 − p, so that the expected value of
the output is the input; in evaluation nothing happens.

Forward and backward are the same product, with m a mask of ones (kept) and zeros (dropped)::

    y = x · m/(1 − p)          dx = dy · m/(1 − p)

What a "part" is tells the three layers apart: a number, a channel of an image, a whole image (or the batch).

**Random numbers by address.**  The masks come from a counter-based generator, Philox: number i of step s
under key k is a function of (k, s, i), a kind of encryption of i, with no state that passes from one number to
the next.  Threads can therefore draw any part of a mask at any time, and the mask is the same on every number
of threads, dtype and device, and again the same when a step is repeated.

A part is kept where a random integer falls below (1 − p)·2⁸ or (1 − p)·2³²: eight bits where they express p
exactly (p = 0.5, 0.25, …), 32 bits, to which p is then rounded, otherwise.  Random bits are what a mask costs.

**Saved for backward:** the mask, one byte per part.  It could be drawn again from its address, but at 32 bits
that takes longer than all the rest of the layer's work.

Sources: Srivastava et al. 2014 (Dropout; they scale in evaluation instead); Tompson et al. 2015 (whole
channels); Huang et al. 2016 (stochastic depth); Salmon et al. 2011 (Philox).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from ..backend import Array, array_module, device_of, to_device
from ..parallel import each_slice
from .base import Layer, LayerError

BLOCK = 4
"""64-bit numbers that Philox makes from one count."""


def random_words(key: int, step: int, start: int, stop: int) -> np.ndarray:
    """Return the 64-bit random numbers number ``start`` to ``stop`` − 1 of (key, step)."""
    block = start // BLOCK
    bits = np.random.Philox(key=np.array([key, step], np.uint64), counter=np.array([block, 0, 0, 0], np.uint64))
    words = np.random.Generator(bits).integers(0, 2**64, stop - BLOCK * block, np.uint64)
    return words[start - BLOCK * block :]


def keep_mask(key: int, step: int, p: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return a boolean mask of ``shape``, C-contiguous, True with probability 1 − p (module docstring)."""
    dtype = np.dtype(np.uint8 if float(p * 2**8).is_integer() else np.uint32)
    values, per_word = 2 ** (8 * dtype.itemsize), 8 // dtype.itemsize
    kept = min(round((1 - p) * values), values - 1)
    mask = np.empty(math.prod(shape), np.bool_)

    def one_slice(s: slice) -> None:
        words = random_words(key, step, s.start // per_word, -(-s.stop // per_word))
        numbers = words.view(dtype)[s.start % per_word :]
        np.less(numbers[: s.stop - s.start], kept, out=mask[s])

    each_slice(one_slice, mask, 4 * dtype.itemsize)
    return mask.reshape(shape)


class RandomStream:
    """The address of a layer's random numbers: a key of its own, and a step that counts its draws.

    Args:
        rng: the key is drawn from it; a fresh one by default.

    Attributes:
        key: what tells this stream from all others, 63 bits.
        step: number of the next draw.
    """

    def __init__(self, rng: np.random.Generator | None = None) -> None:
        rng = np.random.default_rng(rng)
        self.seed(int(rng.integers(2**63)))

    def seed(self, key: int) -> None:
        """Start again with ``key``."""
        self.key, self.step = key, 0

    def keep(self, p: float, shape: tuple[int, ...]) -> np.ndarray:
        """Draw the next mask of ``shape``, True with probability 1 − p."""
        mask = keep_mask(self.key, self.step, p, shape)
        self.step += 1
        return mask

    def state(self) -> list[int]:
        """Return [key, step]."""
        return [self.key, self.step]

    def set_state(self, state: list[int]) -> None:
        """Go to where `state` was asked for: the masks drawn since then are drawn again.

        Raises:
            ValueError: not two numbers.
        """
        if len(state) != 2:
            raise ValueError(f"the state of a random stream is [key, step], got {state!r}")
        self.key, self.step = (int(value) for value in state)


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

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a new mask that fits an x of ``shape``."""
        raise TypeError(f"{type(self).__name__} must define draw")

    def forward(self, x: Array) -> Array:
        """Return x·m/(1 − p) with a new mask, or x in evaluation."""
        x = self.check_input(x, rank=self.rank)
        keep = to_device(self.draw(x.shape), device_of(x)) if self.training and self.p > 0 else None
        self.save(x.shape, keep)
        return self.scaled(x, keep)

    def backward(self, dy: Array) -> Array:
        """Return dy·m/(1 − p) with the mask of the forward, or dy in evaluation."""
        shape, keep = self.take_saved()
        return self.scaled(self.check_gradient(dy, shape), keep)

    def scaled(self, x: Array, keep: Array | None) -> Array:
        """Return x·m/(1 − p), or x if there is no mask."""
        if keep is None:
            return x
        xp = array_module(x)
        scale = 1 / (1 - self.p) if self.p < 1 else 0.0
        y = xp.empty_like(x)

        def one_slice(s: slice) -> None:
            m = keep[s] if len(keep) == len(x) else keep
            xp.multiply(x[s], xp.multiply(m, scale, dtype=x.dtype), out=y[s])

        each_slice(one_slice, x)
        return y

    def options(self) -> str:
        """Return the probability of dropping."""
        return f"p={self.p}"


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

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a mask of all of x, in its memory order."""
        if len(shape) != 4:
            return self.stream.keep(self.p, shape)
        N, C, H, W = shape
        return self.stream.keep(self.p, (N, H, W, C)).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)


class Dropout2d(RandomMask):
    """Drops whole channels, each channel of each image with probability ``p``.

    Neighbouring pixels are so alike that dropping some of them hides nothing.

    Shape:
        (N, C, H, W), unchanged.

    Raises:
        LayerError: ``p`` is outside [0, 1]; an input of another rank.
    """

    rank = 4

    def __init__(self, p: float = 0.5, *, rng: np.random.Generator | None = None) -> None:
        super().__init__(p, rng)

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a mask of shape (N, C, 1, 1)."""
        return self.stream.keep(self.p, (*shape[:2], 1, 1))


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
    """

    def __init__(
        self, p: float, mode: Literal["batch", "row"] = "batch", *, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__(p, rng)
        self.mode = mode
        if mode not in ("batch", "row"):
            raise LayerError(f"StochasticDepth: mode must be 'batch' or 'row', got {mode!r}")

    def draw(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return a mask of shape (N, 1, …), or (1, 1, …) for the whole batch."""
        count = shape[0] if self.mode == "row" else 1
        return self.stream.keep(self.p, (count,) + (1,) * (len(shape) - 1))

    def options(self) -> str:
        """Return the probability of dropping and the mode."""
        return f"p={self.p}, mode={self.mode!r}"
