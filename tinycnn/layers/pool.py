"""Pooling: a window slides over each channel by itself and keeps one number per position.

**Idea.**  Sum up a neighbourhood by its largest value or by its mean: the image shrinks, and what is left cares
less about where exactly something was seen.  There is nothing to train.

=========  ==========================================================================
N, C       images, channels
H, W       input height and width;  OH, OW output height and width
KH, KW     height and width of the window;  S the stride, P the padding, D the dilation
x, dx      (N, C, H, W);  y, dy (N, C, OH, OW)
R(o)       the pixels that lie in the window at position o = (oh, ow): (S·oh + D·kh − P, S·ow + D·kw − P)
=========  ==========================================================================

**Forward**, of the maximum and of the mean::

    y[o] = max_{p ∈ R(o)} x[p]                                                        (1)
    y[o] = 1/|R(o)| · Σ_{p ∈ R(o)} x[p]                                               (2)

Padding is −∞ to a maximum: it never wins.  To a mean it is 0, and |R(o)| counts its cells too, unless asked
otherwise.

**Backward of the maximum.**  y[o] *is* one of the x[p], the winner w(o), and near x it goes on being that one: the
derivative is 1 with respect to the winner and 0 with respect to all others.  A pixel may win in several
overlapping windows, and collects from each::

    dx[p] = Σ_{o: w(o) = p} dy[o]                                                     (3)

Where two cells are equal the maximum has a kink, and any share between them is as right as another.  As in PyTorch
the first in reading order takes it all.

**Backward of the mean.**  y is linear in x; pixel p entered y[o] with the factor 1/|R(o)|, so the backward is the
adjoint of the forward::

    dx[p] = Σ_{o: p ∈ R(o)} dy[o] / |R(o)|                                            (4)

**Cost.**  KH·KW comparisons or additions per output cell: pooling is bound by memory, hence worked in slices of
the batch that stay in cache.

**Saved for backward:** of the maximum, the rank of the cell that won in its window, one byte per output cell; of the
mean, no more than the shape of x.

Sources: mean: LeCun et al. 1998 (with a trained factor and bias); maximum: Ranzato et al. 2007, "Unsupervised learning
of invariant feature hierarchies"; global mean: Lin et al. 2013, "Network in network".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..backend import Array, array_module
from ..kernels.pool import (
    Divisor,
    bin_means,
    bin_means_backward,
    max_pool,
    max_pool_backward,
    max_pool_winners,
    mean_pool,
    mean_pool_backward,
)
from ..kernels.window import Window
from ..parallel import each_band, each_slice
from .base import Layer, LayerError
from .check import pair
from .conv import check_fits

Size: TypeAlias = int | tuple[int, int]


class _Pool2d(Layer):
    """What the two sliding-window pools share: their arguments and the size of their output."""

    def __init__(self, kernel_size: Size, stride: Size | None, padding: Size, dilation: Size, ceil_mode: bool) -> None:
        super().__init__()
        owner = f"{type(self).__name__}({kernel_size})"
        kernel = pair(kernel_size, "kernel_size", 1, owner)
        PH, PW = pair(padding, "padding", 0, owner)
        if any(p > k // 2 for p, k in zip((PH, PW), kernel, strict=True)):
            raise LayerError(f"{owner}: padding must be at most half of the kernel, got {padding}")
        strides = kernel if stride is None else pair(stride, "stride", 1, owner)
        self.window = Window(kernel, strides, ((PH, PH), (PW, PW)), pair(dilation, "dilation", 1, owner))
        self.ceil_mode = bool(ceil_mode)

    def window_on(self, H: int, W: int) -> Window:
        """Return the window for images of H×W; with ``ceil_mode`` its padding depends on them."""
        return self.window.ceiled(H, W) if self.ceil_mode else self.window

    def fitted(self, x: Array) -> tuple[Window, tuple[int, int]]:
        """Return the window for the images ``x`` and the output size (OH, OW).

        Raises:
            LayerError: the window is larger than the padded image.
        """
        window = self.window_on(*x.shape[2:])
        check_fits(self, window, x)
        return window, window.out_size(*x.shape[2:])

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        return *shape[:2], *self.window_on(*shape[2:]).out_size(*shape[2:])

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        window = self.window
        pads = window.padding[0][0], window.padding[1][0]
        text = _short(window.kernel)
        text += f", stride={_short(window.stride)}" if window.stride != window.kernel else ""
        text += f", padding={_short(pads)}" if window.is_padded else ""
        text += f", dilation={_short(window.dilation)}" if window.dilation != (1, 1) else ""
        return text + (", ceil_mode=True" if self.ceil_mode else "")


class MaxPool2d(_Pool2d):
    """The largest value in each window, equations (1) and (3) of the module docstring.

    Args:
        kernel_size: an int or (height, width), as are the next three.
        stride: step of the window; by default its size, so that windows neither overlap nor leave gaps.
        padding: rows and columns of −∞ on each side, at most half the window.
        dilation: distance between the cells of the window.
        ceil_mode: round the output size up, so that rows and columns that do not fill a window still get one;
            a window that would start beyond the image and its left padding is dropped.

    Shape:
        (N, C, H, W) -> (N, C, OH, OW), OH = ⌊(H + 2P − D·(KH − 1) − 1)/S⌋ + 1 (or ⌈·⌉), OW likewise.

    A window with a NaN in it yields NaN, and its gradient goes to its first pixel.

    Raises:
        LayerError: options out of range; an input of another rank or dtype, or smaller than the window.

    >>> MaxPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode)

    def forward(self, x: Array) -> Array:
        """Return y, equation (1)."""
        x = self.check_input(x, rank=4)
        window, (OH, OW) = self.fitted(x)
        x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        xp = array_module(x)
        y = xp.empty((len(x), OH, OW, x.shape[3]), x.dtype)
        winners = None
        if self.saving and self.reached:
            winners = xp.empty(y.shape, np.min_scalar_type(window.kernel[0] * window.kernel[1] - 1))
            each_slice(lambda s: max_pool_winners(x[s], window, y[s], winners[s]), x, _item_bytes(y))
        else:
            each_band(_pooling(x, window, y), x, OH, _item_bytes(y) // OH)
        self.save(winners, window, x.shape)
        return y.transpose(0, 3, 1, 2)  # (N, OH, OW, C) -> (N, C, OH, OW)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (3)."""
        winners, window, shape = self.take_saved()
        N, OH, OW, C = winners.shape
        # (N, C, OH, OW) -> (N, OH, OW, C)
        dy = self.check_gradient(dy, (N, C, OH, OW)).transpose(0, 2, 3, 1)
        dx = array_module(dy).empty(shape, dy.dtype)
        each_slice(lambda s: max_pool_backward(dy[s], winners[s], window, dx[s]), dx, _item_bytes(dy))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def branches(self) -> list[Array]:
        """Return which cell of its window each output took, of the last forward."""
        return [] if self._saved is None else [self._saved[0]]


class AvgPool2d(_Pool2d):
    """The mean of each window, equations (2) and (4) of the module docstring.

    Args:
        kernel_size: an int or (height, width), as are the next two.
        stride: step of the window; by default its size.
        padding: rows and columns of zeros on each side, at most half the window.
        ceil_mode: as in `MaxPool2d`.
        count_include_pad: whether |R(o)| counts the cells of ``padding``.  Cells that only ``ceil_mode`` adds
            are never counted.
        divisor_override: divide by this number and not by |R(o)|.

    Shape:
        (N, C, H, W) -> (N, C, OH, OW), OH = ⌊(H + 2P − KH)/S⌋ + 1 (or ⌈·⌉), OW likewise.

    Raises:
        LayerError: options out of range; an input of another rank or dtype, or smaller than the window.

    >>> AvgPool2d(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode)
        if divisor_override == 0:
            raise LayerError(f"AvgPool2d({kernel_size}): divisor_override must not be 0")
        self.count_include_pad, self.divisor_override = bool(count_include_pad), divisor_override

    def forward(self, x: Array) -> Array:
        """Return y, equation (2)."""
        x = self.check_input(x, rank=4)
        window, (OH, OW) = self.fitted(x)
        self.save(x.shape, window)
        x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        y = array_module(x).empty((len(x), OH, OW, x.shape[3]), x.dtype)
        each_slice(lambda s: mean_pool(x[s], window, self.divisor, y[s]), x, _item_bytes(y))
        return y.transpose(0, 3, 1, 2)  # (N, OH, OW, C) -> (N, C, OH, OW)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4)."""
        (N, C, H, W), window = self.take_saved()
        # (N, C, OH, OW) -> (N, OH, OW, C)
        dy = self.check_gradient(dy, (N, C, *window.out_size(H, W))).transpose(0, 2, 3, 1)
        dx = array_module(dy).empty((N, H, W, C), dy.dtype)
        each_slice(lambda s: mean_pool_backward(dy[s], window, self.divisor, dx[s]), dx, _item_bytes(dy))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    @property
    def divisor(self) -> Divisor:
        """What sums are divided by."""
        return Divisor(self.count_include_pad, self.divisor_override)

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = super().options() + ("" if self.count_include_pad else ", count_include_pad=False")
        return text + (f", divisor_override={self.divisor_override}" if self.divisor_override else "")


class AdaptiveAvgPool2d(Layer):
    """The mean of each of OH×OW bins that together cover the image, whatever its size.

    Along an axis of H pixels, bin i of OH covers the pixels ⌊i·H/OH⌋ … ⌈(i + 1)·H/OH⌉ − 1.  Neighbouring bins
    overlap by a pixel where OH does not divide H.  Forward and backward are equations (2) and (4) of the module
    docstring with the bins in place of the windows.  A bin is a run of rows times a run of columns, so sums are
    taken over the rows first and over the columns of those sums after: OH + OW steps instead of OH·OW.

    Args:
        output_size: an int or (height, width); None for an axis leaves its size as it is.

    Shape:
        (N, C, H, W) -> (N, C, OH, OW).

    Raises:
        LayerError: a size less than 1; an input of another rank or dtype, or without pixels.

    >>> AdaptiveAvgPool2d((1, 2))(np.arange(6.0).reshape(1, 1, 2, 3))
    array([[[[2., 3.]]]])
    """

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__()
        both = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
        given: Any = tuple(1 if size is None else size for size in both)
        pair(given, "output_size", 1, type(self).__name__)
        self.output_size = both[0], both[1]

    def forward(self, x: Array) -> Array:
        """Return y, equation (2)."""
        x = self.check_input(x, rank=4)
        if 0 in x.shape[2:]:
            raise LayerError(f"{self}: an image without pixels has no mean, got an input of shape {tuple(x.shape)}")
        N, C, OH, OW = self.output_shape(x.shape)
        self.save(x.shape, (N, C, OH, OW))
        x = x.transpose(0, 2, 3, 1)  # (N, C, H, W) -> (N, H, W, C)
        y = array_module(x).empty((N, OH, OW, C), x.dtype)
        each_slice(lambda s: bin_means(x[s], y[s]), x, _item_bytes(y))
        return y.transpose(0, 3, 1, 2)  # (N, OH, OW, C) -> (N, C, OH, OW)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4)."""
        (N, C, H, W), out_shape = self.take_saved()
        dy = self.check_gradient(dy, out_shape).transpose(0, 2, 3, 1)  # (N, C, OH, OW) -> (N, OH, OW, C)
        dx = array_module(dy).empty((N, H, W, C), dy.dtype)
        each_slice(lambda s: bin_means_backward(dy[s], dx[s]), dx, _item_bytes(dy))
        return dx.transpose(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        return *shape[:2], self.output_size[0] or shape[2], self.output_size[1] or shape[3]

    def options(self) -> str:
        """Return the output size."""
        return str(self.output_size[0] if self.output_size[0] == self.output_size[1] else self.output_size)


class GlobalAvgPool2d(AdaptiveAvgPool2d):
    """The mean of each channel over the whole image: ``AdaptiveAvgPool2d(1)``, (N, C, H, W) -> (N, C, 1, 1).

    >>> GlobalAvgPool2d()(np.arange(4.0).reshape(1, 1, 2, 2))
    array([[[[1.5]]]])
    """

    def __init__(self) -> None:
        super().__init__(1)

    def options(self) -> str:
        """Return nothing: there is nothing to choose."""
        return ""


GlobalAvgPool = GlobalAvgPool2d


def _pooling(x: Array, window: Window, y: Array) -> Callable[[slice, slice], None]:
    """Return what writes bands of rows of ``y``, the maxima in ``x``."""

    def one_band(images: slice, band: slice) -> None:
        seen, inner = window.band(band.start, band.stop, x.shape[1])
        max_pool(x[images, seen], inner, y[images, band])

    return one_band


def _item_bytes(y: Array) -> int:
    """Twice an image of ``y``, less than is touched: few and large slices, as between two of its many short operations
    a thread waits for the others."""
    return int(2 * y.nbytes // max(len(y), 1))


def _short(v: tuple[int, int]) -> str:
    return str(v[0] if v[0] == v[1] else v)
