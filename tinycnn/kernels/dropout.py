"""Random masks: which parts of an array are dropped, and what is left of it.

The masks come from a counter-based generator, Philox: the numbers of count c under key (k, s) are a function of
(c, k, s), a kind of encryption of c, with no state that passes from one number to the next.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

import math

import numpy as np

from ..backend import Array
from ..parallel import each_slice
from .cuda import twin

BLOCK = 4
"""64-bit numbers that Philox makes from one count."""
MULTIPLIERS = np.array([0xD2E7470EE14C6C93, 0xCA5A826395121157], np.uint64)
INCREMENTS = np.array([0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B], np.uint64)
"""The first 64 bits behind the point of the golden ratio, and of √3."""


def philox(counter: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return Philox4x64-10 of ``counter`` (…, 4) under ``key`` (2,), uint64 both: four random numbers for each.

    This is what `numpy.random.Philox` does (which adds 1 to the counter first), step by step: ten rounds, in each of
    which two of the four words are multiplied to 128 bits, whose halves take new places.
    """
    a, b, c, d = np.moveaxis(counter, -1, 0)
    for i in range(10):
        key0, key1 = key + np.uint64(i) * INCREMENTS
        (high0, low0), (high1, low1) = _product(a, MULTIPLIERS[0]), _product(c, MULTIPLIERS[1])
        a, b, c, d = high1 ^ b ^ key0, low1, high0 ^ d ^ key1, low0
    return np.stack([a, b, c, d], axis=-1)


def _product(a: np.ndarray, b: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Return the upper and the lower 64 bits of a·b, by long multiplication with digits of 32 bits."""
    half, mask = np.uint64(32), np.uint64(2**32 - 1)
    a1, a0, b1, b0 = a >> half, a & mask, b >> half, b & mask
    middle = a1 * b0 + (a0 * b0 >> half)  # less than 2⁶⁴
    other = a0 * b1 + (middle & mask)
    return a1 * b1 + (middle >> half) + (other >> half), a * b


def random_words(key: int, step: int, start: int, stop: int) -> np.ndarray:
    """Return the 64-bit random numbers number ``start`` to ``stop`` − 1 of (key, step)."""
    block = start // BLOCK
    bits = np.random.Philox(key=np.array([key, step], np.uint64), counter=np.array([block, 0, 0, 0], np.uint64))
    words = np.random.Generator(bits).integers(0, 2**64, stop - BLOCK * block, np.uint64)
    return words[start - BLOCK * block :]


def threshold(p: float) -> tuple[np.dtype, int]:
    """Return (dtype, kept): a part is kept if its random integer, of that dtype, is less than ``kept``.

    Eight bits where they express p exactly (p = 0.5, 0.25, …), 32 bits, to which p is then rounded, otherwise.  Random
    bits are what a mask costs.
    """
    dtype = np.dtype(np.uint8 if float(p * 2**8).is_integer() else np.uint32)
    values = 2 ** (8 * dtype.itemsize)
    return dtype, min(round((1 - p) * values), values - 1)


def keep_mask(key: int, step: int, p: float, shape: tuple[int, ...]) -> np.ndarray:
    """Return a boolean mask of ``shape``, C-contiguous, True with probability 1 − p."""
    dtype, kept = threshold(p)
    per_word = 8 // dtype.itemsize
    mask = np.empty(math.prod(shape), np.bool_)

    def one_slice(s: slice) -> None:
        words = random_words(key, step, s.start // per_word, -(-s.stop // per_word))
        numbers = words.view(dtype)[s.start % per_word :]
        np.less(numbers[: s.stop - s.start], kept, out=mask[s])

    each_slice(one_slice, mask, 4 * dtype.itemsize)
    return mask.reshape(shape)


def scale_of(p: float) -> float:
    """Return 1/(1 − p), which what stays is multiplied by; 0 if nothing stays."""
    return 1 / (1 - p) if p < 1 else 0.0


@twin("dropout")
def dropout(x: Array, place: Array, p: float, parts: tuple[int, ...]) -> tuple[Array, Array]:
    """Return y = x·m/(1 − p) with a new mask m, and what `dropout_backward` knows it by.

    Args:
        x: any C-contiguous array.
        place: (2,), uint64, on the device of x: key and step of the random numbers; goes on to the next step.
        p: probability that a part is dropped.
        parts: the shape of m, which is broadcast to x: a part is a number where it is that of x, an image where it is
            (N, 1, 1, 1).
    """
    mask = keep_mask(int(place[0]), int(place[1]), p, parts)
    place[1] += np.uint64(1)
    return _masked(x, mask, p), mask


@twin("dropout")
def dropout_backward(dy: Array, mask: Array, p: float, parts: tuple[int, ...]) -> Array:
    """Return dx = dy·m/(1 − p) with the mask of the forward, `dropout`."""
    return _masked(dy, mask, p)


def _masked(x: Array, mask: Array, p: float) -> Array:
    y = np.empty_like(x)

    def one_slice(s: slice) -> None:
        m = mask[s] if len(mask) == len(x) else mask
        np.multiply(x[s], np.multiply(m, scale_of(p), dtype=x.dtype), out=y[s])

    each_slice(one_slice, x)
    return y
