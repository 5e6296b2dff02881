"""Twins of `tinycnn.layers.linear`: a linear layer is the 1×1 convolution of images of one pixel."""

from __future__ import annotations

from ...backend import Array
from ..window import Window
from . import conv
from .elementwise import conv2d_backward_bias

POINT = Window((1, 1))


def _images(x: Array) -> Array:
    """Return the view (N, 1, 1, C) of x (N, C): images; of a weight, filters."""
    return x.reshape(len(x), 1, 1, x.shape[1]) if x.flags.c_contiguous else x[:, None, None]


def linear_forward(x: Array, w: Array, b: Array | None) -> Array:
    """Return y (N, OUT) from x (N, IN), w (OUT, IN) and b (OUT,) or None."""
    return conv.forward(_images(x), _images(w), b, POINT)[:, 0, 0]


def linear_backward_weight(dy: Array, x: Array, dw: Array, add: bool = False) -> None:
    """Write or add dw (OUT, IN)."""
    w_shape = (dw.shape[0], 1, 1, dw.shape[1])
    conv.backward_weight(_images(dy), _images(x), w_shape, POINT, out=_images(dw), add=add)


def linear_backward_bias(dy: Array) -> Array:
    """Return db (OUT,)."""
    return conv2d_backward_bias(dy[:, :, None, None])


def linear_backward_input(dy: Array, w: Array) -> Array:
    """Return dx (N, IN)."""
    return conv.backward_input(_images(dy), (len(dy), 1, 1, w.shape[1]), _images(w), POINT)[:, 0, 0]
