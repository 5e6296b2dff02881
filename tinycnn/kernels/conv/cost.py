"""What the parts of a convolution cost: the model by which one way to compute it is preferred to another.

Times are predicted, in nanoseconds of one core, from sizes alone, never measured at run time: the same network on the
same batch takes the same route, and gives the same bits, always and everywhere.  The figures are those of an AVX-512
Xeon with OpenBLAS and float32; another machine is another factor, and the order of the routes changes little.
"""

from __future__ import annotations

RUN, MOVE = 4.5, 0.15
"""Copying: one contiguous run, whatever its length; and each number in it, in cache."""
ADD_RUN, ADD = 10.0, 0.3
"""The same for adding runs to runs."""
PEAK = 135.0
"""GFLOP/s of a large product, that is FLOP in a nanosecond."""
FILTER = 8.0
"""For each number in the filters: bringing them into a product's order, forward and backward, and the gradient back."""
READ = 0.27
"""For each number in filters that are made and kept: reading it from memory, once."""
PACK = 0.25
"""For each number in filters: bringing it into the order that the inner loop of a large product wants."""
WINOGRAD_PEAK = {2: 137.0, 4: 116.0}
"""GFLOP/s of Winograd's products, which come in many small ones; by m, as are the next two."""
POINT = {2: 0.97, 4: 0.95}
"""For each number of an image taken to the points of a tile, or back."""
POINT_OF_FILTER = {2: 1.0, 4: 0.61}
"""The same for the filters."""
WINOGRAD_START = 120_000.0
"""For what is done once, however small the image."""
NARROW, SHALLOW = 6, 8
"""Columns, and terms of the sum, at which a product reaches half its peak."""


def copy_time(numbers: float, run: int) -> float:
    """Time to gather so many numbers in contiguous runs of length ``run``."""
    return numbers * (MOVE + RUN / max(run, 1))


def add_time(numbers: float, run: int) -> float:
    """Time to add so many numbers in contiguous runs of length ``run``."""
    return numbers * (ADD + ADD_RUN / max(run, 1))


def product_time(M: float, K: int, N: int) -> float:
    """Time of (M, K) @ (K, N), M being large."""
    return 2 * M * (K + SHALLOW) * (N + NARROW) / PEAK
