"""A whole optimizer step as one launch.

The kernels do what `update` of the optimizers in `tinycnn.optim` does, operation by operation in the same order; that
is their specification.  What goes around it, weight decay and the choice of who is updated, is `Optimizer.prepare`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...backend import Array, array_module
from .mailbox import Mailbox
from .module import THREADS, Variant, kernel
from .places import places, tile_size

VARIANTS: list[Variant] = [("optim", dtype, {}) for dtype in ("float32", "float64")]
NUMBERS = 8
"""Numbers of an update: two for weight decay, and those of `Optimizer.scalars`.  The same in optim.cu."""

Span = tuple[int, int, int]
"""(start, stop, row): elements of the buffers, and the row of numbers that they are updated with."""


class Step:
    """One optimizer step: the launch and what it reads.

    Args:
        name: of the kernel.
        arrays: parameters, gradients, and every slot of the state, None where it is not in use; flat buffers.
        spans: what to update, at multiples of 16 bytes.
        rows: of numbers.
        guard: what gradients are multiplied by, and whether to do nothing; on the device, or None.
    """

    def __init__(
        self,
        name: str,
        arrays: Sequence[Array | None],
        spans: Sequence[Span],
        rows: int,
        guard: tuple[Array | None, Array | None] = (None, None),
    ) -> None:
        self._arrays, self._guard = tuple(arrays), tuple(guard)
        data = self._arrays[0]
        assert data is not None
        self._kernel = kernel("optim", name, data.dtype)
        self._blocks, self._tiles = tile_table(spans, data)
        self._numbers = Mailbox(data, (rows, NUMBERS))
        self._skipped = array_module(data).zeros(1, np.int32)

    def is_of(self, arrays: Sequence[Array | None], guard: tuple[Array | None, Array | None]) -> bool:
        """Whether these are the arrays and the guard of the step."""
        mine, theirs = (*self._arrays, *self._guard), (*arrays, *guard)
        return all(a is b for a, b in zip(mine, theirs, strict=True))

    def send(self, rows: Sequence[tuple[float, ...]]) -> None:
        """Send the numbers of the next update, a row for each cohort."""
        if rows:
            self._numbers.send([row + (0,) * (NUMBERS - len(row)) for row in rows])

    def launch(self) -> None:
        """Update."""
        if self._blocks:
            scale, skip = self._guard
            numbers = (self._tiles, self._numbers.device, scale, skip, self._skipped)
            self._kernel(self._blocks, THREADS, *numbers, *self._arrays)

    def was_skipped(self) -> bool:
        """Whether the last launch was told to do nothing; waits for it."""
        return bool(self._skipped.get()[0])


def tile_table(spans: Sequence[Span], like: Array) -> tuple[int, Array]:
    """Return how many tiles there are and a table of their (start, stop, row) on the device: spans cut for blocks."""
    size = tile_size(sum(stop - start for start, stop, _ in spans))
    starts = [np.arange(start, stop, size) for start, stop, _ in spans]
    rows = [
        np.stack([own, np.minimum(own + size, stop), np.full_like(own, row)], axis=1)
        for own, (_, stop, row) in zip(starts, spans, strict=True)
    ]
    table = np.concatenate(rows or [np.empty((0, 3))]).astype(np.int64)
    return len(table), array_module(like).asarray(table)


class Follow:
    """Averages that move towards values, all of one type in one launch.

    Args:
        averages, values: arrays in pairs.
    """

    def __init__(self, averages: Sequence[Array], values: Sequence[Array]) -> None:
        self._kinds = []
        for dtype in dict.fromkeys(x.dtype for x in averages):
            pairs = [(a, x) for a, x in zip(averages, values, strict=True) if a.dtype == dtype]
            table = places([a for a, _ in pairs], [x for _, x in pairs])
            self._kinds.append((kernel("optim", "follow", dtype), table, Mailbox(pairs[0][0], (1,))))

    def send(self, weight: float) -> None:
        """Send how far averages move: 0 is nowhere, 1 all the way."""
        for _, _, mailbox in self._kinds:
            mailbox.send([weight])

    def launch(self) -> None:
        """Move them."""
        for follow, table, mailbox in self._kinds:
            if table.tiles:
                follow(table.tiles, THREADS, table.table, mailbox.device)
