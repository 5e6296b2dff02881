"""What all losses share: the reduction, checks, and the softmax."""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module, is_device_array
from ..kernels.loss import Reduction

FLOATS = ("float32", "float64")
HALVES = ("float16", "bfloat16")
"""What logits may be on a GPU.  The loss, targets and weights are float32 then."""


def softmax(x: Array, axis: int = 1) -> Array:
    """Return p_c = exp x_c / Σ_k exp x_k along ``axis``, stable for any finite x.

    >>> softmax(np.log([[1.0, 1.0, 2.0]]))
    array([[0.25, 0.25, 0.5 ]])
    """
    xp = array_module(x)
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int = 1) -> Array:
    """Return log p_c = x_c − log Σ_k exp x_k along ``axis``, stable for any finite x.

    >>> log_softmax(np.array([[1000.0, 0.0]]))
    array([[    0., -1000.]])
    """
    xp = array_module(x)
    z = x - x.max(axis=axis, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=axis, keepdims=True))


class Loss:
    """Base of the losses: the reduction, and the checks that all share.

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Attributes:
        grad_scale: (), multiplies dlogits and not the loss, if given.  Gradients in float16 need it: small ones would
            round to 0.

    Raises:
        ValueError: another reduction.
    """

    grad_scale: Array | None = None

    def __init__(self, reduction: Reduction = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction: Reduction = reduction
        self._moved: dict[tuple[object, ...], tuple[Array, Array]] = {}

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        raise TypeError(f"{type(self).__name__} must define __call__")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"

    def option(self, name: str, like: Array) -> Array:
        """Return the array given for the option ``name``, in the dtype and on the device of ``like``.

        A copy on a GPU is made once: while a step is captured as a graph nothing can be copied there.
        """
        value = getattr(self, name)
        if not is_device_array(like):
            return np.asarray(value, like.dtype)
        dtype = _precise(like.dtype)
        source, moved = self._moved.get((name, dtype), (None, None))
        if source is not value:
            moved = array_module(like).asarray(value, dtype)
            self._moved[name, dtype] = value, moved
        return moved

    def check_logits(self, logits: Array) -> None:
        """Make sure of a floating-point array.

        Raises:
            ValueError: it is something else.
        """
        if isinstance(logits, tuple):
            raise ValueError(
                f"{type(self).__name__}: got {len(logits)} arrays of logits, as a network with auxiliary heads returns "
                "them in training: use AuxiliaryLoss around this loss"
            )
        name = getattr(getattr(logits, "dtype", None), "name", "")
        if name not in FLOATS and not (name in HALVES and is_device_array(logits)):
            got = getattr(logits, "dtype", type(logits).__name__)
            raise ValueError(f"{type(self).__name__}: logits must be a float32 or float64 array, got {got}")

    def check_device(self, logits: Array, targets: Array) -> None:
        """Make sure that both arrays live on one device.

        Raises:
            ValueError: they do not.
        """
        if array_module(logits) is not array_module(targets):
            raise ValueError(f"{type(self).__name__}: logits and targets live on different devices: move one of them")

    def same_shape(self, logits: Array, targets: Array) -> Array:
        """Return real-valued targets in the logits' dtype.

        Raises:
            ValueError: another shape or device.
        """
        self.check_logits(logits)
        xp = array_module(logits)
        targets = targets if hasattr(targets, "dtype") else xp.asarray(targets)
        self.check_device(logits, targets)
        if targets.shape != logits.shape:
            raise ValueError(
                f"{type(self).__name__}: targets must have the shape of the logits, {tuple(logits.shape)}, "
                f"got {tuple(targets.shape)}"
            )
        return targets.astype(_precise(logits.dtype), copy=False)


def _precise(dtype: np.dtype) -> np.dtype:
    """Return what goes with logits of ``dtype``: float32 for 16 bits."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype
