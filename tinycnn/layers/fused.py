"""Convolutions and residual blocks for inference, in which normalisation, sum and ReLU are part of the convolution.

**Idea.**  In evaluation a batch normalisation is a fixed linear map of each channel.  So is a convolution, of all of
them, and two linear maps in a row are one: with γ, β, μ, v and ε of the norm, and σ = √(v + ε)::

    norm(Σ w·x + b) = Σ (γ/σ·w)·x + (γ/σ·(b − μ) + β)                                 (1)

A convolution with other filters and another bias does what both did.  What is left, adding a shortcut s and ReLU, is
done to each piece of the output while it is in cache (`tinycnn.kernels.conv.finish`)::

    y = max(Σ w'·x + b' + s, 0)                                                       (2)

**Filters that do not change** are brought once into the order that products like best, or to the points of Winograd's
polynomials, and kept (`tinycnn.kernels.conv.fixed`): as much memory as the filters have again, and four times as much
for 3×3 filters where F(4×4) is taken.  So a fused convolution owns its filters, and they cannot be written to.

There is no backward: gradients are a matter of the network that was fused.  `tinycnn.fuse` makes these layers.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", equation 14.
"""

from __future__ import annotations

from typing import cast

from ..backend import Array, is_device_array
from ..kernels import activation as formulas
from ..kernels.conv.fixed import FixedFilters
from ..parameter import Parameter
from .activation import in_memory_order
from .base import Layer, LayerError
from .combine import Residual, in_order
from .conv import Conv2d, check_fits, conv2d_forward, nhwc
from .shape import Identity


class FusedConv2d(Conv2d):
    """y = relu(conv(x) + b + shortcut), of which shortcut and ReLU may be absent; for inference alone.

    Args:
        conv: whose geometry and filters it takes, the latter as a copy.
        gain, shift: float64, (OC,): what the output is multiplied by, and what is added after that, equation (1).
        relu: whether ReLU follows.

    Attributes:
        weight, bias: as in `Conv2d`; frozen, and read-only once they were used.

    Shape:
        (N, C, H, W), and the shortcut's (N, OC, OH, OW) -> (N, OC, OH, OW).

    Raises:
        LayerError: as `Conv2d`; a shortcut of another shape or dtype than the output; any backward.
    """

    def __init__(self, conv: Conv2d, gain: Array | None = None, shift: Array | None = None, relu: bool = False) -> None:
        Layer.__init__(self)
        for name in ("in_channels", "out_channels", "groups", "padding", "window", "algorithm", "init"):
            setattr(self, name, getattr(conv, name))
        self.relu = relu
        w, b = conv.weight.data, conv.bias and conv.bias.data
        if gain is not None:
            b = shift if b is None else b * gain + shift
            w = w * gain[:, None, None, None]
        dtype = conv.weight.dtype
        self.weight = Parameter(w.astype(dtype), requires_grad=False)
        self.bias = None if b is None else Parameter(b.astype(dtype), requires_grad=False)
        self._fixed: FixedFilters | None = None

    def forward(self, x: Array, shortcut: Array | None = None) -> Array:
        """Return y, equation (2)."""
        x = self.check_input(x, rank=4, channels=self.in_channels)
        check_fits(self, self.window, x)
        if shortcut is not None:
            shortcut = self._checked(shortcut, x)
        if is_device_array(x):
            return self._by_steps(x, shortcut)
        y = self.fixed().convolve(nhwc(x), None if shortcut is None else nhwc(shortcut), self.relu)
        return y.transpose(0, 3, 1, 2)  # (N, OH, OW, OC) -> (N, OC, OH, OW)

    def __call__(self, x: Array, shortcut: Array | None = None) -> Array:
        return self.forward(x, shortcut)

    def backward(self, dy: Array) -> Array:
        """Raise an error."""
        raise LayerError(
            f"{self}: a fused convolution has no backward: train the network that was fused, and call fuse() again"
        )

    def fixed(self) -> FixedFilters:
        """Return the filters with what was made of them; where `to` or `astype` gave others, these are new too."""
        w, b = self.weight.data, None if self.bias is None else self.bias.data
        if self._fixed is None or self._fixed.source is not w:
            for array in (w, b):
                if array is not None:
                    array.flags.writeable = False
            self._fixed = FixedFilters(w, b, self.window, self.groups, self.algorithm)
        return self._fixed

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept beside the filters: nothing before the first forward."""
        return 0 if self._fixed is None else self._fixed.nbytes

    def _checked(self, shortcut: Array, x: Array) -> Array:
        shortcut, shape = self.check_input(shortcut), self.output_shape(x.shape)
        if tuple(shortcut.shape) != shape or shortcut.dtype != x.dtype:
            raise LayerError(
                f"{self}: the shortcut must be {x.dtype} of the output's shape {shape}, got {shortcut.dtype} of "
                f"{tuple(shortcut.shape)}"
            )
        return shortcut

    def _by_steps(self, x: Array, shortcut: Array | None) -> Array:
        """Return y of arrays on a GPU, where each step is a kernel of its own."""
        w, b = self.weight.cast(x.dtype), self.bias and self.bias.cast(x.dtype)
        y = conv2d_forward(x, w, b, self.window, self.groups, self.algorithm)
        z = in_memory_order(y)
        if shortcut is not None:
            formulas.add(z, in_memory_order(shortcut), z)
        if self.relu:
            formulas.relu(z, z)
        return y

    def options(self) -> str:
        """Return the arguments of the convolution that differ from the defaults, and whether ReLU follows."""
        return super().options() + (", relu=True" if self.relu else "")


class FusedResidual(Residual):
    """relu(main(x) + shortcut(x)), or without ReLU, where main ends in a fused convolution, which does sum and ReLU.

    Paths are those of `Residual`.

    Args:
        main: layers in order (`in_order`), of which the last, identities aside, is a `FusedConv2d`.
        shortcut, shortcut_name: as in `Residual`.
    """

    def forward(self, x: Array) -> Array:
        """Return the last convolution's output, given the shortcut's."""
        main, shortcut = self.children()
        s = shortcut.forward(x)
        *first, last = (layer for layer in in_order(main) if not isinstance(layer, Identity))
        for layer in first:
            x = layer.forward(x)
        return cast(FusedConv2d, last).forward(x, s)
