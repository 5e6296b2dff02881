"""Dense blocks: every layer sees the outputs of all layers before it, side by side.

**Idea.**  What a layer has found out stays available to all that follow.  So a layer need not repeat what is known
already and can be narrow: it adds k new channels (the *growth rate*, 12 to 48) to those it reads.  (Not to be mistaken
for a fully connected layer, which elsewhere is called dense too: that is `Linear`.)

=========  ==========================================================================
N, H, W    images, height and width;  M = N·H·W, the number of pixels
C₀, k, L   channels of the input, growth rate, number of layers
Cᵢ         C₀ + (i − 1)·k, the channels that layer i reads;  C the channels of the output, C₀ + L·k
x, y       (N, C₀, H, W) and (N, C, H, W)
fᵢ         layer i: norm, ReLU, conv 1×1 to 4k channels, norm, ReLU, conv 3×3 to k channels;
           or, without the bottleneck, norm, ReLU, conv 3×3 to k channels
=========  ==========================================================================

**Forward**::

    y₀ = x,   yᵢ = [yᵢ₋₁, fᵢ(yᵢ₋₁)],   y = y_L                                        (1)

**Backward.**  Each channel of y is read by all layers after the one that wrote it, so dL/dy of a channel is complete
when these have all been through.  From the last layer to the first, with G = dy to begin with::

    G[:Cᵢ] += fᵢᵀ(G[Cᵢ:Cᵢ+k])                                                         (2)

and dx = G[:C₀] in the end.

**No copies.**  Concatenation as it stands in (1) would copy channel c once for every layer after it: L²/2 times k
channels in all.  Here y is one array from the start.  Layer i reads its first Cᵢ channels, a view whose pixels lie C
numbers apart, and its k new ones are written behind them; G is one array too, added to in place.

**Statistics are measured once.**  The mean and variance of a channel over the batch are the same whoever asks.  So each
channel is measured when it is written, once, where L layers would do so L times.  Layers differ in γ and β, and each
moves running statistics of its own, by the same numbers.

**And their gradient is taken once.**  By equation (4) of `tinycnn.layers.batchnorm`, with gᵢ what comes to the norm of
layer i behind its ReLU, that norm adds to a channel of G::

    aᵢ·gᵢ − (x − μ)·qᵢ − rᵢ,   aᵢ = γᵢ/σ,   qᵢ = aᵢ·dγᵢ/(σ·M),   rᵢ = aᵢ·dβᵢ/M        (3)

x and μ are the same for all i.  So only aᵢ·gᵢ is added layer by layer; qᵢ and rᵢ, a number per channel each, are added
up meanwhile, and once the channel has heard of all its readers it is corrected (x now standing for the channel of y)::

    G ← G − (x − μ)·Σqᵢ − Σrᵢ                                                         (4)

Where layers norm with running statistics, qᵢ = rᵢ = 0.

**Memory.**  What stays until backward, in numbers per pixel::

    y                                           C
    norm1's output, for conv1 (and its gate)    Σ Cᵢ = L·C₀ + k·L(L − 1)/2
    conv1's output, norm2's output              8k·L, with the bottleneck

The second line is quadratic in L.  With ``checkpointed=True`` a layer keeps nothing of the last two: backward does its
forward again, but for the last convolution, whose output nobody needs, and one layer's share is all there is at a time.
(G, as large as y, is there during backward only; in 16 bits it is float32.)  For the four blocks of DenseNet-201 and 16
images of 224² in float32 the three lines are 0.10, 1.03 and 0.60 GiB; `tinycnn.models.densenet` has measurements.

Sources: Huang, Liu, van der Maaten & Weinberger 2017, "Densely connected convolutional networks", section 3; the
recomputation, Pleiss et al. 2017, "Memory-efficient implementation of DenseNets".
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ..backend import Array, array_module
from ..initializers import Initializer
from ..kernels.cuda import twin
from ..kernels.dense import channel_statistics, corrected, norm_relu_backward, norm_relu_forward
from .base import Layer, LayerError
from .batchnorm import BatchNormReLU2d, measure_channels
from .check import is_half, refuse_empty, whole
from .combine import Sequential, tree
from .conv import Conv2d
from .dropout import Dropout
from .running import sinks
from .shape import copy
from .watch import restored


def nhwc(x: Array) -> Array:
    """Return the view (N, H, W, C) of ``x`` (N, C, H, W)."""
    return x.transpose(0, 2, 3, 1)


@twin("dense")
def channel_moments(x: Array, moments: Array) -> None:
    """Write mean and biased variance of the channels of ``x`` (N, C, H, W) into ``moments`` (2, C), float64."""
    _, (_, moments[0], moments[1]) = measure_channels(x)


class PartNormReLU2d(BatchNormReLU2d):
    """A `BatchNormReLU2d` that can read its input from a part of a wider array, whose moments are known."""

    def forward(self, x: Array, shortcut: Array | None = None, moments: Array | None = None) -> Array:
        """Return y; with ``moments`` (2, C), x is some neighbouring channels of a wider array, and the moments its."""
        if moments is None:
            return super().forward(x, shortcut)
        if self.measures and x.size == self.num_features:
            raise LayerError(
                f"{self}: the variance of a channel needs more than one value, got an input of shape "
                f"{tuple(x.shape)}: use a larger batch, or eval() with running statistics"
            )
        w, b = (p and p.data for p in (self.weight, self.bias))
        known = moments if self.measures else None
        statistics = channel_statistics(x, known, w, b, self.running, self.eps, self.momentum)
        y = norm_relu_forward(x, statistics, w, b)
        self.save(x, statistics, y, self.measures, False)
        return y

    def __call__(self, x: Array, shortcut: Array | None = None, moments: Array | None = None) -> Array:
        return self.forward(x, shortcut, moments)

    def backward(self, dy: Array, dx: Array | None = None, correction: Array | None = None) -> Array:
        """Return dx; after a forward with moments, do equation (3): add to ``dx`` and ``correction``, (2, C)."""
        if dx is None:
            return super().backward(dy)
        x, statistics, y, measured, _ = self.take_saved()
        dy = self.check_gradient(dy, x.shape)
        w, into = self.weight and self.weight.data, sinks(self.weight, self.bias)
        dx = dx if self.needs_dx else None
        norm_relu_backward(dy, y, x, statistics, w, into, dx, correction if measured else None)
        return dx


class DenseLayer(Sequential):
    """The layer fᵢ of a dense block: norm, ReLU and convolution, once or twice; the module docstring has the story.

    Children: ``norm1``, ``conv1``, and with a bottleneck ``norm2``, ``conv2``; after each convolution a dropout,
    ``drop1``, ``drop2``, if there is any.

    Args:
        in_channels, growth_rate: Cᵢ and k.
        bottleneck: how many times k channels the 1×1 convolution has; None for no bottleneck.
        dropout: probability that a number behind a convolution is dropped.
        checkpointed: whether backward repeats the forward, of which nothing is kept then but the input.
        init: fill of the filters; by default U(±1/√fan_in).
        rng: generator of initial values and of dropout; a fresh one by default.
        dtype: of the parameters.

    Shape:
        (N, Cᵢ, H, W) -> (N, k, H, W).

    Raises:
        LayerError: numbers out of range; what its children refuse.

    >>> DenseLayer(8, growth_rate=4, bottleneck=2)(np.zeros((2, 8, 5, 5), np.float32)).shape
    (2, 4, 5, 5)
    """

    forward_is_in_order = True

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        bottleneck: int | None = 4,
        dropout: float = 0.0,
        *,
        checkpointed: bool = False,
        init: Initializer | None = None,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        owner = f"DenseLayer({in_channels}, {growth_rate})"
        C, OC = whole(in_channels, "in_channels", owner), whole(growth_rate, "growth_rate", owner)
        widths = [(C, OC, 3)]
        if bottleneck is not None:
            middle = whole(bottleneck, "bottleneck", owner) * OC
            widths = [(C, middle, 1), (middle, OC, 3)]
        self.checkpointed, rng = checkpointed, np.random.default_rng(rng)
        for i, (C, OC, size) in enumerate(widths, start=1):
            self.append((PartNormReLU2d if i == 1 else BatchNormReLU2d)(C, dtype=dtype), f"norm{i}")
            conv = Conv2d(C, OC, size, padding=size // 2, bias=False, init=init, rng=rng, dtype=dtype)
            self.append(conv, f"conv{i}")
            if dropout:
                self.append(Dropout(dropout, rng=rng), f"drop{i}")

    @property
    def measures(self) -> bool:
        """Whether the first norm takes the statistics of its input."""
        return cast(PartNormReLU2d, self["norm1"]).measures

    def forward(self, x: Array, moments: Array | None = None) -> Array:
        """Return fᵢ(x); with ``moments``, x is some neighbouring channels of a wider array, and the moments its."""
        state, (before, last) = self.random_state() if self.checkpointed else None, self._halves()
        y = self._through(before, x, moments)
        for layer in last:
            y = layer.forward(y)
        if self.checkpointed:
            self.save(x, moments, state)
            for layer in (*before, last[0]):
                layer._saved = None
        return y

    def backward(self, dy: Array, dx: Array | None = None, correction: Array | None = None) -> Array:
        """Return dx; after a forward with moments, add to ``dx`` and ``correction`` instead, equation (3)."""
        if self.checkpointed:
            self._repeat(*self.take_saved())
        norm, *others = self
        for layer in reversed(others):
            if not layer.reached:
                return None
            dy = layer.backward(dy)
        if not norm.reached:
            return None
        return norm.backward(dy) if dx is None else cast(PartNormReLU2d, norm).backward(dy, dx, correction)

    def branches(self) -> list[Array]:
        """Return those of the children, after a forward that is repeated if it has to be."""
        if self._saved is not None:
            self._repeat(*self._saved)
        return super().branches()

    def _halves(self) -> tuple[list[Layer], list[Layer]]:
        """Return the children before the last convolution, and the others."""
        layers = list(self)
        i = max(i for i, layer in enumerate(layers) if isinstance(layer, Conv2d))
        return layers[:i], layers[i:]

    def _through(self, layers: list[Layer], x: Array, moments: Array | None) -> Array:
        """Return what comes out of the first children."""
        norm, *others = layers
        x = norm.forward(x) if moments is None else cast(PartNormReLU2d, norm).forward(x, None, moments)
        for layer in others:
            x = layer.forward(x)
        return x

    def _repeat(self, x: Array, moments: Array | None, state: dict[str, list[int]]) -> None:
        """Save anew what forward has not kept; streams and running statistics stay as they are."""
        before, (conv, *_) = self._halves()
        with restored(self):
            self.set_random_state(state)
            conv.save(self._through(before, x, moments))  # all that a convolution's backward needs


class DenseBlock(Layer):
    """A dense block; the module docstring has the mathematics.

    Children: ``denselayer1``, ``denselayer2``, …, each a `DenseLayer`.

    Args:
        in_channels, growth_rate, num_layers: C₀, k and L.
        bottleneck, dropout: of the layers, see there.
        checkpointed: save memory by repeating each layer's forward during backward, but for its last convolution.
        init: fill of the filters; by default U(±1/√fan_in).
        rng: generator of initial values and of dropout; a fresh one by default.
        dtype: of the parameters.

    Shape:
        (N, C₀, H, W) -> (N, C₀ + L·k, H, W).

    Raises:
        LayerError: numbers out of range; an input of another rank, dtype or channel count, or an empty one.

    >>> block = DenseBlock(8, growth_rate=4, num_layers=3)
    >>> block(np.zeros((2, 8, 5, 5), np.float32)).shape
    (2, 20, 5, 5)
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        num_layers: int,
        bottleneck: int | None = 4,
        dropout: float = 0.0,
        *,
        checkpointed: bool = False,
        init: Initializer | None = None,
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        owner, rng = f"DenseBlock({in_channels}, {growth_rate}, {num_layers})", np.random.default_rng(rng)
        self.in_channels = whole(in_channels, "in_channels", owner)
        self.growth_rate = whole(growth_rate, "growth_rate", owner)
        self.out_channels = in_channels + whole(num_layers, "num_layers", owner) * growth_rate
        options: dict[str, Any] = {"checkpointed": checkpointed, "init": init, "rng": rng, "dtype": dtype}
        for i, C in enumerate(range(in_channels, self.out_channels, growth_rate), start=1):
            self.add(f"denselayer{i}", DenseLayer(C, growth_rate, bottleneck, dropout, **options))

    def _layers(self) -> list[tuple[slice, slice, DenseLayer]]:
        """Return (the channels it reads, those it writes, the layer) of every layer."""
        ends = range(self.in_channels, self.out_channels, self.growth_rate)
        layers = cast("list[DenseLayer]", list(self.children()))
        return [(slice(0, C), slice(C, C + self.growth_rate), f) for C, f in zip(ends, layers, strict=True)]

    def forward(self, x: Array) -> Array:
        """Return y, equation (1)."""
        x = self.check_input(x, rank=4, channels=self.in_channels)
        refuse_empty(self, x)
        N, _, H, W = x.shape
        xp, layers = array_module(x), self._layers()
        layers[0][2].norm1.check_input(x)  # of the parameters' dtype and on their device; no other norm looks
        y = xp.empty((N, H, W, self.out_channels), x.dtype).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        moments, measures = xp.empty((2, self.out_channels), np.float64), any(f.measures for _, _, f in layers)
        written, new = slice(0, self.in_channels), x
        for reads, writes, layer in layers:
            copy(nhwc(new), nhwc(y[:, written]))
            if measures and x.size > x.shape[1]:  # (of a single value a layer says that it has no variance)
                channel_moments(new, moments[:, written])
            written, new = writes, layer.forward(y[:, reads], moments[:, reads])
        copy(nhwc(new), nhwc(y[:, written]))
        self.save(y, moments if measures else None)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dx, equations (2) to (4); add to the gradients of the layers."""
        y, moments = self.take_saved()
        dy = self.check_gradient(dy, y.shape)
        xp = array_module(y)
        # (4) takes the mean off, next to which 16 bits would have rounded off much of what is left
        dtype = np.float32 if is_half(y) else y.dtype
        G = xp.empty(nhwc(y).shape, dtype).transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)
        correction = xp.zeros((2, self.out_channels), np.float64)
        copy(nhwc(dy), nhwc(G))

        def complete(part: slice) -> Array:
            nobody_read_it = part.stop == self.out_channels
            own = None if moments is None or nobody_read_it else moments[:, part]
            return corrected(G[:, part], y[:, part], own, correction[:, part])

        for reads, writes, layer in reversed(self._layers()):
            if layer.reached:
                layer.backward(complete(writes), G[:, reads], correction[:, reads])
        return complete(slice(0, self.in_channels)) if self.needs_dx else None

    def require_dx(self, needed: bool = True) -> bool:
        """Each layer needs to return dx if anything before it needs one."""
        self.needs_dx = self.reached = needed
        for layer in self.children():
            self.reached = layer.require_dx(self.reached)
        return self.reached

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape with the new channels."""
        return shape[0], self.out_channels, *shape[2:]

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the sum over the layers."""
        return sum(f.macs((shape[0], reads.stop, *shape[2:])) for reads, _, f in self._layers())

    def __repr__(self) -> str:
        return tree(self)
