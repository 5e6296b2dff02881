"""Multiplication by a constant.

**Idea.**  A residual branch with very many channels can grow until training dies.  Scaled down before it is added to
its input, it stays stable: y = x + s·f(x), with s between 0.1 and 0.3.

**Forward**: y = s·x.  **Backward**: dx = s·dy.  Nothing is saved but a shape.

Source: Szegedy, Ioffe, Vanhoucke & Alemi 2017, "Inception-v4, Inception-ResNet and the impact of residual connections
on learning", section 3.3.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..kernels import activation as formulas
from ..parallel import each_slice
from .activation import in_rows
from .base import Layer, LayerError


class Scale(Layer):
    """y = s·x.

    Args:
        factor: s, a number that is not trained.

    Shape:
        any.

    Raises:
        LayerError: ``factor`` is not a finite number.

    >>> Scale(0.5)(np.array([-2.0, 0.0, 3.0]))
    array([-1. ,  0. ,  1.5])
    """

    def __init__(self, factor: float) -> None:
        super().__init__()
        if not isinstance(factor, int | float | np.number) or not np.isfinite(factor):
            raise LayerError(f"Scale: factor must be a finite number, got {factor!r}")
        self.factor = float(factor)

    def forward(self, x: Array) -> Array:
        """Return s·x."""
        x = self.check_input(x)
        self.save(x.shape)
        return self._times(x)

    def backward(self, dy: Array) -> Array:
        """Return s·dy."""
        (shape,) = self.take_saved()
        return self._times(self.check_gradient(dy, shape))

    def _times(self, x: Array) -> Array:
        y = array_module(x).empty_like(x)
        source, target = in_rows(x), in_rows(y)
        item_bytes = 2 * x.nbytes // max(len(source), 1)
        each_slice(lambda s: formulas.scale(source[s], self.factor, target[s]), source, item_bytes)
        return y

    def options(self) -> str:
        """Return the factor."""
        return str(self.factor)
