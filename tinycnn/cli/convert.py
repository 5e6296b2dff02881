"""``tinycnn convert``: weights from one format to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import bad_input

ModelOption = Annotated[str | None, typer.Option(help="The architecture, if the file does not say (tinycnn models).")]
RenameOption = Annotated[list[str] | None, typer.Option(help="OLD=NEW: a layer's name in the file, and the network's.")]
DropOption = Annotated[list[str] | None, typer.Option(help="Names to leave out; * stands for anything.")]
ArgumentOption = Annotated[list[str] | None, typer.Option("--option", help="NAME=VALUE: of the architecture.")]
KeyOption = Annotated[str | None, typer.Option(help="Where a file has several: the one with the weights.")]
JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]
NATIVE, TORCH = "native", "torch"


def convert(
    source: Annotated[Path, typer.Argument(help="A .pth, .pt, .th or .safetensors file.")],
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write; replaced if it is there.")],
    model: ModelOption = None,
    rename: RenameOption = None,
    drop: DropOption = None,
    option: ArgumentOption = None,
    key: KeyOption = None,
    to: Annotated[str | None, typer.Option(help="native or torch. [default: native, of a native file torch]")] = None,
    json_line: JsonLine = False,
) -> None:
    """Bring weights from PyTorch into a checkpoint, or from a checkpoint into a state dict for PyTorch.

    A checkpoint knows its network: tinycnn.load, eval and export take it.  A state dict holds arrays alone, for
    module.load_state_dict(safetensors.torch.load_file(FILE)).  PyTorch need not be installed for either.
    """
    with bad_input():
        result = _convert(source, out, to, model, key, rename, drop, option)
    if json_line:
        print(json.dumps(result))
        return
    what = result["model"] or "weights"
    kind = "checkpoint" if result["format"] == NATIVE else "state dict for PyTorch"
    print(f"{out}: {what}, {result['arrays']} arrays, {result['numbers']:,} numbers, {kind}")


def _convert(
    source: Path,
    out: Path,
    to: str | None,
    name: str | None,
    key: str | None,
    rename: list[str] | None,
    drop: list[str] | None,
    option: list[str] | None,
) -> dict[str, Any]:
    from ..interop import fit_names, read_weights, save_for_torch
    from ..layers.state import arrays_of
    from ..train.checkpoint import native_metadata, save

    if out.suffix != ".safetensors":
        raise ValueError(f"{out}: what is written is a safetensors file: let its name end in .safetensors")
    if to not in (None, NATIVE, TORCH):
        raise ValueError(f"--to must be native or torch, got {to!r}")
    weights = read_weights(source, key)
    metadata = native_metadata(weights)
    to = to or (TORCH if metadata else NATIVE)
    if to == TORCH and name is None and not metadata:
        arrays: dict[str, Any] = fit_names(weights, (), pairs("--rename", rename), drop or ())
        save_for_torch(arrays, out)
    else:
        network = network_of(weights, name, rename, drop, option)
        arrays = arrays_of(network)
        name = network.architecture["name"]
        own = ("tinycnn", "kind", "architecture", "checksum")
        rest = {k: v for k, v in metadata.items() if k not in own}
        save(network, out, **rest) if to == NATIVE else save_for_torch(network, out)
    counts = {"arrays": len(arrays), "numbers": sum(x.size for x in arrays.values())}
    return {"source": str(source), "out": str(out), "format": to, "model": name, **counts}


def network_of(
    source: Any,
    name: str | None,
    rename: list[str] | None = None,
    drop: list[str] | None = None,
    option: list[str] | None = None,
    key: str | None = None,
) -> Any:
    """Return the network that has the weights in a file, as options of a command describe it.

    Where one path has another name, and that is all, it is renamed, and said on standard error.
    """
    from ..interop import load_network

    options = {k: _value(v) for k, v in pairs("--option", option).items()}
    if taken := {"name", "initialize", "source", "guess"} & set(options):
        raise ValueError(f"--option: {min(taken)} is no argument of an architecture")
    try:
        network = load_network(
            source, name, rename=pairs("--rename", rename), drop=drop or (), key=key, guess=True, **options
        )
    except TypeError as error:
        raise ValueError(f"--option: {error}") from None
    for old, new in network.renamed.items():
        typer.echo(f"tinycnn: note: {old or 'nothing'} in the file is taken for {new or 'nothing'}", err=True)
    if network.left_out:
        heads = ", ".join(dict.fromkeys(name.split(".")[0] for name in network.left_out))
        words = f"{heads} in the file is left out: the network has no auxiliary heads (--option aux_heads=true)"
        typer.echo(f"tinycnn: note: {words}", err=True)
    return network


def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """Return OLD=NEW texts as a dict."""
    for text in texts or []:
        if "=" not in text:
            raise ValueError(f"{option} must be NAME=NAME, got {text!r}")
    return {old: new for old, _, new in (text.partition("=") for text in texts or [])}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
