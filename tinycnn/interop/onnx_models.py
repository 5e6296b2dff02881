"""How layers of single architectures are said in ONNX: one implementation of `to_onnx` each."""

from __future__ import annotations

import numpy as np

from ..backend import to_numpy
from ..models.heads import NetworkWithHeads
from ..models.lenet import RBF, ScaledTanh, SparseConv2d, Subsample2d
from .onnx_graph import Graph, to_onnx
from .onnx_layers import sequential


@to_onnx.register
def _network_with_heads(layer: NetworkWithHeads, graph: Graph, x: str) -> str:
    """Heads take no part in evaluation: nothing of them is in the file."""
    return sequential(layer, graph, x)


@to_onnx.register
def _scaled_tanh(layer: ScaledTanh, graph: Graph, x: str) -> str:
    y = graph.add("Tanh", graph.add("Mul", x, graph.constant("S", layer.S)))
    return graph.add("Mul", y, graph.constant("A", layer.A))


@to_onnx.register
def _subsample(layer: Subsample2d, graph: Graph, x: str) -> str:
    """Four cells added, scaled and shifted: a convolution of each channel by itself, with 2×2 equal weights."""
    C = layer.weight.size
    # (C,) -> (C, 1, 2, 2)
    w = np.broadcast_to(to_numpy(layer.weight.data)[:, None, None, None], (C, 1, 2, 2))
    return graph.add("Conv", x, graph.constant("kernel", w), graph.state("bias"), strides=(2, 2), group=C)


@to_onnx.register
def _sparse_conv(layer: SparseConv2d, graph: Graph, x: str) -> str:
    """The dense convolution, with zeros where there is no connection."""
    return graph.add("Conv", x, graph.constant("dense_weight", to_numpy(layer._dense())), graph.state("bias"))


@to_onnx.register
def _rbf(layer: RBF, graph: Graph, x: str) -> str:
    # (N, 1, features) − (classes, features) -> (N, classes, features) -> (N, classes)
    d = graph.add("Sub", graph.add("Unsqueeze", x, graph.constant("axes", [1])), graph.state("patterns"))
    return graph.add("Neg", graph.add("ReduceSumSquare", d, graph.constant("axes", [2]), keepdims=0))
