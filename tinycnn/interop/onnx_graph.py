"""The graph of a network in ONNX, while it is written down.

ONNX says what a network computes as a list of nodes.  A node has an operator (``Conv``), attributes (``strides``), and
names for the values it takes and for the one it makes; the list is in the order of execution.  Values that are known
beforehand, weights above all, are the graph's *initializers*.  Nothing is traced here: as a composite's forward is
its children's forwards put together, so its nodes are theirs.

`to_onnx` writes a layer's nodes, with one implementation per type of layer; `Graph` is what it writes to.

Names: an initializer is called as in the state dict (``layer1.0.conv1.weight``), a node, and the value it makes, by the
path of its layer and its operator (``layer1.0.conv1/Conv``).

Source: ONNX 1.17, "Open Neural Network Exchange intermediate representation specification" and "Operator schemas".
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..backend import to_numpy
from ..layers import Layer, LayerError
from ..parameter import Parameter

INPUT, OUTPUT = "input", "output"


@functools.singledispatch
def to_onnx(layer: Layer, graph: Graph, x: str) -> str:
    """Write the nodes that compute ``layer``, as it behaves in evaluation, and return the name of its output.

    Every layer of this package has an implementation.  One for a layer of your own is registered by its type, and
    then holds for subclasses that compute the same::

        @to_onnx.register(Square)
        def square(layer, graph, x):
            return graph.add("Mul", x, x)

    Args:
        layer: chooses the implementation.
        graph: that the nodes are added to.
        x: name of the layer's input; ``graph.shape(x)`` is its shape, batch included.

    Raises:
        LayerError: there is no implementation for this type of layer.
    """
    raise _no_exporter(layer, "has no ONNX exporter")


COMPUTING = ("forward", "value", "value_and_slope", "normalize")
"""Methods by which a layer computes: a subclass with its own is another function, and needs its own exporter."""


def check_exporter(layer: Layer) -> None:
    """Make sure that the implementation of `to_onnx` for this layer was written for what this layer computes.

    Raises:
        LayerError: it is that of a base class, and a method that computes is not.
    """
    known = next(cls for cls in type(layer).__mro__ if cls in to_onnx.registry)
    if known is object:
        return
    for method in COMPUTING:
        if getattr(type(layer), method, None) is not getattr(known, method, None):
            raise _no_exporter(layer, f"overrides {method} of {known.__name__}, so that its ONNX exporter does not fit")


def _no_exporter(layer: Layer, why: str) -> LayerError:
    kind = type(layer).__name__
    return LayerError(
        f"{layer}: {kind} {why}: write one and register it with @tinycnn.interop.to_onnx.register({kind})"
    )


class Graph:
    """Nodes and initializers of a network so far.

    Args:
        model: the network.
        input_shape: of its input, batch included.
        dtype: of its parameters, and so of all values.
        opset: version of ONNX's operators to write.

    Attributes:
        nodes: in the order of execution.
        initializers: arrays by name.
        shapes: of the input and of every layer's output, batch included, by the value's name.  An implementation that
            hands another value to a layer within says its shape here first.
    """

    def __init__(self, model: Layer, input_shape: tuple[int, ...], dtype: np.typing.DTypeLike, opset: int) -> None:
        self.dtype, self.opset = np.dtype(dtype), opset
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.shapes = {INPUT: tuple(input_shape)}
        self._paths = {layer: path for path, layer in model._walk("")}
        self._current = [model]
        state = (dict(model.named_parameters()), dict(model.named_buffers()))
        self._taken = {INPUT, OUTPUT}.union(*state)

    # ---- what implementations of to_onnx call ----------------------------------------------------------------

    def add(self, op: str, *inputs: str | None, **attributes: Any) -> str:
        """Add a node and return the name of the value it makes.

        Args:
            op: the operator.
            inputs: names of the values it takes; None for an optional one that is not given.
            attributes: as ONNX calls them.
        """
        from onnx.helper import make_node

        name = self._free(self._path(op, "/"))
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        self.nodes.append(make_node(op, [one or "" for one in inputs], [name], name=name, **attributes))
        return name

    def state(self, name: str) -> str | None:
        """Return the name of the initializer that holds the current layer's parameter or buffer, None if it has none.

        Args:
            name: of the layer's attribute, such as ``weight``.
        """
        own = getattr(self._current[-1], name)
        if own is None:
            return None
        path = self._path(name)
        if path not in self.initializers:
            self.initializers[path] = to_numpy(own.data if isinstance(own, Parameter) else own)
        return path

    def constant(self, name: str, values: Any) -> str:
        """Return the name of a new initializer of the current layer that holds ``values``.

        Whole numbers are shapes, axes and the like, int64 in ONNX; all others get the graph's dtype.
        """
        array = np.asarray(values)
        path = self._free(self._path(name))
        self.initializers[path] = array.astype(np.int64 if array.dtype.kind in "iu" else self.dtype)
        return path

    def layer(self, layer: Layer, x: str) -> str:
        """Write all nodes of a layer whose input is the value ``x``, and return the name of its output.

        Raises:
            LayerError: no `to_onnx` for this type of layer.
        """
        check_exporter(layer)
        with self.at(layer):
            y = to_onnx(layer, self, x)
        self.shapes[y] = tuple(layer.output_shape(self.shapes[x]))
        return y

    def shape(self, x: str) -> tuple[int, ...]:
        """Return the shape of a value in `shapes`: the batch of 1 that the graph is made with, then the others."""
        return self.shapes[x]

    @contextmanager
    def at(self, layer: Layer) -> Iterator[None]:
        """Make ``layer`` the current one: nodes and initializers are named after it."""
        self._current.append(layer)
        try:
            yield
        finally:
            self._current.pop()

    # ---- the rest --------------------------------------------------------------------------------------------

    def finish(self, y: str) -> None:
        """Make the value ``y`` the output of the network."""
        if all(y not in node.output for node in self.nodes):  # the input itself, which ONNX lets be no output
            y = self.add("Identity", y)
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [OUTPUT if name == y else name for name in names]
        self.shapes[OUTPUT] = self.shapes.pop(y, self.shapes[INPUT])

    def _path(self, name: str, separator: str = ".") -> str:
        path = self._paths.get(self._current[-1], "")
        return f"{path}{separator}{name}" if path else name

    def _free(self, name: str) -> str:
        """Return ``name``, numbered if it is taken."""
        free, i = name, 1
        while free in self._taken:
            free, i = f"{name}_{i}", i + 1
        self._taken.add(free)
        return free
