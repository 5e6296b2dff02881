"""A residual branch that is left out of some training steps.

**Idea.**  With f(x) the branch and m, drawn anew for every batch, 1 with probability 1 − p and else 0::

    y = m/(1 − p) · f(x)          dx = m/(1 − p) · fᵀ(dy)

which is ``Sequential(f, StochasticDepth(p))``.  But where m = 0 there is nothing to compute: neither forward nor
backward of f runs, its parameters get no gradient, its running statistics stay as they are.  With half of the last
blocks left out, and fewer of the first, a network trains in three quarters of the time.

**On a GPU** the choice is made there, where no Python can follow it: a captured graph makes it anew at every replay.
So the branch runs, its output and gradient are multiplied by 0, and its running statistics are set back: the same
numbers, but no time is saved.

**Saved for backward:** m, and the shape of x.

Source: Huang, Sun, Liu, Sedra & Weinberger 2016, "Deep networks with stochastic depth", sections 3 and 4.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module, device_of, is_device_array
from ..kernels.dropout import dropout_backward, keep_mask
from .base import Layer
from .dropout import StochasticDepth
from .shape import zero_images


class StochasticBranch(Layer):
    """``layer``, left out for a whole batch with probability ``p``, and then not computed; see the module docstring.

    In paths the layer's own children appear as this layer's.

    Args:
        layer: the branch.
        p: probability of leaving it out.
        rng: generator that the key of the choices is drawn from; a fresh one by default.

    Shape:
        that of ``layer``.

    Raises:
        LayerError: ``p`` is outside [0, 1].

    >>> from tinycnn import Identity
    >>> branch = StochasticBranch(Identity(), 0.5, rng=np.random.default_rng(0))
    >>> sorted({branch(np.ones((1, 1))).item() for _ in range(100)})
    [0.0, 2.0]
    """

    def __init__(self, layer: Layer, p: float, *, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        self.add("", layer)
        self.drop = StochasticDepth(p, "batch", rng=rng)

    @property
    def layer(self) -> Layer:
        """The branch."""
        return self._children[""]

    def require_dx(self, needed: bool = True) -> bool:
        """The branch needs what this layer needs."""
        self.needs_dx = needed
        self.reached = self.drop.require_dx(self.layer.require_dx(needed))
        return self.reached

    def forward(self, x: Array) -> Array:
        """Return m/(1 − p)·f(x) with a new m, or f(x) in evaluation."""
        x = self.check_input(x)
        certain = not self.training or self.drop.p == 0
        if not certain and is_device_array(x):
            return self._forward_there(x)
        key, step = self.drop.stream.state()
        kept = certain or bool(keep_mask(key, step, self.drop.p, (1,))[0])
        self.save(tuple(x.shape), kept)
        if kept:
            return self.drop.forward(self.layer.forward(x))
        self.drop.stream.step += 1
        return _zeros(self.layer.output_shape(x.shape), x)

    def _forward_there(self, x: Array) -> Array:
        """The same on a GPU, without looking at m."""
        xp, place = array_module(x), self.drop.stream.on(device_of(x))
        m = dropout_backward(xp.ones(1, np.float32), place, self.drop.p, (1,))  # of the draw that comes next
        before = [value.copy() for value in self.layer.buffers()]
        self.save(tuple(x.shape), True)
        y = self.drop.forward(self.layer.forward(x))
        for value, old in zip(self.layer.buffers(), before, strict=True):
            value[...] = xp.where(m[0] > 0, value, old)
        return y

    def backward(self, dy: Array) -> Array:
        """Return m/(1 − p)·fᵀ(dy)."""
        shape, computed = self.take_saved()
        if computed:
            return self.layer.backward(self.drop.backward(dy))
        dy = self.check_gradient(dy, self.output_shape(shape))
        return _zeros(shape, dy) if self.needs_dx else None

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the branch's."""
        return self.layer.output_shape(shape)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the branch's, as if it always ran."""
        return self.layer.macs(shape)

    def options(self) -> str:
        """Return the branch and the probability of leaving it out."""
        return f"{self.layer!r}, p={self.drop.p}"


def _zeros(shape: tuple[int, ...], like: Array) -> Array:
    """Return zeros on channels-last memory."""
    return zero_images(shape, like) if len(shape) == 4 else array_module(like).zeros(shape, like.dtype)
