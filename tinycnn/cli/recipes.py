"""``tinycnn recipes``: the trainings by name."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

from .errors import bad_input

JsonLine = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON.")]


def list_recipes(
    name: Annotated[str | None, typer.Argument(help="Of a recipe, to see all of it.")] = None,
    json_line: JsonLine = False,
) -> None:
    """List the trainings by name, with their published result and cost; or show one in full.

    The cost is 6 floating-point operations for every multiply-add of a forward, in PFLOP (10¹⁵).
    """
    from ..train import recipes

    if name is not None:
        with bad_input():
            recipe = recipes.find(name)
        print(json.dumps(_row(recipe)) if json_line else _all_of(recipe))
        return
    if json_line:
        print(json.dumps({"recipes": [_row(recipe) for recipe in recipes.table().values()]}))
        return
    rows = [_columns(recipe) for recipe in recipes.table().values()]
    head = ("name", "data", "model", "test error", "PFLOP", "source")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head) - 1)]
    for row in (head, *rows):
        cells = [
            cell.rjust(n) if i in (3, 4) else cell.ljust(n)
            for i, (cell, n) in enumerate(zip(row, widths, strict=False))
        ]
        print("  ".join((*cells, row[-1])))


def _columns(recipe: Any) -> tuple[str, ...]:
    s = recipe.settings()
    errors = " / ".join(one.percent for one in recipe.published.values())
    if not errors and recipe.measured:
        errors = f"{recipe.measured.error:.2f} % here"
    data = " / ".join(recipe.published or [s.data])
    return recipe.name, data, s.model, errors or "–", _pflop(recipe.flop), recipe.source


def _pflop(flop: float) -> str:
    p = flop / 1e15
    return f"{p:.0f}" if p >= 100 else f"{p:.1f}" if p >= 1 else f"{p:.2g}"


def _row(recipe: Any) -> dict[str, Any]:
    return {
        "name": recipe.name,
        "source": recipe.source,
        "published": {data: dataclasses.asdict(one) for data, one in recipe.published.items()},
        "measured": None if recipe.measured is None else dataclasses.asdict(recipe.measured),
        "flop": recipe.flop,
        "notes": recipe.notes,
        "settings": recipe.settings().to_dict(),
    }


def _all_of(recipe: Any) -> str:
    from ..train.recipes import word

    s = recipe.settings()
    lines = [f"{recipe.name}: {recipe.source}"]
    lines += [f"published for {data}: {one}" for data, one in recipe.published.items()]
    lines += [f"measured: {recipe.measured}"] * (recipe.measured is not None)
    lines += [f"cost: {_pflop(recipe.flop)} PFLOP", *(f"note: {note}" for note in recipe.notes), "settings:"]
    settings = {name: value for name, value in s.to_dict().items() if name not in ("recipe", "algorithms")}
    width = max(map(len, settings))
    lines += [f"  {name:{width}}  {word(value)}" for name, value in settings.items()]
    more = "".join(f" --data {data}" for data in list(recipe.published)[1:2])
    lines += [f"start it with: tinycnn train --recipe {recipe.name}" + (f"   (or{more})" if more else "")]
    return "\n".join(lines)
