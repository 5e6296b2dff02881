"""The fully connected layer.

**Idea.**  Every output is a weighted sum of all inputs.

=========  ==========================================================================
N          images;  IN input features;  OUT output features
x, y, dy   (N, IN), (N, OUT), (N, OUT)
w, b       (OUT, IN) and (OUT,)
=========  ==========================================================================

**Forward**::

    y = x wᵀ + b                                                                      (1)

**Backward.**  y[n, o] = Σ_i w[o, i]·x[n, i] + b[o]: the number w[o, i] met x[n, i] in y[n, o] for every n,
x[n, i] met w[o, i] there for every o, and b[o] is added to every y[n, o]::

    dw = dyᵀ x                                                                        (2)
    db = Σ_n dy                                                                       (3)
    dx = dy w                                                                         (4)

**Cost.**  2·N·IN·OUT FLOP forward, twice that backward.  Behind a CNN the weight is mostly larger than the
batch (VGG's first has 103 million numbers), so the work is cut along the features, where a convolution is cut
along the batch: each slice reads its own part of the weight, once, and no partial sums of dw are needed.

**Saved for backward:** x.

Sources: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..initializers import Initializer, default_uniform, fans
from ..parallel import each_slice
from ..parameter import Parameter
from .base import Layer, LayerError
from .check import whole


def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """Equation (1): y (N, OUT) from x (N, IN), w (OUT, IN) and b (OUT,) or None."""
    xp = array_module(x)
    y = xp.empty((len(x), len(w)), x.dtype)

    def some_outputs(s: slice) -> None:
        # (N, IN) @ (IN, out) -> (N, out)
        xp.matmul(x, w[s].T, out=y[:, s])
        if b is not None:
            y[:, s] += b[s]

    each_slice(some_outputs, w, w[0].nbytes)
    return y


def linear_backward_weight(dy: Array, x: Array) -> Array:
    """Equation (2): dw (OUT, IN)."""
    xp = array_module(x)
    dw = xp.empty((dy.shape[1], x.shape[1]), x.dtype)

    def some_outputs(s: slice) -> None:
        # (out, N) @ (N, IN) -> (out, IN)
        xp.matmul(dy[:, s].T, x, out=dw[s])

    each_slice(some_outputs, dw, dw[0].nbytes)
    return dw


def linear_backward_input(dy: Array, w: Array) -> Array:
    """Equation (4): dx (N, IN)."""
    xp = array_module(dy)
    dx = xp.empty((len(dy), w.shape[1]), w.dtype)

    def some_inputs(s: slice) -> None:
        # (N, OUT) @ (OUT, in) -> (N, in)
        xp.matmul(dy, w[:, s], out=dx[:, s])

    each_slice(some_inputs, w.T, w[:, 0].nbytes)
    return dx


class Linear(Layer):
    """Weighted sums with trained weights; the module docstring has the mathematics.

    Args:
        in_features, out_features: IN and OUT.
        bias: whether b is there.
        init: fill of the weight; by default U(±1/√IN).  The bias always starts as U(±1/√IN) when ``init`` is
            not given, and at zero when it is.
        rng: generator that the initial values are drawn from; a fresh one by default.
        dtype: of the parameters.

    Shape:
        (N, IN) -> (N, OUT).

    Raises:
        LayerError: sizes below 1; an input of another rank, dtype or number of features.

    >>> Linear(3, 5)(np.zeros((2, 3), np.float32)).shape
    (2, 5)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        init: Initializer | None = None,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        owner = f"Linear({in_features}, {out_features})"
        self.in_features = whole(in_features, "in_features", owner)
        self.out_features = whole(out_features, "out_features", owner)
        rng = np.random.default_rng(rng)
        shape = (out_features, in_features)
        self.weight = Parameter((init or default_uniform)(shape, rng).astype(dtype))
        bound = fans(shape)[0] ** -0.5 if init is None else 0.0
        self.bias = Parameter(rng.uniform(-bound, bound, out_features).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return y, equation (1)."""
        if getattr(x, "ndim", 2) != 2:
            raise LayerError(
                f"{self}: expected an input of shape (N, features), got {x.shape}: put Flatten() before it"
            )
        x = self.check_input(x, rank=2, channels=self.in_features)
        self.save(x)
        return linear_forward(x, self.weight.data, self.bias and self.bias.data)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4); add (2) and (3) to the gradients."""
        (x,) = self.take_saved()
        dy = self.check_gradient(dy, (len(x), self.out_features))
        if self.weight.requires_grad:
            self.weight.accumulate(linear_backward_weight(dy, x))
        if self.bias:
            self.bias.accumulate(dy.sum(axis=0))
        return linear_backward_input(dy, self.weight.data) if self.needs_dx else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        return shape[0], self.out_features

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-adds of one forward on an x of ``shape``: N·IN·OUT."""
        return shape[0] * self.in_features * self.out_features

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        no_bias = self.__dict__.get("bias", True) is None
        return f"{self.in_features}, {self.out_features}" + (", bias=False" if no_bias else "")
