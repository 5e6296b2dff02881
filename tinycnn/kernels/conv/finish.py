"""What follows a convolution, done piece by piece while its output is in cache: bias, a shortcut's sum, ReLU.

By itself each of these goes over the whole output in memory once more::

    y = relu(conv(x) + b + s)

Rows of pixels are worked on as they lie, OW·OC numbers at a time, with b repeated OW times: NumPy adds long rows faster
than short ones, and takes the maximum of two rows in half the time of that of a row and a number.
"""

from __future__ import annotations

from typing import NamedTuple

from ...backend import Array, array_module


class Finish(NamedTuple):
    """b (OC,) or None, the shortcut (N, OH, OW, OC) or None, and whether ReLU follows."""

    b: Array | None = None
    shortcut: Array | None = None
    relu: bool = False

    def of_channels(self, channels: slice) -> Finish:
        """Return the same for some channels of the output."""
        b, s = self.b, self.shortcut
        return Finish(b if b is None else b[channels], s if s is None else s[..., channels], self.relu)

    def without_bias(self, y: Array) -> FinishRows:
        """Return what is to be done to the rows of the output ``y`` (N, OH, OW, OC), which has b already."""
        zeros = array_module(y).zeros(y.shape[2] * y.shape[3], y.dtype) if self.relu else None
        return FinishRows(y, None, self.shortcut, zeros)

    def rows(self, y: Array) -> FinishRows:
        """Return what is to be done to the rows of the output ``y`` (N, OH, OW, OC)."""
        b = None if self.b is None else array_module(y).tile(self.b, y.shape[2])
        return self.without_bias(y)._replace(b=b)

    def __call__(self, y: Array) -> None:
        """Do it to ``y`` (N, OH, OW, OC), whose pixels need not be neighbours in memory."""
        if self.b is not None:
            y += self.b
        if self.shortcut is not None:
            y += self.shortcut
        if self.relu:
            array_module(y).maximum(y, 0, out=y)


class FinishRows(NamedTuple):
    """The output y (N, OH, OW, OC); b and zeros, (OW·OC,) or None; the shortcut (N, OH, OW, OC) or None."""

    y: Array
    b: Array | None
    shortcut: Array | None
    zeros: Array | None

    def __call__(self, images: slice, band: slice) -> None:
        """Finish a band of rows of some images."""
        y = self.y[images, band]
        # (n, rows, OW, OC) -> (n, rows, OW·OC), a view
        rows = y.reshape(*y.shape[:2], y.shape[2] * y.shape[3])
        if self.b is not None:
            rows += self.b
        if self.shortcut is not None:
            y += self.shortcut[images, band]
        if self.zeros is not None:
            array_module(y).maximum(rows, self.zeros, out=rows)
