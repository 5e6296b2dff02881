"""Two-dimensional convolution.

**Idea.**  Slide a small window over the image; at each position the output is the dot product of the patch
under the window with each filter.  (As in every deep-learning library it is a cross-correlation: the filter
is not flipped.)

=========  ==========================================================================
N, C       images, input channels;  OC output channels;  G groups
H, W       input height and width;  OH, OW output height and width
KH, KW     height and width of the filters;  S the stride, P the padding, D the dilation
x          (N, C, H, W);  y, dy (N, OC, OH, OW)
w, b       (OC, C/G, KH, KW) and (OC,)
K          KH·KW·C/G, the length of one flattened patch;  M = N·OH·OW, the number of patches
=========  ==========================================================================

**Forward**, with h = S·oh + D·kh − P and v = S·ow + D·kw − P (x is 0 outside the image)::

    y[n, o, oh, ow] = b[o] + Σ_{c, kh, kw} w[o, c, kh, kw] · x[n, c, h, v]

As matrices: with the patches as the rows of cols = im2col(x), (M, K), and the filters as the rows of w, (OC, K)::

    y = cols wᵀ + b                                                                   (1)

**Backward.**  y is linear in each of x, w and b, so the chain rule only has to ask who met whom:

- b[o] is added to every y[n, o, ·, ·]::

    db = Σ_{n, oh, ow} dy                                                             (2)

- w[o, k] met cols[m, k] in y[m, o], for every patch m::

    dw = dyᵀ cols                                                                     (3)

- cols[m, k] met w[o, k] in y[m, o], for every filter o, so dcols = dy w; and cols holds copies of pixels, so
  each pixel collects the gradients of all its copies, which is col2im, the adjoint of im2col::

    dx = col2im(dy w)                                                                 (4)

With G groups all this holds for each group of C/G input and OC/G output channels by itself.

**How it is computed.**  There are several ways, each in a file of its own in `tinycnn.kernels.conv`: (1) to (4) as they
stand there, by ``patches`` and ``scatter``; dx as a convolution of dy, by ``phases``; 3×3 windows with fewer
multiplications, by ``winograd``.  ``plan`` picks the one that should be fastest.  On a GPU, (1), (3) and dx as a
convolution of dy are tiles of products whose patches are gathered in shared memory (`tinycnn.kernels.cuda.conv`).

**Cost.**  2·M·K·OC FLOP forward, twice that backward.  Memory: cols is formed slice by slice, in scratch.

**Saved for backward:** x alone.  cols is K/C times as large and costs only a copy to make again.

Sources: LeCun et al. 1989, "Backpropagation applied to handwritten zip code recognition"; groups: Krizhevsky
et al. 2012, section 3.5; dilation: Yu & Koltun 2016.  Output sizes and the meaning of ``padding='same'``
are PyTorch's.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from ..backend import Array, array_module, is_device_array
from ..initializers import Initializer, default_uniform, fans
from ..kernels.conv import plan
from ..kernels.cuda import routes, twin
from ..kernels.norm import channel_sums
from ..kernels.window import Window
from ..parallel import sum_slices
from ..parameter import Parameter
from .base import Layer, LayerError
from .check import pair, whole

Size: TypeAlias = int | tuple[int, int]


def conv2d_forward(x: Array, w: Array, b: Array | None, window: Window, G: int = 1, algorithm: str = "auto") -> Array:
    """Equation (1): y (N, OC, OH, OW) from x (N, C, H, W), w (OC, C/G, KH, KW) and b (OC,) or None."""
    y = plan.forward(nhwc(x), nhwc(w), b, window, G, algorithm)
    return y.transpose(0, 3, 1, 2)  # (N, OH, OW, OC) -> (N, OC, OH, OW)


@twin("elementwise")
def conv2d_backward_bias(dy: Array) -> Array:
    """Equation (2): db (OC,) from dy (N, OC, OH, OW)."""
    dy = nhwc(dy)
    if not dy.size:
        return array_module(dy).zeros(dy.shape[3], dy.dtype)
    (db,) = sum_slices(lambda s: (channel_sums(dy[s].reshape(1, -1, dy.shape[3]))[0],), dy, dy[:1].nbytes)
    return db.astype(dy.dtype)


def conv2d_backward(
    dy: Array,
    x: Array,
    w: Array,
    window: Window,
    G: int = 1,
    algorithm: str = "auto",
    need_dx: bool = True,
    need_dw: bool = True,
    out: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """Equations (4) and (3): dx (N, C, H, W) and dw (OC, C/G, KH, KW); None in place of one that is not needed.

    dw is written to ``out``, on channels-last memory, if that is given.
    """
    own = out if out is None else nhwc(out)
    dx, dw = plan.backward(nhwc(dy), nhwc(x), nhwc(w), window, G, algorithm, need_dx, need_dw, own)
    # (N, H, W, C) -> (N, C, H, W);  (OC, KH, KW, C/G) -> (OC, C/G, KH, KW)
    return dx if dx is None else dx.transpose(0, 3, 1, 2), dw if dw is None else dw.transpose(0, 3, 1, 2)


def taken(problem: plan.Problem, w: Array, algorithm: str = "auto") -> str:
    """Return the algorithm that `conv2d_forward` and `conv2d_backward` take for arrays of w's kind."""
    if is_device_array(w):
        return routes.taken(problem, w.dtype, algorithm)
    return plan.choose(problem, w.dtype, algorithm)


def is_algorithm(name: str) -> bool:
    """Return whether this is the name of an algorithm, of the CPU's or a GPU's."""
    return name == "auto" or name in plan.ALGORITHMS or routes.is_known(name)


def nhwc(x: Array) -> Array:
    """Return the view (N, H, W, C) of x (N, C, H, W), contiguous."""
    return x.transpose(0, 2, 3, 1)


class Conv2d(Layer):
    """Convolution with trained filters; the module docstring has the mathematics.

    Args:
        in_channels, out_channels: C and OC, both divisible by ``groups``.
        kernel_size: an int or (height, width), as are all below.
        stride: step of the window.
        padding: zeros added on each side; or ``'valid'``, none; or ``'same'``, so many that with stride 1 the
            output has the input's size (where the number is odd, the extra row or column is at the end).
        dilation: distance between the cells of the window.
        groups: blocks of channels that do not see each other; ``groups=in_channels`` is a depthwise convolution.
        bias: whether b is there.
        init: fill of the weight; by default U(±1/√fan_in).  The bias always starts as U(±1/√fan_in) when
            ``init`` is not given, and at zero when it is.
        algorithm: how to compute it: ``'auto'`` (the fastest by prediction; in float64 always im2col), ``'im2col'``,
            ``'strips'``, ``'winograd2'`` or ``'winograd4'`` (`tinycnn.kernels.conv.plan`); im2col takes the place of
            one that cannot do this convolution.  GPUs have their own (`tinycnn.kernels.cuda.routes`); on the one
            kind of machine the names of the other mean ``'auto'``.
        rng: generator that the initial values are drawn from; a fresh one by default.
        dtype: of the parameters.

    Shape:
        (N, C, H, W) -> (N, OC, OH, OW), OH = ⌊(H + 2P − D·(KH − 1) − 1)/S⌋ + 1, OW likewise.

    Raises:
        LayerError: options out of range; an input of another rank, dtype or channel count, or smaller than
            the window even with its padding.

    >>> conv = Conv2d(1, 2, 3, padding="same")
    >>> conv(np.zeros((4, 1, 5, 7), np.float32)).shape
    (4, 2, 5, 7)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | Literal["same", "valid"] = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        init: Initializer | None = None,
        algorithm: str = "auto",
        rng: np.random.Generator | None = None,
        dtype: np.typing.DTypeLike = np.float32,
    ) -> None:
        super().__init__()
        owner = f"Conv2d({in_channels}, {out_channels})"
        self.in_channels = whole(in_channels, "in_channels", owner)
        self.out_channels = whole(out_channels, "out_channels", owner)
        self.groups, self.padding = whole(groups, "groups", owner), padding
        self.window = make_window(kernel_size, stride, padding, dilation, owner)
        if in_channels % groups or out_channels % groups:
            raise LayerError(f"{owner}: in_channels and out_channels must be multiples of groups={groups}")
        if not is_algorithm(algorithm):
            raise LayerError(f"{owner}: algorithm must be 'auto' or one of {plan.ALGORITHMS}, got {algorithm!r}")
        self.algorithm = algorithm
        rng = np.random.default_rng(rng)
        shape = (out_channels, in_channels // groups, *self.window.kernel)
        self.init = init
        self.weight = Parameter((init or default_uniform)(shape, rng).astype(dtype))
        bound = fans(shape)[0] ** -0.5 if init is None else 0.0
        self.bias = Parameter(rng.uniform(-bound, bound, out_channels).astype(dtype)) if bias else None

    def forward(self, x: Array) -> Array:
        """Return y, equation (1)."""
        x = self.check_input(x, rank=4, channels=self.in_channels)
        check_fits(self, self.window, x)
        self.save(x)
        w, b = self.weight.cast(x.dtype), self.bias and self.bias.cast(x.dtype)
        return conv2d_forward(x, w, b, self.window, self.groups, self.algorithm)

    def backward(self, dy: Array) -> Array:
        """Return dx, equation (4); add (3) and (2) to the gradients."""
        (x,) = self.take_saved()
        dy = self.check_gradient(dy, (len(x), self.out_channels, *self.window.out_size(*x.shape[2:])))
        w, b = self.weight, self.bias
        if b and b.requires_grad:
            b.accumulate(conv2d_backward_bias(dy))
        clear = w.take_clear_grad()
        dx, dw = conv2d_backward(
            dy, x, w.cast(x.dtype), self.window, self.groups, self.algorithm, self.needs_dx, w.requires_grad, clear
        )
        if dw is not None and clear is None:
            w.accumulate(dw)
        return dx

    def chosen_algorithm(self, shape: tuple[int, ...]) -> str:
        """Return the algorithm taken for an x of ``shape`` (N, C, H, W)."""
        return taken(self.problem(shape), self.weight.data, self.algorithm)

    def problem(self, shape: tuple[int, ...]) -> plan.Problem:
        """Return the sizes of the convolution of an x of ``shape`` (N, C, H, W), as ``plan`` takes them."""
        N, C, H, W = shape
        return plan.Problem((N, H, W, C), self.out_channels, self.window, self.groups)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        return shape[0], self.out_channels, *self.window.out_size(*shape[2:])

    def macs(self, shape: tuple[int, ...]) -> int:
        """Multiply-adds of one forward on an x of ``shape``: M·K·OC/G."""
        _, OC, OH, OW = self.output_shape(shape)
        return shape[0] * OH * OW * OC * self.weight.data[0].size

    def options(self) -> str:
        """Return the arguments that differ from the defaults."""
        text = f"{self.in_channels}, {self.out_channels}, {window_options(self.window, self.padding)}"
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.__dict__.get("bias", True) is None else ""
        return text + (f", algorithm={self.algorithm!r}" if self.algorithm != "auto" else "")


def make_window(kernel_size: Size, stride: Size, padding: Size | str, dilation: Size, owner: str) -> Window:
    """Return the `Window` of a convolution's arguments.

    Raises:
        LayerError: a value is out of range, or ``padding='same'`` meets a stride other than 1.
    """
    kernel = pair(kernel_size, "kernel_size", 1, owner)
    strides = pair(stride, "stride", 1, owner)
    dilations = pair(dilation, "dilation", 1, owner)
    if padding == "same":
        if strides != (1, 1):
            raise LayerError(f"{owner}: padding='same' needs stride 1, got {stride}: give the padding as a number")
        totals = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        (top, left), (bottom, right) = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return Window(kernel, strides, ((top, bottom), (left, right)), dilations)
    if isinstance(padding, str) and padding != "valid":
        raise LayerError(f"{owner}: padding must be a number, a pair, 'same' or 'valid', got {padding!r}")
    PH, PW = (0, 0) if isinstance(padding, str) else pair(padding, "padding", 0, owner)
    return Window(kernel, strides, ((PH, PH), (PW, PW)), dilations)


def check_fits(layer: Layer, window: Window, x: Array) -> None:
    """Make sure that the window fits into the padded image at least once.

    Raises:
        LayerError: it does not.
    """
    H, W = x.shape[2:]
    if min(window.out_size(H, W)) < 1:
        reach = tuple(d * (k - 1) + 1 for d, k in zip(window.dilation, window.kernel, strict=True))
        raise LayerError(
            f"{layer}: the window covers {reach[0]}×{reach[1]}, the padded input only "
            "{}×{}: use larger images, more padding or a smaller kernel".format(*window.padded_size(H, W))
        )


def window_options(window: Window, padding: Size | str) -> str:
    """Return kernel, stride, padding and dilation as they appear in a repr, defaults left out."""

    def short(v: tuple[int, int]) -> str:
        return str(v[0] if v[0] == v[1] else v)

    text = short(window.kernel)
    text += f", stride={short(window.stride)}" if window.stride != (1, 1) else ""
    text += f", padding={padding!r}" if window.is_padded else ""
    return text + (f", dilation={short(window.dilation)}" if window.dilation != (1, 1) else "")
