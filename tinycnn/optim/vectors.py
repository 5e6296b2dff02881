"""The pieces that updates are made of: a few operations on vectors, in place.

Each allocates nothing: a work array is passed in, or is the thread's own `work`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..backend import Array, array_module
from ..parallel import each_slice, scratch
from .groups import Group


def each_chunk(task: Callable[[slice], None], x: Array, touched: int) -> None:
    """Call ``task(s)`` for every chunk ``s`` of a vector, on all threads; see `each_slice`.

    Chunks are four times the usual slice: an elementwise operation is so short that threads which hand Python's
    lock to each other between two of them lose more by that than by a few misses of the L2 cache.

    Args:
        task: writes its results itself, only to its own chunk.
        x: the vector.
        touched: how many vectors of the size of ``x`` the task works on.
    """
    each_slice(task, x, item_bytes=max(1, touched * x.itemsize // 4))


def work(p: Array, name: str) -> Array:
    """Return a work array like the stretch ``p``, of this thread's own."""
    return scratch(f"optim.{name}", p.shape, p.dtype, like=p)


def lerp(average: Array, x: Array, weight: float, a: Array) -> None:
    """average ← average + weight·(x − average), with the work array ``a``."""
    xp = array_module(x)
    xp.subtract(x, average, out=a)
    a *= weight
    average += a


def add_square(average: Array, g: Array, beta: float, a: Array) -> None:
    """average ← β·average + (1 − β)·g², with the work array ``a``."""
    xp = array_module(g)
    average *= beta
    xp.multiply(g, 1 - beta, out=a)
    a *= g
    average += a


def decayed(p: Array, g: Array, group: Group) -> Array:
    """Apply weight decay to a stretch; return the gradient to go on with.

    As the gradient of λ/2·‖p‖² (L2 regularisation): g + λ·p.  Decoupled: p ← p·(1 − lr·λ), and g as it is.
    """
    weight_decay = group["weight_decay"]
    if weight_decay == 0:
        return g
    if group.get("decoupled_weight_decay", False):
        p *= 1 - group["lr"] * weight_decay
        return g
    total = work(p, "g")
    array_module(p).multiply(p, weight_decay, out=total)
    total += g
    return total


def memory_order(x: Array) -> Array:
    """Return the vector of what a parameter holds, in the order of its memory; a view."""
    if x.ndim != 4:
        return x.reshape(-1)
    # (OC, C, KH, KW) -> (OC, KH, KW, C) -> (OC·KH·KW·C,)
    return x.transpose(0, 2, 3, 1).reshape(-1)
