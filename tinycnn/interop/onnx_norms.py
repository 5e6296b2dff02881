"""How normalisation is said in ONNX: one implementation of `to_onnx` for each layer.

ONNX's operators take γ and β always, as vectors, and ε as an attribute of 32 bits.
"""

from __future__ import annotations

from typing import cast

import numpy as np

from ..layers import (
    BatchNorm2d,
    BatchNormReLU2d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LocalResponseNorm,
    ResidualNormReLU,
)
from ..layers.dense import PartNormReLU2d
from .onnx_graph import Graph, to_onnx


@to_onnx.register
def _batch_norm(layer: BatchNorm2d, graph: Graph, x: str) -> str:
    return _normalize(layer, graph, x)


@to_onnx.register(PartNormReLU2d)
@to_onnx.register(BatchNormReLU2d)
def _batch_norm_relu(layer: BatchNormReLU2d, graph: Graph, x: str) -> str:
    return graph.add("Relu", _normalize(layer, graph, x))


@to_onnx.register
def _residual_norm_relu(layer: ResidualNormReLU, graph: Graph, x: str) -> str:
    """``relu(norm(main(x)) + shortcut(x))``: the norm's own ReLU comes after the sum."""
    main, norm, shortcut = layer.children()
    m, s = graph.layer(main, x), graph.layer(shortcut, x)
    with graph.at(norm):
        m = _normalize(cast("BatchNormReLU2d", norm), graph, m)
    return graph.add("Relu", graph.add("Add", m, s))


def _normalize(layer: BatchNorm2d | InstanceNorm2d, graph: Graph, x: str) -> str:
    """γ·(x − μ)/√(v + ε) + β with the running statistics, if they are kept; otherwise with those of the batch."""
    if not layer.track_running_stats:
        return _normalize_by_batch(layer, graph, x)
    w, b = _scale_and_shift(graph, layer.num_features)
    mean, var = graph.state("running_mean"), graph.state("running_var")
    return graph.add("BatchNormalization", x, w, b, mean, var, epsilon=float(layer.eps))


def _scale_and_shift(graph: Graph, C: int) -> tuple[str, str]:
    """γ and β, which are not optional in ONNX."""
    w = graph.state("weight") or graph.constant("weight", np.ones(C))
    return w, graph.state("bias") or graph.constant("bias", np.zeros(C))


def _normalize_by_batch(layer: BatchNorm2d | InstanceNorm2d, graph: Graph, x: str) -> str:
    axes = graph.constant("axes", [0, 2, 3])
    d = graph.add("Sub", x, graph.add("ReduceMean", x, axes))
    v = graph.add("ReduceMean", graph.add("Mul", d, d), axes)
    sigma = graph.add("Sqrt", graph.add("Add", v, graph.constant("eps", layer.eps)))
    return _affine(graph, graph.add("Div", d, sigma), rank=4)


def _affine(graph: Graph, x: str, rank: int) -> str:
    """γ·x + β, with γ and β, (C,), seen as (C, 1, 1) where x are images."""
    for op, name in (("Mul", "weight"), ("Add", "bias")):
        p = graph.state(name)
        if p and rank == 4:
            p = graph.add("Unsqueeze", p, graph.constant("axes", [1, 2]))
        x = graph.add(op, x, p) if p else x
    return x


@to_onnx.register
def _instance_norm(layer: InstanceNorm2d, graph: Graph, x: str) -> str:
    if layer.track_running_stats:
        return _normalize(layer, graph, x)
    w, b = _scale_and_shift(graph, layer.num_features)
    return graph.add("InstanceNormalization", x, w, b, epsilon=float(layer.eps))


@to_onnx.register
def _group_norm(layer: GroupNorm, graph: Graph, x: str) -> str:
    """A group is one channel of an instance normalisation: (N, C, H, W) -> (N, G, C/G·H·W) and back.

    ONNX's GroupNormalization had γ and β per group before opset 21, and takes no (N, C).
    """
    G, shape = layer.num_groups, graph.shape(x)
    grouped = graph.add("Reshape", x, graph.constant("groups", [0, G, -1]))  # 0: as it is, the batch
    ones, zeros = graph.constant("ones", np.ones(G)), graph.constant("zeros", np.zeros(G))
    y = graph.add("InstanceNormalization", grouped, ones, zeros, epsilon=float(layer.eps))
    return _affine(graph, graph.add("Reshape", y, graph.constant("shape", [0, *shape[1:]])), rank=len(shape))


@to_onnx.register
def _layer_norm(layer: LayerNorm, graph: Graph, x: str) -> str:
    w = graph.state("weight") or graph.constant("weight", np.ones(layer.normalized_shape))
    axis = -len(layer.normalized_shape)
    return graph.add("LayerNormalization", x, w, graph.state("bias"), axis=axis, epsilon=float(layer.eps))


@to_onnx.register
def _lrn(layer: LocalResponseNorm, graph: Graph, x: str) -> str:
    """ONNX divides α by the size, as PyTorch; where the size is even its neighbourhood is the mirrored one.

    Then the sum over neighbours is written as a 1×1 convolution of x² with a banded matrix.
    """
    before, after, *others = layer.constants
    alpha, beta, k = map(float, others)
    if layer.size % 2:
        return graph.add("LRN", x, size=layer.size, alpha=alpha * layer.size, beta=beta, bias=k)
    C = graph.shape(x)[1]
    offset = np.arange(C) - np.arange(C)[:, None]  # of channel j from channel c, (C, C)
    band = alpha * ((-before <= offset) & (offset <= after))
    w, b = graph.constant("band", band[:, :, None, None]), graph.constant("k", np.full(C, k))
    s = graph.add("Conv", graph.add("Mul", x, x), w, b)
    return graph.add("Mul", x, graph.add("Pow", s, graph.constant("exponent", -beta)))
