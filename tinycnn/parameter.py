"""Parameters, and the flat buffers that a whole network's parameters and gradients live in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .backend import Array, array_module, to_device

CACHE_LINE = 64
"""Bytes that a core's caches move at a time."""


class Parameter:
    """A trainable array and its gradient.

    A four-dimensional parameter has PyTorch's shape (OC, C, KH, KW) on channels-last memory, the order of
    (OC, KH, KW, C), so that the weight matrix (OC, KH·KW·C) that a convolution multiplies by is a view.

    Attributes:
        name: path from the root of the network, ``layer1.0.conv1.weight``.
        data: the values.
        grad: dL/d(data), same shape, memory order and dtype.  Backward passes **add** to it.  (`zero_grad` only notes
            that it is clear: the zeros are written when somebody reads them, and where the first gradient replaces
            them, never.  So ask the parameter for it, and keep no array that was its gradient before.)
        requires_grad: False freezes the parameter: no gradient is computed for it and optimizers skip it.

    Raises:
        ValueError: the values are neither float32 nor float64.

    >>> w = Parameter(np.ones((2, 3)), "w")
    >>> w.accumulate(np.full((2, 3), 2.0))  # what a backward does
    >>> w.accumulate(np.full((2, 3), 2.0))
    >>> w.grad[0]
    array([4., 4., 4.])
    """

    __slots__ = ("_clear", "_grad", "data", "name", "requires_grad")

    def __init__(self, data: Array, name: str = "", requires_grad: bool = True) -> None:
        if data.dtype.name not in ("float32", "float64"):
            raise ValueError(f"a parameter must be float32 or float64, got {data.dtype}: convert it with astype")
        self.name = name
        self.data = channels_last(data)
        self.grad = _zeros_like(self.data)
        self.requires_grad = requires_grad

    @property
    def grad(self) -> Array:
        """The gradient."""
        self.write_zeros()
        return self._grad

    @grad.setter
    def grad(self, gradient: Array) -> None:
        self._grad, self._clear = gradient, False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values, PyTorch's."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of scalars."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.data.dtype

    def cast(self, dtype: np.typing.DTypeLike) -> Array:
        """Return the values in ``dtype``, which activations have: a copy only in mixed precision."""
        return self.data if self.data.dtype == dtype else self.data.astype(dtype)

    def accumulate(self, gradient: Array) -> None:
        """Add ``gradient`` to ``grad``, unless the parameter is frozen."""
        if not self.requires_grad:
            return
        clear = self.take_clear_grad()
        if clear is None:
            self._grad += gradient
        else:
            clear[...] = gradient

    def take_clear_grad(self) -> Array | None:
        """Return ``grad`` for the first gradient after `zero_grad`, which must be written over all of it; else None."""
        if not (self._clear and self.requires_grad):
            return None
        self._clear = False
        return self._grad

    def sink(self) -> tuple[Array, bool] | None:
        """Return ``grad``, and whether the next gradient is added to it or written over all of it; None when frozen.

        Whoever asks must do so.
        """
        clear = self.take_clear_grad()
        if clear is not None:
            return clear, False
        return (self._grad, True) if self.requires_grad else None

    def zero_grad(self) -> None:
        """Clear the gradient."""
        self._clear = True

    @property
    def is_clear(self) -> bool:
        """Whether `zero_grad` has cleared the gradient and nothing has been written since."""
        return self._clear

    def written(self) -> None:
        """Take what is in the gradient's memory for the gradient: a replayed CUDA graph has written it."""
        self._clear = False

    def write_zeros(self) -> None:
        """Write the zeros of a gradient that `zero_grad` cleared and nothing has been added to since."""
        if self._clear:
            self._grad.fill(0)
            self._clear = False

    def to(self, device: str) -> None:
        """Move values and gradient to ``"cpu"`` or ``"cuda"``."""
        self.data, self.grad = to_device(self.data, device), to_device(self.grad, device)

    def __setstate__(self, state: tuple[None, dict[str, Any]]) -> None:
        """Come back from a pickle, which keeps no memory order, on channels-last memory."""
        for name, value in state[1].items():
            setattr(self, name, channels_last(value) if name in ("data", "_grad") else value)

    def astype(self, dtype: np.typing.DTypeLike) -> None:
        """Convert values and gradient to ``dtype``; nothing is copied where they are of it."""
        self.data, self.grad = self.data.astype(dtype, copy=False), self.grad.astype(dtype, copy=False)

    def __repr__(self) -> str:
        frozen = "" if self.requires_grad else ", frozen"
        return f"Parameter({self.name or 'unnamed'}, {tuple(self.shape)}, {self.dtype}{frozen})"


def channels_last(x: Array) -> Array:
    """Return ``x`` on channels-last memory: the strides of NHWC under the shape NCHW, for four dimensions.

    Nothing is copied when the memory is in that order already; other ranks become C-contiguous.
    """
    xp = array_module(x)
    if x.ndim != 4:
        return xp.ascontiguousarray(x) if x.ndim else x  # a 0-dimensional array would come back with one axis
    # (N, C, H, W) -> (N, H, W, C), contiguous, and back as a view
    return xp.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def _zeros_like(x: Array) -> Array:
    """Return zeros in the shape, type and memory order of ``x``, an array of `channels_last`.

    Memory that NumPy's ``zeros`` asks the system for is written when it is used, that of ``zeros_like`` at once: a
    network of 138 million parameters that is never trained should not wait for its gradients, nor keep memory for them.
    """
    xp = array_module(x)
    if x.ndim != 4:
        return xp.zeros(x.shape, x.dtype)
    N, C, H, W = x.shape
    return xp.zeros((N, H, W, C), x.dtype).transpose(0, 3, 1, 2)


def _aligned_zeros(size: int, like: Array) -> Array:
    """Return a vector of zeros of the type of ``like`` that begins at a cache line.

    NumPy's own memory begins 16 bytes into one: every load of 64 bytes (AVX-512) then touches two lines, and an
    operation on vectors in the cache takes up to twice as long.  (CuPy's begins at a multiple of 512.)
    """
    xp = array_module(like)
    if xp is not np:
        return xp.zeros(size, like.dtype)
    nbytes = size * like.itemsize
    memory = np.zeros(nbytes + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : first + nbytes].view(like.dtype)


def _owner(x: Array) -> Array:
    """Return the array that owns the memory of ``x``: what views of ``x`` have as their base."""
    return x if x.base is None else x.base


class FlatParameters:
    """One buffer for the values of many parameters and one for their gradients.

    Every parameter's ``data`` and ``grad`` become views of the buffers, in the order given, so an optimizer
    step is a handful of vector operations (on a GPU one launch), a gradient norm one dot product, and
    exchanging the gradients of a network one message: the sum of ``grad`` over several devices is the gradient
    of all their batches, gaps included.  Each parameter starts on a multiple of `ALIGN` elements (a cache line);
    the gaps hold zeros, before and after every step.

    Attributes:
        parameters: in buffer order.
        data, grad: the buffers, one-dimensional; ask for ``grad`` anew after every `Parameter.zero_grad`.
        spans: where each parameter lies: ``data[span]`` holds it in memory order.
    """

    ALIGN = 16

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self.parameters: list[Parameter] = list(parameters)
        if not self.parameters:
            raise ValueError("there are no parameters to lay out flat: pass model.parameters() of a model with some")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError("a parameter appears twice among those to lay out flat")
        kinds = {(array_module(p.data).__name__, str(p.dtype)) for p in self.parameters}
        if len(kinds) > 1:
            raise ValueError(f"parameters must share one device and dtype, got {sorted(kinds)}")
        first = self.parameters[0].data
        self.spans: list[slice] = []
        end = 0
        for p in self.parameters:
            self.spans.append(slice(end, end + p.size))
            end += -(-p.size // self.ALIGN) * self.ALIGN
        self._like, self._size = array_module(first).empty(0, first.dtype), end
        self.data, self._grad = self.new_buffer(), self.new_buffer()
        for p, span in zip(self.parameters, self.spans, strict=True):
            data, grad = self.view(self.data, p, span), self.view(self._grad, p, span)
            data[...], grad[...] = p.data, p.grad
            p.data, p.grad = data, grad

    @property
    def grad(self) -> Array:
        """The gradients."""
        for p in self.parameters:
            p.write_zeros()
        return self._grad

    @property
    def grad_memory(self) -> Array:
        """The buffer of the gradients as it is: of a parameter that `Parameter.zero_grad` cleared, the old ones."""
        return self._grad

    def clear_gaps(self) -> None:
        """Write zeros between the gradients: a factor that is not a number makes even zeros so."""
        ends = [span.start for span in self.spans[1:]] + [self._size]
        for span, end in zip(self.spans, ends, strict=True):
            self._grad[span.stop : end] = 0

    def new_buffer(self) -> Array:
        """Return another buffer of this layout, of zeros."""
        return _aligned_zeros(self._size, self._like)

    @staticmethod
    def view(buffer: Array, p: Parameter, span: slice) -> Array:
        """Return the part ``span`` of ``buffer`` in the shape and memory order of the parameter ``p``."""
        if len(p.shape) != 4:
            return buffer[span].reshape(p.shape)
        OC, C, KH, KW = p.shape
        # (OC·KH·KW·C,) -> (OC, KH, KW, C) -> (OC, C, KH, KW)
        return buffer[span].reshape(OC, KH, KW, C).transpose(0, 3, 1, 2)

    def runs(self, members: Sequence[Parameter]) -> list[slice]:
        """Return the fewest spans of the buffers that cover ``members`` and no other parameter."""
        wanted = {id(p) for p in members}
        runs: list[slice] = []
        previous = False
        for p, span in zip(self.parameters, self.spans, strict=True):
            if id(p) in wanted:
                runs = [*runs[:-1], slice(runs[-1].start, span.stop)] if previous else [*runs, span]
            previous = id(p) in wanted
        return runs

    def check(self) -> None:
        """Make sure that every parameter still lives in the buffers.

        Raises:
            RuntimeError: a parameter was given other arrays (by ``to`` or ``astype``, say) since.
        """
        data, grad = _owner(self.data), _owner(self._grad)
        for p in self.parameters:
            if p.data.base is not data or p._grad.base is not grad:
                raise RuntimeError(
                    f"parameter {p.name or '(unnamed)'} has left the optimizer's flat buffer: "
                    "move or convert the model first (to, astype), then make the optimizer"
                )
