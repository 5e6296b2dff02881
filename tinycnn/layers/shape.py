"""Layers that only move numbers: flattening, zero padding, the identity and the parameter-free shortcut.

**Idea.**  Each copies every entry of x to at most one place of y and fills the rest with zeros, a linear map
whose matrix has at most one 1 per row and column.  The backward of such a map is the same map read the other
way: each entry of x collects dy from the place it went to, or 0 if it went nowhere.

**Cost.**  One copy.  **Saved for backward:** the shape of x.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from ..backend import Array, array_module
from ..parallel import each_slice
from ..parameter import channels_last
from .base import Layer, LayerError
from .check import pair

Sides: TypeAlias = int | tuple[int, int, int, int]


def copy(source: Array, target: Array) -> None:
    """Copy ``source`` to ``target``, two views of one shape, in slices of the batch."""

    def one_slice(s: slice) -> None:
        target[s] = source[s]

    each_slice(one_slice, source)


class Identity(Layer):
    """y = x: a shortcut that changes nothing, a place left empty.

    Shape:
        any.

    >>> import numpy as np
    >>> Identity()(np.arange(3.0))
    array([0., 1., 2.])
    """

    def forward(self, x: Array) -> Array:
        """Return x."""
        x = self.check_input(x)
        self.save(x.shape)
        return x

    def backward(self, dy: Array) -> Array:
        """Return dy."""
        (shape,) = self.take_saved()
        return self.check_gradient(dy, shape)


class Flatten(Layer):
    """The axes from ``start_dim`` on become one, in the order of the shape: c, then h, then w, as in PyTorch.

    Memory being channels-last, this is a transposing copy.

    Args:
        start_dim: first axis to go.

    Shape:
        (N, C, H, W) -> (N, C·H·W).

    Raises:
        LayerError: the input has no axis ``start_dim``.

    >>> import numpy as np
    >>> Flatten()(np.arange(12.0).reshape(1, 3, 2, 2))[0, :6]
    array([0., 1., 2., 3., 4., 5.])
    """

    def __init__(self, start_dim: int = 1) -> None:
        super().__init__()
        self.start_dim = start_dim
        if start_dim < 0:
            raise LayerError(f"Flatten: start_dim must be at least 0, got {start_dim}")

    def forward(self, x: Array) -> Array:
        """Return x in its new shape."""
        x = self.check_input(x)
        shape = self.output_shape(x.shape)
        self.save(x.shape)
        y = array_module(x).empty(shape, x.dtype)
        # (N, C·H·W) -> (N, C, H, W), a view to copy into
        copy(x, y.reshape(x.shape))
        return channels_last(y)

    def backward(self, dy: Array) -> Array:
        """Return dy in the shape of x."""
        (shape,) = self.take_saved()
        dy = self.check_gradient(dy, self.output_shape(shape))
        # (N, C·H·W) -> (N, C, H, W)
        return channels_last(dy.reshape(shape))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        if len(shape) <= self.start_dim:
            raise LayerError(f"{self}: an input of shape {tuple(shape)} has no axis {self.start_dim} to start from")
        return *shape[: self.start_dim], math.prod(shape[self.start_dim :])

    def options(self) -> str:
        """Return the first axis, unless it is 1."""
        return "" if self.start_dim == 1 else f"start_dim={self.start_dim}"


class ZeroPad2d(Layer):
    """Zeros around every image.

    Args:
        padding: columns and rows of zeros, one number for all sides or (left, right, top, bottom).

    Shape:
        (N, C, H, W) -> (N, C, top + H + bottom, left + W + right).

    Raises:
        LayerError: ``padding`` is neither, or a number is negative; an input that is not (N, C, H, W).

    >>> import numpy as np
    >>> ZeroPad2d((1, 0, 0, 1))(np.ones((1, 1, 2, 2)))[0, 0]
    array([[0., 1., 1.],
           [0., 1., 1.],
           [0., 0., 0.]])
    """

    def __init__(self, padding: Sides) -> None:
        super().__init__()
        sides = tuple(padding) if isinstance(padding, tuple | list) else (padding,) * 4
        if len(sides) != 4 or not all(isinstance(side, int) for side in sides):
            raise LayerError(f"ZeroPad2d: padding must be an integer or (left, right, top, bottom), got {padding!r}")
        if min(sides) < 0:
            raise LayerError(f"ZeroPad2d: padding must not be negative, got {padding!r}: cut with x[:, :, a:b, c:d]")
        self.padding = padding
        self.left, self.right, self.top, self.bottom = sides

    def interior(self, y: Array) -> Array:
        """Return the view of ``y`` (N, C, OH, OW) that holds the image."""
        OH, OW = y.shape[2:]
        return y[:, :, self.top : OH - self.bottom, self.left : OW - self.right]

    def forward(self, x: Array) -> Array:
        """Return x with zeros around it."""
        x = self.check_input(x, rank=4)
        self.save(x.shape)
        y = zero_images(self.output_shape(x.shape), like=x)
        copy(x, self.interior(y))
        return y

    def backward(self, dy: Array) -> Array:
        """Return the interior of dy."""
        (shape,) = self.take_saved()
        return channels_last(self.interior(self.check_gradient(dy, self.output_shape(shape))))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        N, C, H, W = shape
        return N, C, self.top + H + self.bottom, self.left + W + self.right

    def options(self) -> str:
        """Return the padding."""
        return repr(self.padding)


class PadShortcut(Layer):
    """The shortcut without parameters across a change of size ("option A" of He et al. 2016).

    Every ``stride``-th pixel is kept and the channels that are new are zeros.

    Args:
        in_channels, out_channels: C and OC, at least C.
        stride: an int or (height, width).
        where: the new channels are ``'both'``, half before and half after the old ones (the odd one after), as
            the published PyTorch checkpoints of the CIFAR networks have it; or ``'end'``, all after.

    Shape:
        (N, C, H, W) -> (N, OC, ⌈H/S⌉, ⌈W/S⌉).

    Raises:
        LayerError: fewer channels out than in, ``where`` unknown; an input of another rank or channel count.

    Sources: He et al. 2016, "Deep residual learning for image recognition", section 3.3 and 4.2.

    >>> import numpy as np
    >>> PadShortcut(2, 4)(np.ones((1, 2, 1, 1))).ravel()
    array([0., 1., 1., 0.])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int | tuple[int, int] = 2,
        where: Literal["both", "end"] = "both",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.where = in_channels, out_channels, where
        self.stride = pair(stride, "stride", 1, "PadShortcut")
        if not 1 <= in_channels <= out_channels:
            raise LayerError(f"{self!r}: needs 1 ≤ in_channels ≤ out_channels, zeros can only be added")
        if where not in ("both", "end"):
            raise LayerError(f"PadShortcut: where must be 'both' or 'end', got {where!r}")
        self.first = (out_channels - in_channels) // 2 if where == "both" else 0

    def old_channels(self, y: Array) -> Array:
        """Return the view of ``y`` (N, OC, OH, OW) that holds the channels of x."""
        return y[:, self.first : self.first + self.in_channels]

    def forward(self, x: Array) -> Array:
        """Return every S-th pixel of x among channels of zeros."""
        x = self.check_input(x, rank=4, channels=self.in_channels)
        self.save(x.shape)
        SH, SW = self.stride
        y = zero_images(self.output_shape(x.shape), like=x)
        copy(x[:, :, ::SH, ::SW], self.old_channels(y))
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy of the old channels at every S-th pixel, 0 between."""
        (shape,) = self.take_saved()
        dy = self.check_gradient(dy, self.output_shape(shape))
        SH, SW = self.stride
        dx = zero_images(shape, like=dy)
        copy(self.old_channels(dy), dx[:, :, ::SH, ::SW])
        return dx

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        N, _, H, W = shape
        SH, SW = self.stride
        return N, self.out_channels, -(-H // SH), -(-W // SW)

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        SH, SW = self.stride
        text = f"{self.in_channels}, {self.out_channels}"
        text += f", stride={SH if SH == SW else self.stride}" if self.stride != (2, 2) else ""
        return text + (f", where={self.where!r}" if self.where != "both" else "")


def zero_images(shape: tuple[int, ...], like: Array) -> Array:
    """Return zeros of ``shape`` (N, C, H, W) on channels-last memory, of the dtype and on the device of ``like``."""
    N, C, H, W = shape
    # (N, H, W, C) -> (N, C, H, W)
    return array_module(like).zeros((N, H, W, C), like.dtype).transpose(0, 3, 1, 2)
