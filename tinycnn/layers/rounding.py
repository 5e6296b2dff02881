"""What float32 costs each convolution of a network, by each algorithm: `conv_errors`.

An algorithm that multiplies less rounds more (`tinycnn.kernels.conv.winograd` says why).  How much depends on the
channels and on the numbers, so it is measured where it matters: on what each layer really gets.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..backend import Array, array_module
from ..kernels.conv import plan
from ..parameter import channels_last
from .base import Layer
from .conv import Conv2d, conv2d_backward, conv2d_forward
from .tune import convolutions
from .watch import restored, watched

COMPARED = ("im2col", "winograd2", "winograd4")
"""The algorithms whose errors are stated; strips round as im2col does."""
RESULTS = ("y", "dx", "dw")


@dataclass(frozen=True)
class ConvError:
    """The errors of one convolution.

    Attributes:
        path: where it sits in the network.
        input_shape: of its x.
        algorithm: the one it takes.
        errors: for each algorithm that can do it, the relative errors of y, dx and dw: root mean square of the
            difference over that of the result.
    """

    path: str
    input_shape: tuple[int, ...]
    algorithm: str
    errors: dict[str, tuple[float, float, float]]


@dataclass(frozen=True)
class ConvErrors:
    """Every convolution, in the order of execution; ``str()`` gives the table."""

    rows: tuple[ConvError, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the table as plain data."""
        return {"layers": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        width = max([5, *(len(row.path) for row in self.rows)])
        shapes = ["×".join(map(str, row.input_shape)) for row in self.rows]
        across = max([5, *map(len, shapes)])
        column = f"{'im2col':>7}  {'F(2×2)':>7}  {'F(4×4)':>7}"
        over = "".join(f"   {name:<{len(column)}}" for name in RESULTS)
        lines = [f"{'':{width}}  {'':{across}}  {'':9}{over}".rstrip()]
        lines += [f"{'layer':{width}}  {'input':{across}}  {'algorithm':9}" + f"   {column}" * len(RESULTS)]
        for row, shape in zip(self.rows, shapes, strict=True):
            words = "".join("   " + "  ".join(self._cells(row, i)) for i in range(len(RESULTS)))
            lines.append(f"{row.path:{width}}  {shape:{across}}  {row.algorithm:9}{words}".rstrip())
        return "\n".join(lines)

    @staticmethod
    def _cells(row: ConvError, i: int) -> list[str]:
        return [f"{row.errors[name][i]:7.1e}" if name in row.errors else " " * 7 for name in COMPARED]


def conv_errors(model: Layer, x: Array, seed: int = 0) -> ConvErrors:
    """Return the error of every convolution in float32, on what it gets when ``x`` goes through the model.

    y, dx and dw are compared with float64 by im2col, of the same float32 numbers; dL/dy is random and normal.

    Args:
        model: a network in float32, in the mode (training or evaluation) that is of interest; it is left as it was.
        x: its input.
        seed: of dL/dy.

    >>> from tinycnn import Conv2d, Sequential
    >>> x = np.random.default_rng(0).standard_normal((1, 8, 6, 6), np.float32)
    >>> (row,) = conv_errors(Sequential(Conv2d(8, 8, 3, algorithm="winograd4")), x).rows
    >>> row.algorithm, all(error < 1e-5 for error in row.errors["im2col"])
    ('winograd4', True)
    """
    rng, paths = np.random.default_rng(seed), {layer: path for path, layer in convolutions(model).items()}
    rows: list[ConvError] = []

    def note(layer: Layer, x: Array, y: Array) -> None:
        if isinstance(layer, Conv2d):
            rows.append(_row(layer, paths[layer], x, array_module(y).asarray(rng.standard_normal(y.shape, np.float32))))

    with restored(model), watched(model.set_saving(False), note):
        model.forward(x)
    return ConvErrors(tuple(rows))


def _row(conv: Conv2d, path: str, x: Array, dy: Array) -> ConvError:
    shape = tuple(x.shape)
    exact = _results(conv, x, dy, "im2col", np.float64)
    able = [name for name in COMPARED if plan.supports(name, conv.problem(shape))]
    found = {name: zip(_results(conv, x, dy, name, np.float32), exact, strict=True) for name in able}
    errors = {name: tuple(_relative(a, b) for a, b in pairs) for name, pairs in found.items()}
    return ConvError(path, shape, conv.chosen_algorithm(shape), errors)  # type: ignore[arg-type]  # three of them


def _results(conv: Conv2d, x: Array, dy: Array, name: str, dtype: np.typing.DTypeLike) -> tuple[Array, Array, Array]:
    """Return y, dx and dw by the algorithm ``name`` in ``dtype``, of the same numbers."""
    x, dy, w = (channels_last(a.astype(dtype)) for a in (x, dy, conv.weight.data))
    b = None if conv.bias is None else conv.bias.data.astype(dtype)
    y = conv2d_forward(x, w, b, conv.window, conv.groups, name)
    return y, *conv2d_backward(dy, x, w, conv.window, conv.groups, name)


def _relative(a: Array, b: Array) -> float:
    """Return ‖a − b‖ / ‖b‖, or 0 where both are 0."""
    difference, size = float(((a - b) ** 2).sum()) ** 0.5, float((b**2).sum()) ** 0.5
    return difference / size if size else difference
