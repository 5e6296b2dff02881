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

**Cost.**  2·N·IN·OUT FLOP forward, twice that backward.  A batch of more images than there are outputs is larger
than the weight, and is cut into slices as in a convolution.  Behind a CNN the weight is mostly the larger (VGG's first
has 103 million numbers), and to read it is what takes time: then the work is cut along the features into a few large
parts, so that each reads its own part of the weight, once.  dw is always cut along the outputs, which needs no partial
sums, and each part is added to the gradient while it is in cache.

**Saved for backward:** x.

Sources: Rumelhart, Hinton & Williams 1986, "Learning representations by back-propagating errors".
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..initializers import Initializer, default_uniform, fans
from ..kernels.cuda import twin
from ..parallel import LANES, SERIAL_BYTES, each_slice, scratch
from ..parameter import Parameter
from .base import Layer, LayerError
from .check import whole

PARALLEL_MACS = 8_000_000
"""Multiply-adds that are worth a second thread, even where little memory is touched."""


@twin("linear")
def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """Equation (1): y (N, OUT) from x (N, IN), w (OUT, IN) and b (OUT,) or None."""
    xp = array_module(x)
    y = xp.empty((len(x), len(w)), x.dtype)

    def some_images(s: slice) -> None:
        # (n, IN) @ (IN, OUT) -> (n, OUT)
        xp.matmul(x[s], w.T, out=y[s])
        if b is not None:
            y[s] += b

    def some_outputs(s: slice) -> None:
        # (out, IN) @ (IN, N) -> (out, N), as BLAS is quicker with the larger matrix on the left;  (out, N) -> (N, out)
        yt = scratch("yt", (len(w[s]), len(x)), x.dtype, like=x)
        xp.matmul(w[s], x.T, out=yt)
        y[:, s] = yt.T if b is None else yt.T + b[s]

    if cuts_batch(x, w):
        each_slice(some_images, x, _item_bytes(x, w.size))
    else:
        each_slice(some_outputs, w, _item_bytes(w, x.size), w.nbytes // LANES)
    return y


@twin("linear")
def linear_backward_weight(dy: Array, x: Array, dw: Array, add: bool = False) -> None:
    """Equation (2), written or added to ``dw`` (OUT, IN)."""
    xp = array_module(x)

    def some_outputs(s: slice) -> None:
        part = scratch("dw", dw[s].shape, dw.dtype, like=dw) if add else dw[s]
        # (out, N) @ (N, IN) -> (out, IN)
        xp.matmul(dy[:, s].T, x, out=part)
        if add:
            dw[s] += part

    each_slice(some_outputs, dw, _item_bytes(dw, x.size))


@twin("linear")
def linear_backward_input(dy: Array, w: Array) -> Array:
    """Equation (4): dx (N, IN)."""
    xp = array_module(dy)
    dx = xp.empty((len(dy), w.shape[1]), w.dtype)

    def some_images(s: slice) -> None:
        # (n, OUT) @ (OUT, IN) -> (n, IN)
        xp.matmul(dy[s], w, out=dx[s])

    def some_inputs(s: slice) -> None:
        # (N, OUT) @ (OUT, in) -> (N, in)
        xp.matmul(dy, w[:, s], out=dx[:, s])

    if cuts_batch(dx, w):
        each_slice(some_images, dx, _item_bytes(dx, w.size))
    else:
        each_slice(some_inputs, w.T, _item_bytes(w.T, dy.size), w.nbytes // LANES)
    return dx


@twin("linear")
def linear_backward_bias(dy: Array) -> Array:
    """Equation (3): db (OUT,)."""
    return dy.sum(axis=0)


def cuts_batch(x: Array, w: Array) -> bool:
    """Whether to cut the batch, and not the features (module docstring)."""
    return len(x) > len(w)


def _item_bytes(rows: Array, macs: int) -> int:
    """Memory of each of the ``rows``; at least enough for a second thread if they cost ``macs`` each and that pays."""
    n = max(len(rows), 1)
    return -(-max(rows.nbytes, SERIAL_BYTES if n * macs >= PARALLEL_MACS else 0) // n)


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
        self.init = init
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
        return linear_forward(x, self.weight.cast(x.dtype), self.bias and self.bias.cast(x.dtype))

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4); add (2) and (3) to the gradients."""
        (x,) = self.take_saved()
        dy = self.check_gradient(dy, (len(x), self.out_features))
        w = self.weight
        if w.requires_grad:
            clear = w.take_clear_grad()
            linear_backward_weight(dy, x, w.grad, add=clear is None)
        if self.bias:
            self.bias.accumulate(linear_backward_bias(dy))
        return linear_backward_input(dy, w.cast(x.dtype)) if self.needs_dx else None

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
