"""Matrix products of tall, narrow matrices, cut into blocks.

BLAS libraries first copy ("pack") the operands of a product into an order that their inner loop likes.  Where one
matrix is narrow, each number that was packed meets few others, and packing costs as much as multiplying.  OpenBLAS
has kernels that work on small matrices as they lie; it takes them while M·N·K stays within a million.  So a product
of M rows, M large, is quicker as a stack of products of fewer rows each (one thread of an AVX-512 Xeon, float32)::

    (M, 144) @ (144, 16)     M = 4096 at once: 82 GFLOP/s      in blocks of 256: 113
    (M, 75) @ (75, 6)        M = 4096 at once: 31              in blocks of 1024: 63
"""

from __future__ import annotations

from ..backend import Array, array_module, is_device_array
from ..parallel import scratch

BLOCK = 1_000_000
"""Multiplications in a block."""
FEWEST_ROWS = 32
"""Blocks of fewer rows than this are slower than the whole."""
FEWEST_TERMS = 128
"""The same for `inner`, where every block leaves a matrix to be added up."""


def rows(a: Array, b: Array, out: Array) -> None:
    """Write a @ b, (M, K) @ (K, N), into ``out``, block by block of rows."""
    xp = array_module(a)
    M, (K, N) = len(a), b.shape
    block = BLOCK // (K * N)
    if block < FEWEST_ROWS or block >= M or is_device_array(a):
        xp.matmul(a, b, out=out)
        return
    whole = M - M % block
    # (M, K) -> (M/block, block, K);  (M/block, block, K) @ (K, N) -> (M/block, block, N)
    xp.matmul(a[:whole].reshape(-1, block, K), b, out=out[:whole].reshape(-1, block, N))
    if whole < M:
        xp.matmul(a[whole:], b, out=out[whole:])


def inner(a: Array, b: Array, name: str = "inner") -> Array:
    """Return aᵀ b of ``a`` (M, K) and ``b`` (M, N), in scratch ``name``; the sum over M goes block by block."""
    xp = array_module(a)
    (M, K), N = a.shape, b.shape[1]
    out = scratch(name, (K, N), a.dtype, like=a)
    block = BLOCK // (K * N)
    if block < FEWEST_TERMS or block >= M or is_device_array(a):
        return xp.matmul(a.T, b, out=out)
    whole = M - M % block
    parts = scratch("inner_parts", (M // block + 1, K, N), a.dtype, like=a)
    # (M, K) -> (M/block, block, K) -> (M/block, K, block);  (M/block, K, block) @ (M/block, block, N)
    xp.matmul(a[:whole].reshape(-1, block, K).transpose(0, 2, 1), b[:whole].reshape(-1, block, N), out=parts[:-1])
    xp.matmul(a[whole:].T, b[whole:], out=parts[-1])
    return xp.add.reduce(parts, axis=0, out=out)
