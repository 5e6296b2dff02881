"""``tinycnn export``: a network as an ONNX file, for other programs to run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import CommandError, bad_input

JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def export(
    model: Annotated[str, typer.Argument(help="A run folder, a checkpoint file, or an architecture's name.")],
    out: Annotated[Path, typer.Argument(help="The file to write, such as net.onnx; replaced if it is there.")],
    input_shape: Annotated[str | None, typer.Option(help="C,H,W of one image. [default: the network's own]")] = None,
    opset: Annotated[int | None, typer.Option(help="Version of ONNX's operators. [default: 18]")] = None,
    json_line: JsonLine = False,
) -> None:
    """Write a network to an ONNX file, as it behaves in evaluation, for batches of any size.

    It takes images as the network does, normalised already, and returns the scores of the classes, not probabilities.
    How images were prepared for a trained network, and what its classes are called, is in the file's metadata.
    """
    from ..interop.onnx import OPSET, export_onnx

    with bad_input():
        shape = None if input_shape is None else _shape(input_shape)
        network, how, weights = _network(model)
        if shape is None and how:
            shape = (network.architecture["in_channels"], *how["preprocessing"]["input_size"])
        try:
            file = export_onnx(network, out, shape, opset=OPSET if opset is None else opset, metadata=how)
        except ImportError as error:
            raise CommandError(str(error)) from error
    if json_line:
        result = {**dataclasses.asdict(file), "path": str(file.path)}
        print(json.dumps({"model": network.architecture["name"], "weights": weights, **result}))
        return
    print(f"{file.path}: {file.bytes:,} bytes, opset {file.opset}, {file.nodes} nodes, {file.dtype}")
    for name, sizes in (file.inputs | file.outputs).items():
        print(f"{name:6}  {'×'.join(map(str, sizes))}")


def _network(name: str) -> tuple[Any, dict[str, Any], str | None]:
    """Return the network that is meant; of a trained one, how images were prepared for it and the file of weights."""
    from .. import models
    from ..train.checkpoint import WEIGHTS, build, preprocessing_of, read

    if name in models.names():
        words = f"{name} is written with new weights, which know nothing: name a run or a checkpoint for trained ones"
        words += f" (./{name} is the one here)" if Path(name).exists() else ""
        typer.echo(f"tinycnn: note: {words}", err=True)
        return models.create(name), {}, None
    if not Path(name).exists() and Path(name).name == name and not Path(name).suffix:
        models.architecture(name)  # which does not exist either, and says what is near
    saved = read(Path(name), WEIGHTS)
    how = {"preprocessing": preprocessing_of(saved)} if "preprocessing" in saved.metadata else {}
    return build(saved), how, str(saved.path)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").replace("×", ",").strip("()").split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(
            f"--input-shape must be three numbers greater than 0, C,H,W (the batch may have any size), got {text!r}"
        )
    return tuple(int(part) for part in parts)
