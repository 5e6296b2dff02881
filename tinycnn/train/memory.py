"""A GPU's memory: how much is in use, and what to say, and to do, when there is not enough."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator

from ..backend import Array, array_module, is_device_array
from ..layers.base import Layer
from ..optim import Optimizer

LARGEST = 3
"""Buffers that an error names."""


class OutOfMemoryError(MemoryError):
    """The GPU's memory does not suffice; the message says for what, and what would help."""


@contextlib.contextmanager
def out_of_memory_explained(
    model: Layer, optimizer: Optimizer, x: Array | None, release: Callable[[], None]
) -> Iterator[None]:
    """Turn CuPy's out-of-memory error into `OutOfMemoryError`, with the memory of the step given back.

    Args:
        model, optimizer: what is trained.
        x: the batch, if it is known.
        release: gives up memory that is not in CuPy's own pool.

    Raises:
        OutOfMemoryError: model and optimizer are usable afterwards, though the step was left in the middle.
    """
    said: str | None = None
    try:
        yield
    except MemoryError as error:
        if not is_device_array(optimizer.flat.data):
            raise
        said = str(error)
        traceback.clear_frames(error.__traceback__)  # their variables are arrays
    if said is None:
        return
    release()
    for layer in model.layers():
        layer._saved = None
    array_module(optimizer.flat.data).get_default_memory_pool().free_all_blocks()
    raise OutOfMemoryError(explanation(model, optimizer, x, said)) from None


def explanation(model: Layer, optimizer: Optimizer, x: Array | None, said: str) -> str:
    """Return what takes the memory, and what would help, in one line; ``said`` is CuPy's own message."""
    kept = 2 * optimizer.flat.data.nbytes + sum(buffer.nbytes for buffer in optimizer.state.values())
    words = [f"{said.rstrip('.')}; parameters, gradients and the optimizer's state take {size(kept)}"]
    batch = "" if x is None else f" with {len(x)} images of {'×'.join(map(str, x.shape[1:]))} in a batch"
    if x is not None and (outputs := _outputs(model, x)):
        largest = sorted(outputs, key=lambda output: -output[0])[:LARGEST]
        named = ", ".join(f"{path or 'the network'} {size(nbytes)}" for nbytes, path in largest)
        words.append(f"the layers' outputs {size(sum(n for n, _ in outputs))}, the largest of them {named}")
    words.append("use a smaller batch, or Checkpointed blocks, which compute their inner outputs once more")
    return f"the GPU is out of memory{batch}: {'; '.join(words)}"


def _outputs(model: Layer, x: Array) -> list[tuple[int, str]]:
    """Return bytes and path of every layer's output for a batch like ``x``, from a batch of one."""
    with contextlib.suppress(Exception):  # there may be no memory even for that
        rows = model.summary((1, *x.shape[1:])).rows
        return [(len(x) * row.activation_bytes, row.path) for row in rows]
    return []


def usage(like: Array, graph_bytes: int = 0) -> str:
    """Return in words how much of the GPU's memory is in use.

    Args:
        like: an array on the GPU.
        graph_bytes: what captured steps keep, which is not in CuPy's own pool.
    """
    xp = array_module(like)
    pool = xp.get_default_memory_pool()
    free, total = xp.cuda.runtime.memGetInfo()
    graph = f", {size(graph_bytes)} by the CUDA graph" if graph_bytes else ""
    return (
        f"{size(pool.used_bytes())} in arrays, {size(pool.total_bytes())} held by the pool{graph}; "
        f"{size(free)} of {size(total)} free"
    )


def size(nbytes: float) -> str:
    """Return a number of bytes in words.

    >>> size(3 << 20), size(5 << 30)
    ('3.0 MiB', '5.00 GiB')
    """
    return f"{nbytes / 2**30:.2f} GiB" if nbytes >= 1 << 30 else f"{nbytes / 2**20:.1f} MiB"
