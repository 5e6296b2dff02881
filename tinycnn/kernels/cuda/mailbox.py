"""Numbers that Python computes anew for every step, on their way to kernels.

A number given to a kernel as an argument is part of a captured CUDA graph: every replay has the same.  What changes
from step to step therefore lies in device memory, and is written there before the step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...backend import Array, array_module

ROWS = 4
"""Copies that may be under way at a time."""


class Mailbox:
    """A small array on the device that the host writes without waiting for the device.

    The copy is asynchronous, in the order of the current stream: kernels launched before it see the old numbers,
    kernels launched after it the new ones.  It reads memory of the host at some time after `send` has returned, so the
    next `send` must not write there: `ROWS` pieces of (page-locked) memory take turns, and one whose copy is not over
    yet makes the host wait, which holds it back only when it is `ROWS` steps ahead.

    Args:
        like: an array on the device, of the type wanted.
        shape: of the numbers.

    Attributes:
        device: the array, for kernels to read; zeros at first.
    """

    def __init__(self, like: Array, shape: tuple[int, ...]) -> None:
        xp = array_module(like)
        self.device = xp.zeros(shape, like.dtype)
        size = max(self.device.size, 1)
        memory = xp.cuda.alloc_pinned_memory(ROWS * size * self.device.itemsize)
        self._host = np.frombuffer(memory, self.device.dtype, ROWS * size)[: ROWS * self.device.size]
        self._host = self._host.reshape(ROWS, *shape)
        self._copied = [xp.cuda.Event(disable_timing=True) for _ in range(ROWS)]
        self._turn = 0
        self._sent: Any = None

    def send(self, numbers: Any) -> None:
        """Have kernels that are launched from now on see these ``numbers``; nothing happens if they are the last."""
        if numbers == self._sent:
            return
        self._sent, turn = numbers, self._turn
        self._turn = (turn + 1) % ROWS
        self._copied[turn].synchronize()
        self._host[turn] = numbers
        stream = array_module(self.device).cuda.get_current_stream()
        self.device.set(self._host[turn], stream=stream)
        self._copied[turn].record(stream)
