"""What a network is made of, as a table: `Layer.summary`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..kernels.precision import get_precision
from .base import Layer
from .watch import restored, watched


@dataclass(frozen=True)
class Row:
    """One layer of a `Summary`.

    Attributes:
        path: where it sits in the network.
        layer: its repr.
        output_shape: of its output.
        algorithm: by which it is computed, for a batch of this size; empty for layers that have only one.
        parameters: trainable scalars of its own.
        macs: multiply-adds of one forward; only convolutions and linear layers are counted, as is usual.
        activation_bytes: memory of its output.
    """

    path: str
    layer: str
    output_shape: tuple[int, ...]
    algorithm: str
    parameters: int
    macs: int
    activation_bytes: int


@dataclass(frozen=True)
class Summary:
    """Every layer that computes something itself, in the order of execution; ``str()`` gives the table.

    Attributes:
        rows: the layers.
        input_shape: what they were given.
        precision: the parameters' type; ``tf32`` where a GPU rounds the factors of products of float32 so.
    """

    rows: tuple[Row, ...]
    input_shape: tuple[int, ...]
    precision: str

    @property
    def parameters(self) -> int:
        """Trainable scalars of the network."""
        return sum(row.parameters for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward on the whole input."""
        return sum(row.macs for row in self.rows)

    @property
    def activation_bytes(self) -> int:
        """Memory of all outputs together."""
        return sum(row.activation_bytes for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """Return the table and its totals as plain data."""
        totals = {"parameters": self.parameters, "macs": self.macs, "activation_bytes": self.activation_bytes}
        given = {"input_shape": self.input_shape, "precision": self.precision}
        return {**given, **totals, "layers": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        head = ("layer", "", "output shape", "algorithm", "parameters", "multiply-adds", "activations")
        total = ("total", "", "", "", f"{self.parameters:,}", f"{self.macs:,}", _size(self.activation_bytes))
        table = [head, *(_cells(row) for row in self.rows), total]
        if not any(row.algorithm for row in self.rows):  # no convolution
            table = [cells[:3] + cells[4:] for cells in table]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        first, *lines, last = (_align(cells, widths) for cells in table)
        return "\n".join([f"input {self.input_shape}, {self.precision}", first, rule, *lines, rule, last])


def summarize(model: Layer, input_shape: tuple[int, ...]) -> Summary:
    """Send zeros of ``input_shape``, batch included, through the model, and write down what each layer does.

    The model is in eval mode meanwhile, and left as it was, but for what an earlier forward saved for its backward.

    Raises:
        LayerError: the model cannot take this shape.
    """
    first = next(model.parameters(), None)
    xp, dtype = (np, np.dtype("float32")) if first is None else (array_module(first.data), first.dtype)
    rows: list[Row] = []

    def note(layer: Layer, x: Array, y: Array) -> None:
        if layer._parameters or not list(layer.children()):
            shape, own = tuple(x.shape), sum(p.size for p in layer._parameters.values())
            how, macs = layer.chosen_algorithm(shape), layer.macs(shape)
            rows.append(Row(layer.path, repr(layer), tuple(y.shape), how, own, macs, int(y.nbytes)))

    with restored(model), watched(model.eval(), note):
        model.forward(xp.zeros(input_shape, dtype))
    rounds = xp is not np and dtype == np.float32
    return Summary(tuple(rows), tuple(input_shape), get_precision() if rounds else dtype.name)


def _cells(row: Row) -> tuple[str, ...]:
    shape = "×".join(map(str, row.output_shape))
    macs = f"{row.macs:,}" if row.macs else ""
    return (
        row.path,
        row.layer.replace(f", algorithm={row.algorithm!r}", ""),  # has a column of its own
        shape,
        row.algorithm,
        f"{row.parameters:,}" if row.parameters else "",
        macs,
        _size(row.activation_bytes),
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def _align(cells: tuple[str, ...], widths: list[int]) -> str:
    words = len(cells) - 3  # the last three are numbers
    padded = [
        cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
