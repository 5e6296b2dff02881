"""Networks as ONNX files, which other programs run: ONNX Runtime, TensorRT, OpenVINO, a browser.

The file holds the network as it behaves in evaluation, for images of one size and batches of any.  `onnx_graph` says
what such a graph is, `onnx_layers` how each layer is written.  Needs the library onnx, the ``onnx`` extra.

**The file** is a message of Protocol Buffers: fields one after another, each a number, a length and so many bytes.
The library encodes the nodes, which are few; the weights are put behind them as they lie in memory, so that there is
never a second copy of all of them.  A message holds 2 GiB at most.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .. import __version__, models
from ..backend import array_module
from ..files import write_chunks
from ..layers import Layer, LayerError
from ..layers.watch import undisturbed
from . import onnx_layers, onnx_models, onnx_norms  # noqa: F401 (they register how layers are written)
from .onnx_graph import INPUT, OUTPUT, Graph

PathLike: TypeAlias = str | os.PathLike[str]
OPSET = 18
"""The version of the operators written unless another is asked for, and the oldest that can be."""
BATCH = "N"
MOST_BYTES = 2**31 - 1


@dataclass(frozen=True)
class OnnxFile:
    """What `export_onnx` wrote.

    Attributes:
        path: of the file.
        bytes: its size.
        opset: version of ONNX's operators.
        nodes: how many.
        inputs, outputs: shape by name; the batch is "N", any.
        dtype: of all of these and the weights.
    """

    path: Path
    bytes: int
    opset: int
    nodes: int
    inputs: dict[str, tuple[int | str, ...]]
    outputs: dict[str, tuple[int | str, ...]]
    dtype: str


def export_onnx(
    model: Layer,
    path: PathLike,
    input_shape: tuple[int, ...] | None = None,
    *,
    opset: int = OPSET,
    metadata: Mapping[str, Any] | None = None,
) -> OnnxFile:
    """Write a network, as it behaves in evaluation, to an ONNX file; the model is left as it was.

    The file's input is called "input", its output "output", and both have a first axis of any size, the batch.
    Initializers have the names of the state dict.  The metadata say which tinycnn wrote the file and, of a network
    made by `tinycnn.models.create`, from which arguments.

    Args:
        model: any layer; one of a type that is not tinycnn's needs an implementation of `to_onnx`.
        path: of the file, conventionally ending in ``.onnx``; replaced if it is there, in one step.
        input_shape: of one input, (C, H, W) or (features,); by default what the architecture was designed for.
        opset: version of ONNX's operators, from 18 to the newest that the installed library knows.
        metadata: anything else that the file's metadata should say, each value as JSON.

    Raises:
        ImportError: the library onnx is missing.
        LayerError: a layer cannot take its input, or its type has no exporter; the message names it.
        ValueError: no such opset; no shape where one is needed; the file would be larger than 2 GiB.
        OSError: the file cannot be written.

    >>> import os, tempfile
    >>> from tinycnn import Conv2d, Layer, Sequential
    >>> from tinycnn.interop import to_onnx
    >>> class Square(Layer):
    ...     def forward(self, x):
    ...         return x * x
    >>> @to_onnx.register(Square)
    ... def square(layer, graph, x):
    ...     return graph.add("Mul", x, x)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = export_onnx(Sequential(Conv2d(3, 8, 3), Square()), os.path.join(folder, "net.onnx"), (3, 32, 32))
    >>> file.nodes, file.outputs
    (2, {'output': ('N', 8, 30, 30)})
    """
    onnx = _library()
    if not OPSET <= opset <= onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        raise ValueError(
            f"opset must be from {OPSET} to {newest}, the newest that onnx {onnx.__version__} knows, got {opset}"
        )
    shape = _usual_shape(model) if input_shape is None else _checked(input_shape)
    graph = _graph(model, shape, opset)
    architecture = getattr(model, "architecture", None)
    known = {"architecture": architecture} if architecture else {}
    proto = _proto(graph, {**known, **(metadata or {})})
    size, chunks = _encoded(proto, graph.initializers)
    if size > MOST_BYTES:
        raise ValueError(
            f"{path}: would take {size:,} bytes, and an ONNX file has 2 GiB at most: "
            "export a smaller network, or one in float32"
        )
    if Path(path).is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder, where a file is to be written", str(path))
    write_chunks(Path(path), chunks)
    inputs, outputs = ({v.name: _dims(v) for v in values} for values in (proto.graph.input, proto.graph.output))
    return OnnxFile(Path(path), size, opset, len(graph.nodes), inputs, outputs, graph.dtype.name)


def _library() -> Any:
    try:
        import onnx
    except ImportError:
        raise ImportError("writing ONNX files needs the library onnx: pip install 'tinycnn[onnx]'") from None
    return onnx


def _usual_shape(model: Layer) -> tuple[int, ...]:
    architecture = getattr(model, "architecture", None)
    if architecture is None:
        raise ValueError(
            f"{type(model).__name__} does not say what it is made for: give input_shape, (C, H, W) of one image"
        )
    _, H, W = models.architecture(architecture["name"]).input_shape
    return architecture["in_channels"], H, W


def _checked(shape: tuple[int, ...]) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not sizes or not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(f"input_shape must be sizes of at least 1, (C, H, W) without the batch, got {shape!r}")
    return tuple(map(int, sizes))


# ---- the graph -----------------------------------------------------------------------------------------------


def _graph(model: Layer, input_shape: tuple[int, ...], opset: int) -> Graph:
    """Return the network's graph, after making sure that the network can take such an input."""
    state = (*(p.data for p in model.parameters()), *model.buffers())
    first = next((array for array in state if array.dtype.kind == "f"), np.empty(0, np.float32))
    xp, dtype = array_module(first), first.dtype
    with undisturbed(model), np.errstate(all="ignore"):
        model.eval().forward(xp.zeros((1, *input_shape), dtype))
    graph = Graph(model, (1, *input_shape), dtype, opset)
    graph.finish(graph.layer(model, INPUT))
    return graph


def _proto(graph: Graph, metadata: Mapping[str, Any]) -> Any:
    """Return the message without its weights: nodes, checked, with the shapes that ONNX finds for all values."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(graph.dtype)
    x = helper.make_tensor_value_info(INPUT, kind, [BATCH, *graph.shapes[INPUT][1:]])
    y = helper.make_tensor_value_info(OUTPUT, kind, [None] * len(graph.shapes[OUTPUT]))
    opsets = [helper.make_opsetid("", graph.opset)]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "tinycnn", [x], [y]),
        opset_imports=opsets,
        ir_version=helper.find_min_ir_version_for(opsets),
        producer_name="tinycnn",
        producer_version=__version__,
    )
    helper.set_model_props(
        proto, {key: json.dumps(value) for key, value in {"tinycnn": __version__, **metadata}.items()}
    )
    inferred = _inferred(proto, graph)
    _compare(graph, inferred)
    proto.graph.output[0].CopyFrom(inferred.output[0])
    proto.graph.value_info.extend(inferred.value_info)
    return proto


def _inferred(proto: Any, graph: Graph) -> Any:
    """Return the graph with every value's shape, as ONNX infers it.

    Floats are inputs there: weights have no part in shapes, and are too many to be copied.
    """
    from onnx import ModelProto, checker, helper, numpy_helper, shape_inference

    small = ModelProto()
    small.CopyFrom(proto)
    for name, array in graph.initializers.items():
        if array.dtype == np.int64:
            small.graph.initializer.append(numpy_helper.from_array(array, name))
        else:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            small.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
    try:
        checker.check_model(small)
        return shape_inference.infer_shapes(small, check_type=True, strict_mode=True, data_prop=True).graph
    except (checker.ValidationError, shape_inference.InferenceError) as error:
        first, *_ = str(error).splitlines()
        raise LayerError(f"the nodes that were written do not fit together: {first}") from error


def _compare(graph: Graph, inferred: Any) -> None:
    """Make sure that each layer's output has the shape in ONNX that it has here.

    Raises:
        LayerError: it has not: the layer's exporter is wrong, or its ``output_shape``.
    """
    for value in (*inferred.value_info, *inferred.output):
        here, there = graph.shapes.get(value.name), _dims(value)
        if here is None:
            continue
        sizes = zip(here[1:], there[1:], strict=False)
        if len(here) != len(there) or any(isinstance(b, int) and a != b for a, b in sizes):
            raise LayerError(f"{value.name}: its nodes in ONNX make {there}, the layer makes {(BATCH, *here[1:])}")


def _dims(value: Any) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)


# ---- the file ------------------------------------------------------------------------------------------------


def _encoded(proto: Any, arrays: Mapping[str, np.ndarray]) -> tuple[int, Iterator[Any]]:
    """Return the size of the message with the arrays as its graph's initializers, and its bytes in pieces.

    Fields of a message may stand in any order: the arrays are the graph's last, the graph the model's.
    """
    from onnx import GraphProto, ModelProto, TensorProto, helper

    nodes = proto.graph.SerializeToString()
    rest = ModelProto()
    rest.CopyFrom(proto)
    rest.ClearField("graph")
    pieces: list[Any] = [nodes]
    for name, array in arrays.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        head = TensorProto(name=name, dims=array.shape, data_type=kind).SerializeToString()
        head += _key(TensorProto.RAW_DATA_FIELD_NUMBER, array.nbytes)
        pieces += [_key(GraphProto.INITIALIZER_FIELD_NUMBER, len(head) + array.nbytes) + head, array]
    size = sum(piece.nbytes if isinstance(piece, np.ndarray) else len(piece) for piece in pieces)
    front = rest.SerializeToString() + _key(ModelProto.GRAPH_FIELD_NUMBER, size)
    return len(front) + size, map(_raw, [front, *pieces])


def _raw(piece: bytes | np.ndarray) -> Any:
    """Return bytes as they are and an array's in C order, low byte first: a copy only where memory is another."""
    if isinstance(piece, bytes):
        return piece
    array = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data if array.size else b""


def _key(field: int, size: int) -> bytes:
    """What stands before a field of ``size`` bytes: its number, with a 2 for "a length follows", and the length."""
    return _varint(field << 3 | 2) + _varint(size)


def _varint(n: int) -> bytes:
    """Seven bits to a byte, the low ones first; the eighth bit says that more follow."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + _varint(n >> 7)
