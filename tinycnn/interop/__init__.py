"""Weights and networks in the formats of other programs."""

from .onnx import OnnxFile, export_onnx
from .onnx_graph import Graph, to_onnx

__all__ = ["Graph", "OnnxFile", "export_onnx", "to_onnx"]
