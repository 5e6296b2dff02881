"""Weights and networks in the formats of other programs."""

from ..train.mapped import CheckpointError, Weights
from .network import load_network
from .onnx import OnnxFile, export_onnx
from .onnx_graph import Graph, to_onnx
from .weights import fit_names, load_weights, read_torch, read_weights, save_for_torch

__all__ = [
    "CheckpointError",
    "Graph",
    "OnnxFile",
    "Weights",
    "export_onnx",
    "fit_names",
    "load_network",
    "load_weights",
    "read_torch",
    "read_weights",
    "save_for_torch",
    "to_onnx",
]
