"""Winograd's points: the matrices that lead there and back, the filters there, and how tiles are counted (`winograd`).

=========  ===========================================================================================
m, t       outputs along a side of a tile, 2 or 4;  inputs that they see, t = m + 2
A, G, B    evaluation of a polynomial of m terms (t×m), of 3 terms (t×3);  interpolation (t×t)
w, U       filters (OC, 3, 3, C), and U = G w Gᵀ of each at the t² points
V, M       images at the points: (t², T, C) and (t², T, OC), with T tiles
=========  ===========================================================================================

G w Gᵀ of a 3×3 filter is one product with G ⊗ G, a matrix of t² rows and 9 columns: filters are many and small.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ...backend import Array, array_module, is_device_array
from ...parallel import each_slice, scratch
from ..norm import fold
from ..window import Window
from .tiles import Tiles

POINTS = {2: (0, 1, -1), 4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)}
"""Where polynomials are evaluated, besides ∞, for each m."""
BAND_BYTES = 32 << 20
"""Images whose V and M take more than this are worked through in bands of tile rows."""
GROUP = 16
"""Weights are cut between multiples of so many channels."""


@functools.cache
def matrices(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return A (t, m), B (t, t) and G (t, 3) in float64."""
    points = POINTS[m]
    infinity = np.eye(m + 2)[-1:]
    others = [np.poly([q for q in points if q != p])[::-1] for p in points]  # coefficients, lowest first
    scale = [1 / np.polyval(c[::-1], p) for p, c in zip(points, others, strict=True)]
    A = np.concatenate([np.vander(points, m, increasing=True), infinity[:, -m:]])
    B = np.stack([*(np.append(c, 0) for c in others), np.poly(points)[::-1]], axis=1)
    G = np.concatenate([np.vander(points, 3, increasing=True) * np.c_[scale], infinity[:, -3:]])
    return A, B, G


class Plan(NamedTuple):
    """What forward and backward need to know: the matrices in the dtype of x, tiles, sizes."""

    A: Array
    B: Array
    GG: Array
    """G ⊗ G, (t², 9): a filter in, all its points out."""
    AA: Array
    """Aᵀ ⊗ Aᵀ and a column of ones, (m², t² + 1): all points of a tile and a bias in, all its pixels out."""
    inputs: Tiles
    outputs: Tiles
    tile_bytes: int
    """Of one channel of one tile at all its points."""

    @property
    def P(self) -> int:
        """Number of points, t²."""
        return len(self.GG)

    def tiles(self, n: int) -> int:
        """Number of tiles on n images."""
        return n * self.inputs.TH * self.inputs.TW

    def cuts_weights(self, N: int, C: int, OC: int) -> bool:
        """Whether there are so few tiles that the weights are cut and not the batch."""
        return 2 * self.tiles(N) < max(C, OC)

    def band(self, rows: slice) -> tuple[Tiles, Tiles]:
        """Return inputs and outputs of some rows of tiles."""
        inputs, outputs = (
            tiles._replace(TH=rows.stop - rows.start, top=tiles.top - rows.start * tiles.step)
            for tiles in (self.inputs, self.outputs)
        )
        return inputs, outputs

    def bands(self, row_bytes: int, like: Array) -> list[tuple[Tiles, Tiles]]:
        """Cut inputs and outputs into bands of tile rows that take up to `BAND_BYTES`, the last first."""
        TH, m = self.inputs.TH, self.inputs.step
        count = 1 if is_device_array(like) else min(TH, -(-TH * row_bytes // BAND_BYTES))
        edges = itertools.pairwise(i * TH // count for i in range(count + 1))
        rows = [
            [tiles._replace(TH=b - a, top=tiles.top - a * m) for tiles in (self.inputs, self.outputs)] for a, b in edges
        ]
        return [(inputs, outputs) for inputs, outputs in reversed(rows)]


def make_plan(x: Array, window: Window, m: int) -> Plan:
    """Return the plan for ``x`` (N, H, W, C)."""
    plan = _plan(x.shape[1:3], x.dtype, window, m)
    if not is_device_array(x):
        return plan
    A, B, GG, AA = (array_module(x).asarray(matrix) for matrix in plan[:4])
    return plan._replace(A=A, B=B, GG=GG, AA=AA)


@functools.lru_cache(maxsize=512)
def _plan(size: tuple[int, int], dtype: np.dtype, window: Window, m: int) -> Plan:
    A, B, G = matrices(m)
    (top, _), (left, _) = window.padding
    OH, OW = window.out_size(*size)
    outputs = Tiles(-(-OH // m), -(-OW // m), m)
    AA = np.append(np.kron(A.T, A.T), np.ones((m * m, 1)), axis=1)
    A, B, GG, AA = (matrix.astype(dtype) for matrix in (A, B, np.kron(G, G), AA))
    return Plan(A, B, GG, AA, outputs._replace(top=top, left=left), outputs, len(GG) * dtype.itemsize)


FOR_FORWARD, FOR_BACKWARD = (1, 2, 0), (1, 0, 2)
"""Orders of (OC, 9, C), for `filters_to_points`."""


def filters_to_points(w: Array, order: tuple[int, int, int], plan: Plan, U: Array) -> None:
    """Write G w Gᵀ of ``w`` (OC, 3, 3, C) into ``U``: (t², OC, C) or, as ``order`` says, (t², C, OC)."""
    # (OC, 3, 3, C) -> (OC, 9, C) -> (9, OC, C) or (9, C, OC)
    w = w.reshape(len(w), 9, -1).transpose(order)
    taps = scratch("winograd taps", w.shape, w.dtype, like=w)
    taps[...] = w
    multiply(plan.GG, taps, U)


def multiply(K: Array, x: Array, out: Array) -> Array:
    """Write K (a, b) @ ``x`` (b, X, L) into ``out`` (a, X, L), some rows of L numbers at a time (`kernels.gemm`)."""
    _, X, L = x.shape
    k = fold(X, L, 512)
    # (b, X, L) -> (b, X/k, k·L) -> (X/k, b, k·L), and out likewise
    x, rows = (v.reshape(len(v), X // k, k * L).transpose(1, 0, 2) for v in (x, out))
    array_module(x).matmul(K, x, out=rows)
    return out


def each_group(
    task: Callable[[slice], None],
    channels: int,
    channel_bytes: int,
    like: Array,
    group: int = GROUP,
    least_bytes: int = 0,
) -> None:
    """Call ``task`` for slices of ``range(channels)`` that begin at multiples of ``group``.

    Args:
        task: called from several threads at once.
        channels, channel_bytes: how many, and the memory that working on one touches.
        like: an array of the device.
        group: channels that stay together.
        least_bytes: that a slice should touch, where there is more than one.
    """
    groups = array_module(like).empty(-(-channels // group))

    def some_groups(s: slice) -> None:
        task(slice(s.start * group, min(s.stop * group, channels)))

    each_slice(some_groups, groups, group * channel_bytes, least_bytes)


def filters_from_points(dM: Array, V: Array, plan: Plan) -> Array:
    """Equation (4): dw as (9, OC, C), in scratch, from ``dM`` (t², T, OC) and ``V`` (t², T, C)."""
    dU = scratch("winograd U", (plan.P, dM.shape[2], V.shape[2]), V.dtype, like=V)
    dw = scratch("winograd taps", (9, *dU.shape[1:]), V.dtype, like=V)
    # (t², OC, T) @ (t², T, C) -> (t², OC, C)
    array_module(V).matmul(dM.transpose(0, 2, 1), V, out=dU)
    return multiply(plan.GG.T, dU, dw)
