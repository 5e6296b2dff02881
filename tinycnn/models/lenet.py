"""LeNet-5, as taught today and as published.

Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition",
section II and appendix A.
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..initializers import Shape, fans
from ..kernels.conv import plan
from ..kernels.window import Window
from ..layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU
from ..layers.base import Layer, LayerError
from ..layers.conv import check_fits, conv2d_backward, conv2d_backward_bias, conv2d_forward, taken
from ..parameter import Parameter, channels_last
from .arguments import checked
from .network import Architecture, Network


@checked
def lenet5(num_classes: int = 10, in_channels: int = 1, *, rng: np.random.Generator | None = None) -> Network:
    """LeNet-5 with today's parts: dense second convolution, ReLU, max-pooling, linear output.

    61,706 parameters and 416,520 multiply-adds for 10 classes on 1×32×32.

    Args:
        num_classes: outputs.
        in_channels: channels of the 32×32 input.
        rng: generator of the initial weights.
    """
    return Network(
        {
            "conv1": Conv2d(in_channels, 6, 5, rng=rng),  # -> (N, 6, 28, 28)
            "relu1": ReLU(),
            "pool1": MaxPool2d(2),  # -> (N, 6, 14, 14)
            "conv2": Conv2d(6, 16, 5, rng=rng),  # -> (N, 16, 10, 10)
            "relu2": ReLU(),
            "pool2": MaxPool2d(2),  # -> (N, 16, 5, 5)
            "flatten": Flatten(),  # -> (N, 400)
            "fc1": Linear(16 * 5 * 5, 120, rng=rng),
            "relu3": ReLU(),
            "fc2": Linear(120, 84, rng=rng),
            "relu4": ReLU(),
            "fc3": Linear(84, num_classes, rng=rng),
        },
        features="pool2",
        classifier="fc3",
    )


@checked
def lenet5_1998(num_classes: int = 10, in_channels: int = 1, *, rng: np.random.Generator | None = None) -> Network:
    """LeNet-5 as published: sparse C3, trainable subsampling, scaled tanh, RBF output against drawn digits.

    60,000 parameters for one input channel on 1×32×32.  The outputs are *minus* the RBF distances, so that the
    class with the largest output wins and `CrossEntropyLoss` is the paper's discriminative criterion (eq. 9)
    without its constant: y_D + log Σᵢ e^(−yᵢ) over the distances y.

    Args:
        num_classes: at most 10, the digits there are drawings of.
        in_channels: channels of the 32×32 input.
        rng: generator of the initial weights, U(±2.4/fan_in).
    """
    return Network(
        {
            "c1": Conv2d(in_channels, 6, 5, init=_uniform_2_4, rng=rng),  # -> (N, 6, 28, 28)
            "c1_tanh": ScaledTanh(),
            "s2": Subsample2d(6, rng=rng),  # -> (N, 6, 14, 14)
            "s2_tanh": ScaledTanh(),
            "c3": SparseConv2d(TABLE_I, 5, rng=rng),  # -> (N, 16, 10, 10)
            "c3_tanh": ScaledTanh(),
            "s4": Subsample2d(16, rng=rng),  # -> (N, 16, 5, 5)
            "s4_tanh": ScaledTanh(),
            "c5": Conv2d(16, 120, 5, init=_uniform_2_4, rng=rng),  # -> (N, 120, 1, 1)
            "c5_tanh": ScaledTanh(),
            "flatten": Flatten(),  # -> (N, 120)
            "f6": Linear(120, 84, init=_uniform_2_4, rng=rng),
            "f6_tanh": ScaledTanh(),
            "output": RBF(digit_bitmaps(num_classes)),
        },
        features="c5_tanh",
        classifier="output",
    )


def _uniform_2_4(shape: Shape, rng: np.random.Generator) -> np.ndarray:
    """U(±2.4/fan_in), the paper's fill (appendix A)."""
    bound = 2.4 / fans(shape)[0]
    return rng.uniform(-bound, bound, shape)


class ScaledTanh(Layer):
    """y = A·tanh(S·x) with A = 1.7159 and S = 2/3, so that f(±1) = ±1 (paper, eq. 6 and appendix A).

    Backward: dx = dy · A·S·(1 − tanh²(S·x)) = dy · S·(A − y²/A).  Saved: y.
    """

    mixed = False
    A, S = 1.7159, 2 / 3

    def forward(self, x: Array) -> Array:
        """Return A·tanh(S·x)."""
        y = self.A * array_module(x).tanh(self.S * self.check_input(x))
        self.save(y)
        return y

    def backward(self, dy: Array) -> Array:
        """Return dy · S·(A − y²/A)."""
        (y,) = self.take_saved()
        return self.check_gradient(dy, y.shape) * (self.S * (self.A - y * y / self.A))


class Subsample2d(Layer):
    """The paper's subsampling: the four cells of each 2×2 block are added, scaled and shifted per channel.

    With s the sum over a block, y = a·s + b; then da = Σ dy·s, db = Σ dy, and each of the four cells gets a·dy.
    Saved: s.

    Args:
        channels: C; the layer has one coefficient and one bias for each, the paper's 2·C parameters.
        rng: generator of the initial values.
    """

    mixed = False

    def __init__(self, channels: int, *, rng: np.random.Generator | None = None) -> None:
        super().__init__()
        rng = np.random.default_rng(rng)
        self.weight = Parameter(rng.uniform(0, 2.4 / 4, channels).astype(np.float32))
        self.bias = Parameter(np.zeros(channels, np.float32))

    def forward(self, x: Array) -> Array:
        """Return a·s + b; height and width must be even."""
        x = self.check_input(x, rank=4, channels=self.weight.size)
        if x.shape[2] % 2 or x.shape[3] % 2:
            raise LayerError(f"{self}: height and width must be even, got {tuple(x.shape)}")
        s = x[:, :, ::2, ::2] + x[:, :, ::2, 1::2] + x[:, :, 1::2, ::2] + x[:, :, 1::2, 1::2]
        self.save(s)
        return s * self.weight.data[:, None, None] + self.bias.data[:, None, None]

    def backward(self, dy: Array) -> Array:
        """Return a·dy at all four cells; add da and db to the gradients."""
        (s,) = self.take_saved()
        dy = self.check_gradient(dy, s.shape)
        self.weight.accumulate((dy * s).sum(axis=(0, 2, 3)))
        self.bias.accumulate(dy.sum(axis=(0, 2, 3)))
        dx = dy * self.weight.data[:, None, None]
        # (N, C, H/2, W/2) -> (N, C, H, W)
        return channels_last(dx.repeat(2, axis=2).repeat(2, axis=3))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return half the height and width."""
        return *shape[:2], shape[2] // 2, shape[3] // 2

    def options(self) -> str:
        """Return the number of channels."""
        return str(self.weight.size)


TABLE_I = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5)),
)
"""Which of the 6 maps of S2 each of the 16 maps of C3 sees (the paper's table I)."""


class SparseConv2d(Layer):
    """A convolution in which each output channel sees only some of the input channels.

    The trained filters, one K×K filter per connection, are laid into a dense weight that is zero elsewhere;
    then it is a plain convolution.  Laying in is linear and copies each filter once, so its backward reads
    the dense gradient at the same places.

    Args:
        table: for each output channel, the input channels it sees.
        kernel_size: K.
        rng: generator of the initial values, U(±2.4/fan_in) with the fan-in of each output channel.
    """

    mixed = False

    def __init__(
        self, table: tuple[tuple[int, ...], ...], kernel_size: int, *, rng: np.random.Generator | None = None
    ) -> None:
        super().__init__()
        rng = np.random.default_rng(rng)
        self.window = Window((kernel_size, kernel_size))
        self.rows = np.array([o for o, inputs in enumerate(table) for _ in inputs])
        self.columns = np.array([c for inputs in table for c in inputs])
        self.out_channels, self.in_channels = len(table), int(self.columns.max()) + 1
        bounds = 2.4 / (kernel_size**2 * np.array([len(table[o]) for o in self.rows]))
        weight = rng.uniform(-1, 1, (len(self.rows), kernel_size, kernel_size)) * bounds[:, None, None]
        self.weight = Parameter(weight.astype(np.float32))
        self.bias = Parameter(np.zeros(self.out_channels, np.float32))

    def _dense(self) -> Array:
        w = self.weight.data
        KH, KW = self.window.kernel
        dense = array_module(w).zeros((self.out_channels, KH, KW, self.in_channels), w.dtype)
        dense = dense.transpose(0, 3, 1, 2)  # (OC, KH, KW, C) -> (OC, C, KH, KW)
        dense[self.rows, self.columns] = w
        return dense

    def forward(self, x: Array) -> Array:
        """Return the convolution with the dense weight."""
        x = self.check_input(x, rank=4, channels=self.in_channels)
        check_fits(self, self.window, x)
        self.save(x)
        return conv2d_forward(x, self._dense(), self.bias.data, self.window)

    def backward(self, dy: Array) -> Array:
        """Return dx; add dw, read at the connections, and db to the gradients."""
        (x,) = self.take_saved()
        dy = self.check_gradient(dy, self.output_shape(x.shape))
        self.bias.accumulate(conv2d_backward_bias(dy))
        frozen = not self.weight.requires_grad
        dx, dw = conv2d_backward(dy, x, self._dense(), self.window, need_dx=self.needs_dx, need_dw=not frozen)
        if dw is not None:
            self.weight.accumulate(dw[self.rows, self.columns])
        return dx

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of y for an x of ``shape``."""
        return shape[0], self.out_channels, *self.window.out_size(*shape[2:])

    def chosen_algorithm(self, shape: tuple[int, ...]) -> str:
        """Return the algorithm that the dense convolution takes."""
        N, C, H, W = shape
        return taken(plan.Problem((N, H, W, C), self.out_channels, self.window), self.weight.data)

    def macs(self, shape: tuple[int, ...]) -> int:
        """Return the multiply-adds of the connections there are."""
        N, _, OH, OW = self.output_shape(shape)
        return N * OH * OW * self.weight.size

    def options(self) -> str:
        """Return channels, kernel and number of connections."""
        return f"{self.in_channels}, {self.out_channels}, {self.window.kernel[0]}, connections={len(self.rows)}"


class RBF(Layer):
    """Minus the squared distances to fixed patterns: y[n, i] = −Σⱼ (x[n, j] − p[i, j])² (paper, eq. 7).

    Backward: dx[n, j] = −2 Σᵢ dy[n, i]·(x[n, j] − p[i, j]).  The patterns are not trained.  Saved: x.

    Args:
        patterns: (classes, features).
    """

    mixed = False
    patterns: Array

    def __init__(self, patterns: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("patterns", patterns.astype(np.float32))

    def forward(self, x: Array) -> Array:
        """Return minus the distances, (N, classes)."""
        p = self.patterns
        x = self.check_input(x, rank=2, channels=p.shape[1])
        self.save(x)
        # (N, 1, features) − (classes, features) -> (N, classes, features) -> (N, classes)
        return -((x[:, None] - p.astype(x.dtype)) ** 2).sum(axis=2)

    def backward(self, dy: Array) -> Array:
        """Return dx, (N, features)."""
        (x,) = self.take_saved()
        p = self.patterns
        dy = self.check_gradient(dy, self.output_shape(x.shape))
        return -2 * (dy.sum(axis=1, keepdims=True) * x - dy @ p.astype(x.dtype))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return (N, classes)."""
        return shape[0], len(self.patterns)

    def options(self) -> str:
        """Return classes and features."""
        return "{}, {}".format(*self.patterns.shape)


# Ten digits on a grid of 7×12 dots, in the manner of the paper's figure 3; one column of text per digit.
_DIGITS = """
..###.. ...##.. .#####. ######. ....##. ####### ..####. ####### .#####. .#####.
.##.##. ..###.. ##...## .....## ...###. ##..... .##.... ##...## ##...## ##...##
##...## .####.. ##...## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## .....## .##.##. ##..... ##..... ....##. ##...## ##...##
##...## ...##.. ....##. ..####. ##..##. ######. ######. ....##. .#####. ##...##
##...## ...##.. ...##.. .....## ##..##. .....## ##...## ...##.. ##...## .######
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
.##.##. ...##.. ##..... ##...## ....##. ##...## ##...## ..##... ##...## ....##.
..###.. .###### ####### .#####. ....##. .#####. .#####. ..##... .#####. .####..
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
....... ....... ....... ....... ....... ....... ....... ....... ....... .......
"""


def digit_bitmaps(num_classes: int = 10) -> np.ndarray:
    """Return (num_classes, 84) drawings of the digits as ±1, the targets of the RBF output.

    Raises:
        ValueError: more classes than digits.
    """
    if not 1 <= num_classes <= 10:
        raise ValueError(
            f"lenet5_1998 has drawings of the 10 digits, num_classes={num_classes} needs others: use lenet5"
        )
    rows = [line.split() for line in _DIGITS.split("\n") if line]
    drawings = ["".join(row[digit] for row in rows) for digit in range(num_classes)]
    return np.array([[1.0 if dot == "#" else -1.0 for dot in drawing] for drawing in drawings])


_PAPER = "LeCun et al. 1998, Gradient-based learning applied to document recognition"

ARCHITECTURES = {
    "lenet5": Architecture(lenet5, (1, 32, 32), 61_706, 416_520, _PAPER),
    "lenet5_1998": Architecture(lenet5_1998, (1, 32, 32), 60_000, 325_680, _PAPER),
}
