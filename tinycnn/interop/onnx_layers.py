"""How the layers of the package are said in ONNX: one implementation of `to_onnx` each; for norms see `onnx_norms`.

Most are one node of the same meaning.  The others, where conventions differ, say how.  Sizes of windows and bins that
depend on the image (``ceil_mode``, adaptive pooling) are worked out here, for the size that the network is exported
for: no operator is asked to round as PyTorch does.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TypeAlias

import numpy as np

from ..kernels.pool import bins
from ..kernels.window import Window
from ..layers import (
    GELU,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    Checkpointed,
    Concat,
    Conv2d,
    DenseBlock,
    DenseLayer,
    Dropout,
    Dropout2d,
    Flatten,
    Identity,
    Layer,
    LeakyReLU,
    Linear,
    MaxPool2d,
    PadShortcut,
    ReLU,
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
from .onnx_graph import Graph, to_onnx

# ---- layers made of layers -----------------------------------------------------------------------------------


@to_onnx.register(DenseLayer)
@to_onnx.register(Sequential)
def sequential(layer: Sequential, graph: Graph, x: str) -> str:
    """Write the children one after another."""
    for child in layer:
        x = graph.layer(child, x)
    return x


@to_onnx.register
def _add(layer: Add, graph: Graph, x: str) -> str:
    return _sum(graph, [graph.layer(branch, x) for branch in layer.children()])


@to_onnx.register
def _concat(layer: Concat, graph: Graph, x: str) -> str:
    return graph.add("Concat", *(graph.layer(branch, x) for branch in layer.children()), axis=1)


@to_onnx.register(Checkpointed)
@to_onnx.register(StochasticBranch)
def _layer_within(layer: Checkpointed | StochasticBranch, graph: Graph, x: str) -> str:
    return graph.layer(layer.layer, x)


@to_onnx.register
def _dense_block(layer: DenseBlock, graph: Graph, x: str) -> str:
    """[x, f(x)] again and again: no operator writes into an array that is there already."""
    for child in layer.children():
        N, C, H, W = graph.shape(x)
        new = graph.layer(child, x)
        x = graph.add("Concat", x, new, axis=1)
        graph.shapes[x] = (N, C + graph.shape(new)[1], H, W)
    return x


def _sum(graph: Graph, values: list[str]) -> str:
    total, *others = values
    for value in others:
        total = graph.add("Add", total, value)
    return total


# ---- products ------------------------------------------------------------------------------------------------


@to_onnx.register
def _conv(layer: Conv2d, graph: Graph, x: str) -> str:
    w, b = graph.state("weight"), graph.state("bias")
    return graph.add("Conv", x, w, b, group=layer.groups, **_window(layer.window))


@to_onnx.register
def _linear(layer: Linear, graph: Graph, x: str) -> str:
    return graph.add("Gemm", x, graph.state("weight"), graph.state("bias"), transB=1)


def _window(window: Window) -> dict[str, tuple[int, ...]]:
    """ONNX's attributes of a window; pads are (top, left, bottom, right)."""
    (top, bottom), (left, right) = window.padding
    shape = {"kernel_shape": window.kernel, "strides": window.stride, "pads": (top, left, bottom, right)}
    return shape if window.dilation == (1, 1) else {**shape, "dilations": window.dilation}


# ---- pooling -------------------------------------------------------------------------------------------------


@to_onnx.register
def _max_pool(layer: MaxPool2d, graph: Graph, x: str) -> str:
    """Rows and columns that ``ceil_mode`` adds are padding, −∞ to a maximum in ONNX too.

    There may be as many as a dilated window reaches, and runtimes refuse more than it has cells: those become pixels.
    """
    window = layer.window_on(*graph.shape(x)[2:])
    if any(max(pads) >= k for pads, k in zip(window.padding, window.kernel, strict=True)):
        x = _pad(graph, x, rows=window.padding[0], columns=window.padding[1], value=-math.inf)
        window = dataclasses.replace(window, padding=((0, 0), (0, 0)))
    return graph.add("MaxPool", x, **_window(window))


@to_onnx.register
def _avg_pool(layer: AvgPool2d, graph: Graph, x: str) -> str:
    """ONNX divides by KH·KW (``count_include_pad``), or by the pixels there are.

    What ``ceil_mode`` adds never counts.  Where the padding does, it becomes zeros of the image.  Any other divisor
    corrects the mean over KH·KW.
    """
    window, own = layer.window_on(*graph.shape(x)[2:]), layer.window
    if layer.divisor_override:
        y = graph.add("AveragePool", x, count_include_pad=1, **_window(window))
        return graph.add("Mul", y, graph.constant("scale", math.prod(window.kernel) / layer.divisor_override))
    counted = layer.count_include_pad and own.is_padded
    if counted and window != own:
        x, counted = _pad(graph, x, rows=own.padding[0], columns=own.padding[1]), False
        rows, columns = (
            (0, after - before) for (_, after), (_, before) in zip(window.padding, own.padding, strict=True)
        )
        window = dataclasses.replace(window, padding=(rows, columns))
    return graph.add("AveragePool", x, count_include_pad=int(counted), **_window(window))


@to_onnx.register
def _adaptive_avg_pool(layer: AdaptiveAvgPool2d, graph: Graph, x: str) -> str:
    """Bins that are one window sliding are a plain pool; others are products with matrices of shares, A·x·Bᵀ."""
    shape = graph.shape(x)
    sizes, outs = shape[2:], layer.output_shape(shape)[2:]
    if outs == (1, 1):
        return graph.add("GlobalAveragePool", x)
    steps = [_sliding(bins(size, out)) for size, out in zip(sizes, outs, strict=True)]
    if all(steps):
        kernel, strides = zip(*filter(None, steps), strict=True)
        return x if sizes == outs else graph.add("AveragePool", x, kernel_shape=kernel, strides=strides)
    a, b = (_shares(size, out) for size, out in zip(sizes, outs, strict=True))
    y = graph.add("MatMul", graph.constant("rows", a), x)  # (OH, H)·(N, C, H, W) -> (N, C, OH, W)
    return graph.add("MatMul", y, graph.constant("columns", b.T))  # (N, C, OH, W)·(W, OW) -> (N, C, OH, OW)


def _sliding(ranges: list[slice]) -> tuple[int, int] | None:
    """Return size and step of the window that meets these ranges, if there is one."""
    sizes, starts = {r.stop - r.start for r in ranges}, [r.start for r in ranges]
    steps = set(np.diff(starts).tolist()) or {1}
    one_window = len(sizes) == len(steps) == 1 and 0 not in steps
    return (sizes.pop(), steps.pop()) if one_window else None


def _shares(size: int, out: int) -> np.ndarray:
    """Return (out, size): by how much each of ``size`` pixels enters each of ``out`` means."""
    shares = np.zeros((out, size))
    for row, pixels in zip(shares, bins(size, out), strict=True):
        row[pixels] = 1 / (pixels.stop - pixels.start)
    return shares


# ---- activations ---------------------------------------------------------------------------------------------


@to_onnx.register
def _relu(layer: ReLU, graph: Graph, x: str) -> str:
    return graph.add("Relu", x)


@to_onnx.register
def _leaky_relu(layer: LeakyReLU, graph: Graph, x: str) -> str:
    return graph.add("LeakyRelu", x, alpha=float(layer.negative_slope))


@to_onnx.register
def _sigmoid(layer: Sigmoid, graph: Graph, x: str) -> str:
    return graph.add("Sigmoid", x)


@to_onnx.register
def _tanh(layer: Tanh, graph: Graph, x: str) -> str:
    return graph.add("Tanh", x)


@to_onnx.register
def _softmax(layer: Softmax, graph: Graph, x: str) -> str:
    return graph.add("Softmax", x, axis=layer.dim)


@to_onnx.register
def _softplus(layer: Softplus, graph: Graph, x: str) -> str:
    """ONNX's has neither β nor a threshold; at PyTorch's threshold of 20 the two sides are one number in float32."""
    t = x if layer.beta == 1 else graph.add("Mul", x, graph.constant("beta", layer.beta))
    y = graph.add("Softplus", t)
    y = y if layer.beta == 1 else graph.add("Div", y, graph.constant("beta", layer.beta))
    if layer.threshold >= 20 and graph.dtype == np.float32:
        return y
    return graph.add("Where", graph.add("Greater", t, graph.constant("threshold", float(layer.threshold))), x, y)


@to_onnx.register
def _scale(layer: Scale, graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.constant("factor", layer.factor))


@to_onnx.register
def _silu(layer: SiLU, graph: Graph, x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


@to_onnx.register
def _gelu(layer: GELU, graph: Graph, x: str) -> str:
    """An operator since opset 20; before, x·½(1 + erf(x/√2)), and for tanh x·σ(x·(a + b·x²)), a = √(8/π), b = γ·a."""
    if graph.opset >= 20:
        return graph.add("Gelu", x, approximate=layer.approximate)
    a = math.sqrt(8 / math.pi)
    if layer.approximate == "tanh":
        v = graph.add("Mul", graph.add("Mul", x, x), graph.constant("b", 0.044715 * a))
        v = graph.add("Mul", x, graph.add("Add", v, graph.constant("a", a)))
        return graph.add("Mul", x, graph.add("Sigmoid", v))
    erf = graph.add("Erf", graph.add("Mul", x, graph.constant("scale", math.sqrt(0.5))))
    half = graph.add("Mul", x, graph.constant("half", 0.5))
    return graph.add("Mul", half, graph.add("Add", erf, graph.constant("one", 1.0)))


# ---- layers that only move numbers, or do nothing in evaluation ----------------------------------------------


@to_onnx.register(Identity)
@to_onnx.register(Dropout)
@to_onnx.register(Dropout2d)
@to_onnx.register(StochasticDepth)
def _nothing(layer: Layer, graph: Graph, x: str) -> str:
    return x


@to_onnx.register
def _flatten(layer: Flatten, graph: Graph, x: str) -> str:
    """ONNX's Flatten leaves two axes always; in Reshape 0 is a size that stays and −1 what is left."""
    if layer.start_dim == 1:
        return graph.add("Flatten", x, axis=1)
    return graph.add("Reshape", x, graph.constant("shape", [0] * layer.start_dim + [-1]))


@to_onnx.register
def _zero_pad(layer: ZeroPad2d, graph: Graph, x: str) -> str:
    return _pad(graph, x, rows=(layer.top, layer.bottom), columns=(layer.left, layer.right))


@to_onnx.register
def _pad_shortcut(layer: PadShortcut, graph: Graph, x: str) -> str:
    """Every S-th pixel, then channels of zeros; the largest integer means "to the end"."""
    if layer.stride != (1, 1):
        ends = [np.iinfo(np.int64).max] * 2
        slices = (("starts", [0, 0]), ("ends", ends), ("axes", [2, 3]), ("steps", layer.stride))
        x = graph.add("Slice", x, *(graph.constant(name, values) for name, values in slices))
    new = layer.out_channels - layer.in_channels - layer.first
    return _pad(graph, x, channels=(layer.first, new)) if layer.out_channels > layer.in_channels else x


Sides: TypeAlias = tuple[int, int]


def _pad(
    graph: Graph,
    x: str,
    channels: Sides = (0, 0),
    rows: Sides = (0, 0),
    columns: Sides = (0, 0),
    value: float | None = None,
) -> str:
    """Zeros, or another value, before and after; ONNX wants all the befores first."""
    pads = [side for sides in zip((0, 0), channels, rows, columns, strict=True) for side in sides]
    return graph.add("Pad", x, graph.constant("pads", pads), None if value is None else graph.constant("value", value))
