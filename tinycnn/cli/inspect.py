"""``tinycnn models``, ``summary`` and ``gradcheck``: looking at networks and layers without training them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import numpy as np
import typer

from .errors import FAILED, CommandError, bad_input

JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def list_models(json_line: JsonLine = False) -> None:
    """List the architectures: name, parameters, input, source."""
    from .. import models

    known = {name: models.architecture(name) for name in models.names()}
    if json_line:
        rows = [
            {"name": n, "parameters": a.parameters, "macs": a.macs, "input_shape": a.input_shape, "source": a.source}
            for n, a in known.items()
        ]
        print(json.dumps({"models": rows}))
        return
    width = max(map(len, known))
    print(f"{'name':{width}}  {'parameters':>12}  {'multiply-adds':>14}  {'input':9}  source")
    for name, a in known.items():
        shape = "×".join(map(str, a.input_shape))
        print(f"{name:{width}}  {a.parameters:>12,}  {a.macs:>14,}  {shape:9}  {a.source}")


def summary(
    model: Annotated[str, typer.Argument(help="Name of an architecture (tinycnn models lists all).")],
    input_shape: Annotated[str | None, typer.Option(help="N,C,H,W. [default: one image of the usual size]")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Outputs. [default: what it was designed for]")] = None,
    json_line: JsonLine = False,
) -> None:
    """Show a network layer by layer: output shapes, parameters, multiply-adds, activation memory."""
    from .. import models

    with bad_input():
        usual = models.architecture(model).input_shape
        shape = (1, *usual) if input_shape is None else _shape(input_shape)
        table = models.create(model, num_classes, shape[1], initialize=False).summary(shape)
    print(json.dumps({"model": model, **table.to_dict()}) if json_line else table)


def _shape(text: str) -> tuple[int, ...]:
    parts = text.replace("x", ",").replace("×", ",").strip("()").split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--input-shape must be four numbers greater than 0, N,C,H,W, got {text!r}")
    return tuple(int(part) for part in parts)


def gradcheck(
    layers: Annotated[list[str] | None, typer.Argument(help="Which layers, such as Conv2d; all by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and inputs.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    json_line: JsonLine = False,
) -> None:
    """Compare every hand-written backward with finite differences, and print the relative errors."""
    from ..backend import resolve_device
    from ..contract import CASES

    with bad_input():
        names, device = _cases(layers or [], list(CASES)), resolve_device(device)
    width = max(map(len, names))
    results = []
    for name in names:
        report = _check(CASES[name], seed, device)
        results.append({"layer": name, "ok": bool(report.ok), "error": report.worst})
        if not json_line:
            print(f"{name:{width}}  {report.worst:8.1e}  {'ok' if report.ok else 'WRONG'}", flush=True)
            if not report.ok:
                print(report)
    wrong = [result["layer"] for result in results if not result["ok"]]
    if json_line:
        print(json.dumps({"layers": results, "ok": not wrong}))
    else:
        print(f"{len(names) - len(wrong)} of {len(names)} cases agree")
    if wrong:
        raise CommandError(f"wrong gradients: {', '.join(wrong)}", FAILED)


def _cases(wanted: list[str], known: list[str]) -> list[str]:
    """Return the names of the table that are meant: ``Conv2d`` means all of Conv2d's rows."""
    from ..messages import nearest

    if not wanted:
        return known
    chosen: list[str] = []
    for word in wanted:
        found = [name for name in known if name.lower() == word.lower() or name.split()[0].lower() == word.lower()]
        if not found:
            families = list(dict.fromkeys(name.split()[0] for name in known))
            raise ValueError(f"unknown layer {word!r}{nearest(word, families)} (known: {', '.join(families)})")
        chosen += [name for name in found if name not in chosen]
    return chosen


def _check(case: Any, seed: int, device: str) -> Any:
    from ..backend import to_device
    from ..gradcheck import gradcheck as check

    rng = np.random.default_rng(seed)
    return check(case.build(rng).to(device), to_device(case.input(rng), device))
