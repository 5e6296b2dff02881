"""The contract table: one row per layer and way of using it.

Every layer of the package has a row; `tinycnn gradcheck` runs the gradient checker over the table, and the tests
hold each row to the whole contract of `tinycnn.layers.base`.  A new layer gets a row here and is tested.

Sizes are small, and different in every dimension, so that swapped axes cannot pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .layers import (
    GELU,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm2d,
    BatchNormReLU2d,
    Checkpointed,
    Concat,
    Conv2d,
    DenseBlock,
    DenseLayer,
    Dropout,
    Dropout2d,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    Identity,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    PadShortcut,
    ReLU,
    Residual,
    ResidualNormReLU,
    Scale,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    StochasticBranch,
    StochasticDepth,
    Tanh,
    ZeroPad2d,
)
from .layers.base import Layer
from .models.lenet import RBF, TABLE_I, ScaledTanh, SparseConv2d, Subsample2d, digit_bitmaps

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A layer and an input it takes.

    Attributes:
        make: builds the layer from a generator.
        shape: of the input.
        evaluate: whether it is the evaluation behaviour that is checked.
    """

    make: Callable[[Rng], Layer]
    shape: tuple[int, ...]
    evaluate: bool = False

    def build(self, rng: Rng, dtype: np.typing.DTypeLike = np.float64) -> Layer:
        """Return the layer with parameters and running statistics moved off their initial values.

        A scale of exactly 1 or a bias of exactly 0 would hide a factor or a term forgotten in backward.
        """
        layer = self.make(rng).astype(np.float64)
        for p in layer.parameters():
            p.data[...] += rng.uniform(0.1, 0.4, p.shape)
        for name, value in layer.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                value[...] += rng.uniform(0.1, 0.4, value.shape)
        layer.astype(dtype)
        return layer.eval(backward=True) if self.evaluate else layer

    def input(self, rng: Rng, dtype: np.typing.DTypeLike = np.float64) -> np.ndarray:
        """Return an input in which no two values are close and none is near 0.

        Finite differences then cross neither ReLU's kink nor a change of a pool's winner.
        """
        size = int(np.prod(self.shape))
        values = (np.arange(size) + 0.5 - size // 2) * (4.0 / size)
        return rng.permutation(values).reshape(self.shape).astype(dtype)


def _keeps_first() -> Rng:
    """A generator of whose stochastic depth the first five batches are kept: a dropped one would test nothing."""
    return np.random.default_rng(4)


def _classifier(rng: Rng) -> Layer:
    return Sequential(Conv2d(4, 5, 3, rng=rng), Tanh(), Flatten(), Linear(100, 2, rng=rng))


def _residual(rng: Rng) -> Layer:
    main = Sequential(Conv2d(4, 4, 3, padding=1, bias=False, rng=rng), BatchNorm2d(4), Tanh())
    return Residual(main)


def _bottleneck(rng: Rng) -> Layer:
    main = Sequential(Conv2d(4, 2, 1, rng=rng), Tanh(), Conv2d(2, 6, 3, stride=2, padding=1, rng=rng))
    return Residual(main, Sequential(Conv2d(4, 6, 1, stride=2, bias=False, rng=rng), BatchNorm2d(6)))


def _residual_relu(rng: Rng) -> Layer:
    main = Sequential(Conv2d(4, 3, 3, padding=1, rng=rng), Tanh(), Conv2d(3, 4, 1, bias=False, rng=rng))
    return ResidualNormReLU(main, BatchNormReLU2d(4))


def _residual_relu_projection(rng: Rng) -> Layer:
    shortcut = Sequential(Conv2d(4, 6, 1, stride=2, bias=False, rng=rng), BatchNorm2d(6))
    return ResidualNormReLU(Conv2d(4, 6, 3, stride=2, padding=1, rng=rng), BatchNormReLU2d(6), shortcut)


def _inception(rng: Rng) -> Layer:
    return Concat(Conv2d(4, 3, 1, rng=rng), Sequential(Conv2d(4, 2, 3, padding=1, rng=rng), Tanh()), MaxPool2d(3, 1, 1))


def _checkpointed(rng: Rng) -> Layer:
    inner = Sequential(Conv2d(4, 6, 3, rng=rng), BatchNorm2d(6), Dropout(0.3, rng=rng), Tanh())
    return Checkpointed(inner)


def _stochastic_branch(rng: Rng) -> Layer:
    main = Sequential(Conv2d(4, 6, 3, stride=2, bias=False, rng=rng), BatchNorm2d(6), Tanh())
    return StochasticBranch(main, 0.4, rng=_keeps_first())


def _far_from_the_kink(layer: Layer) -> Layer:
    """Move what comes to the ReLUs up: near 0, numbers of 16 bits would fall on either side of the kink."""
    for name, p in layer.named_parameters():
        if name.endswith("bias"):
            p.data += 1.2
    return layer


_IMAGE = (3, 4, 7, 6)

CASES: dict[str, Case] = {
    "Conv2d": Case(lambda rng: Conv2d(4, 6, 3, rng=rng), _IMAGE),
    "Conv2d 1x1": Case(lambda rng: Conv2d(4, 6, 1, rng=rng), _IMAGE),
    "Conv2d 1x1 stride 2": Case(lambda rng: Conv2d(4, 6, 1, stride=2, bias=False, rng=rng), _IMAGE),
    "Conv2d same": Case(lambda rng: Conv2d(4, 6, (2, 4), padding="same", rng=rng), _IMAGE),
    "Conv2d stride": Case(lambda rng: Conv2d(4, 6, (3, 2), stride=(2, 3), padding=(1, 2), rng=rng), _IMAGE),
    "Conv2d dilation": Case(lambda rng: Conv2d(4, 6, (2, 3), dilation=(3, 2), padding=(2, 1), rng=rng), _IMAGE),
    "Conv2d groups": Case(lambda rng: Conv2d(4, 6, 3, padding=1, groups=2, rng=rng), _IMAGE),
    "Conv2d depthwise": Case(lambda rng: Conv2d(4, 4, (3, 2), stride=2, groups=4, bias=False, rng=rng), _IMAGE),
    "Linear": Case(lambda rng: Linear(5, 3, rng=rng), (4, 5)),
    "Linear no bias": Case(lambda rng: Linear(5, 3, bias=False, rng=rng), (1, 5)),
    "MaxPool2d": Case(lambda rng: MaxPool2d(2), _IMAGE),
    "MaxPool2d overlapping": Case(lambda rng: MaxPool2d((3, 2), stride=(2, 1), padding=1), _IMAGE),
    "MaxPool2d dilation": Case(lambda rng: MaxPool2d(2, stride=1, dilation=(3, 2)), _IMAGE),
    "MaxPool2d ceil": Case(lambda rng: MaxPool2d((3, 4), stride=3, padding=1, ceil_mode=True), _IMAGE),
    "AvgPool2d": Case(lambda rng: AvgPool2d((3, 2), stride=(2, 1), padding=1), _IMAGE),
    "AvgPool2d ceil": Case(
        lambda rng: AvgPool2d(3, stride=2, padding=1, ceil_mode=True, count_include_pad=False), (3, 4, 8, 6)
    ),
    "AvgPool2d divisor": Case(lambda rng: AvgPool2d((2, 3), divisor_override=5), _IMAGE),
    "AdaptiveAvgPool2d": Case(lambda rng: AdaptiveAvgPool2d((3, 4)), _IMAGE),
    "GlobalAvgPool2d": Case(lambda rng: GlobalAvgPool2d(), _IMAGE),
    "BatchNorm2d": Case(lambda rng: BatchNorm2d(4), _IMAGE),
    "BatchNorm2d no affine": Case(lambda rng: BatchNorm2d(4, affine=False, momentum=None), _IMAGE),
    "BatchNorm2d eval": Case(lambda rng: BatchNorm2d(4), _IMAGE, evaluate=True),
    "BatchNorm2d batch statistics": Case(lambda rng: BatchNorm2d(4, track_running_stats=False), _IMAGE, evaluate=True),
    "BatchNormReLU2d": Case(lambda rng: BatchNormReLU2d(4), _IMAGE),
    "BatchNormReLU2d eval": Case(lambda rng: BatchNormReLU2d(4), _IMAGE, evaluate=True),
    "LayerNorm": Case(lambda rng: LayerNorm((4, 7, 6)), _IMAGE),
    "LayerNorm features": Case(lambda rng: LayerNorm(5), (4, 5)),
    "GroupNorm": Case(lambda rng: GroupNorm(2, 4), _IMAGE),
    "InstanceNorm2d": Case(lambda rng: InstanceNorm2d(4, affine=True), _IMAGE),
    "LocalResponseNorm": Case(lambda rng: LocalResponseNorm(3, alpha=0.5), _IMAGE),
    "ReLU": Case(lambda rng: ReLU(), _IMAGE),
    "LeakyReLU": Case(lambda rng: LeakyReLU(0.1), _IMAGE),
    "Sigmoid": Case(lambda rng: Sigmoid(), _IMAGE),
    "Tanh": Case(lambda rng: Tanh(), _IMAGE),
    "Softplus": Case(lambda rng: Softplus(beta=2.0), _IMAGE),
    "GELU": Case(lambda rng: GELU(), _IMAGE),
    "GELU tanh": Case(lambda rng: GELU(approximate="tanh"), _IMAGE),
    "SiLU": Case(lambda rng: SiLU(), _IMAGE),
    "Softmax": Case(lambda rng: Softmax(dim=1), _IMAGE),
    "Dropout": Case(lambda rng: Dropout(0.4, rng=rng), _IMAGE),
    "Dropout eval": Case(lambda rng: Dropout(0.4, rng=rng), _IMAGE, evaluate=True),
    "Dropout2d": Case(lambda rng: Dropout2d(0.4, rng=rng), _IMAGE),
    "StochasticDepth batch": Case(lambda rng: StochasticDepth(0.4, "batch", rng=_keeps_first()), _IMAGE),
    "StochasticDepth row": Case(lambda rng: StochasticDepth(0.4, "row", rng=rng), _IMAGE),
    "StochasticBranch": Case(_stochastic_branch, _IMAGE),
    "StochasticBranch eval": Case(_stochastic_branch, _IMAGE, evaluate=True),
    "Flatten": Case(lambda rng: Flatten(), _IMAGE),
    "ZeroPad2d": Case(lambda rng: ZeroPad2d((1, 2, 0, 3)), _IMAGE),
    "Scale": Case(lambda rng: Scale(-0.3), _IMAGE),
    "Identity": Case(lambda rng: Identity(), _IMAGE),
    "PadShortcut": Case(lambda rng: PadShortcut(4, 8), _IMAGE),
    "PadShortcut end": Case(lambda rng: PadShortcut(4, 7, stride=3, where="end"), _IMAGE),
    "Sequential": Case(_classifier, _IMAGE),
    "Add": Case(lambda rng: Add(Conv2d(4, 3, 1, rng=rng), Conv2d(4, 3, 3, padding=1, rng=rng)), _IMAGE),
    "Residual": Case(_residual, _IMAGE),
    "Residual projection": Case(_bottleneck, _IMAGE),
    "ResidualNormReLU": Case(_residual_relu, _IMAGE),
    "ResidualNormReLU eval": Case(_residual_relu, _IMAGE, evaluate=True),
    "ResidualNormReLU projection": Case(_residual_relu_projection, _IMAGE),
    "Concat": Case(_inception, _IMAGE),
    "Checkpointed": Case(_checkpointed, _IMAGE),
    "DenseLayer": Case(lambda rng: _far_from_the_kink(DenseLayer(4, 3, 2, rng=rng)), _IMAGE),
    "DenseBlock": Case(lambda rng: _far_from_the_kink(DenseBlock(4, 3, 3, 2, 0.2, rng=rng)), _IMAGE),
    "DenseBlock eval": Case(lambda rng: DenseBlock(4, 3, 3, 2, rng=rng), _IMAGE, evaluate=True),
    "DenseBlock plain": Case(lambda rng: _far_from_the_kink(DenseBlock(4, 2, 3, None, 0.2, rng=rng)), _IMAGE),
    "DenseBlock checkpointed": Case(
        lambda rng: _far_from_the_kink(DenseBlock(4, 3, 2, 2, 0.2, checkpointed=True, rng=rng)), _IMAGE
    ),
    "ScaledTanh": Case(lambda rng: ScaledTanh(), _IMAGE),
    "Subsample2d": Case(lambda rng: Subsample2d(4, rng=rng), (3, 4, 6, 8)),
    "SparseConv2d": Case(lambda rng: SparseConv2d(TABLE_I, 3, rng=rng), (2, 6, 4, 5)),
    "RBF": Case(lambda rng: RBF(digit_bitmaps(4)), (3, 84)),
}
"""Every layer of the package by name; further words after the name tell apart several uses of one layer."""
