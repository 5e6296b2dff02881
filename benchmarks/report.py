"""Tables of results: shown on a terminal, written as Markdown, and kept as JSON that reads back as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from .timing import Spread

Row = dict[str, Any]


def _milliseconds(t: Mapping[str, Any]) -> str:
    middle, half = 1e3 * t["median"], 1e3 * (t["q3"] - t["q1"]) / 2
    digits = 0 if middle >= 1000 else 1 if middle >= 100 else 2 if middle >= 10 else 3
    return f"{middle:,.{digits}f} ±{half:,.{digits}f}"


FORMS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": lambda n: f"{n:,}",
    "one": lambda x: f"{x:.1f}",
    "two": lambda x: f"{x:.2f}",
    "percent": lambda x: f"{100 * x:.0f} %",
    "share": lambda x: f"{100 * x:.1f} %",
    "error": lambda x: f"{x:.1e}",
    "MiB": lambda n: f"{n / 2**20:,.1f}",
    "ms": _milliseconds,
    "ratio": lambda r: f"{r['median']:.2f} ±{(r['q3'] - r['q1']) / 2:.2f}",
}
"""How a column shows its values; times and ratios are the `Spread.to_dict` of seconds and of numbers: the median, and
half the distance of the quartiles."""


@dataclass(frozen=True)
class Column:
    """A column of a table: the key in each row, the heading, and the form in `FORMS`."""

    key: str
    head: str
    form: str = "text"

    def show(self, row: Row) -> str:
        """Return the cell of this column; empty where the row has nothing."""
        value = row.get(self.key)
        return "" if value is None else FORMS[self.form](value)


@dataclass
class Table:
    """Rows of plain data, and how to show them.

    Attributes:
        name: in JSON.
        title: for people.
        columns: in order; rows may hold more than is shown.
        rows: by column key; values are plain data.
        notes: what a reader must know to believe it.
    """

    name: str
    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, **values: Any) -> None:
        """Add a row; a `Spread` becomes plain data."""
        self.rows.append({k: v.to_dict() if isinstance(v, Spread) else v for k, v in values.items()})

    def markdown(self) -> str:
        """Return the table in Markdown."""
        cells = [[column.show(row).replace("|", "\\|") for column in self.columns] for row in self.rows]
        rule = ["---" if column.form == "text" else "---:" for column in self.columns]
        lines = ["| " + " | ".join(line) + " |" for line in [[c.head for c in self.columns], rule, *cells]]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([f"## {self.title}", "", *lines, "", *notes]).rstrip() + "\n"

    def print(self, console: Console) -> None:
        """Show the table on a terminal."""
        shown = RichTable(
            title=self.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
        )
        for column in self.columns:
            shown.add_column(
                column.head,
                justify="left" if column.form == "text" else "right",
                no_wrap=column.form != "text" or column.key == "input",
                overflow="fold",
            )
        for row in self.rows:
            shown.add_row(*(Text(column.show(row)) for column in self.columns))
        console.print(shown)
        for note in self.notes:
            console.print(Text(f"  {note}", style="dim"))


@dataclass
class Report:
    """Everything that one command measured, with the header that says where and how, and its title."""

    header: dict[str, str]
    tables: list[Table]
    title: str = "tinycnn on a CPU"

    def markdown(self) -> str:
        """Return the report in Markdown."""
        head = ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in self.header.items())]
        return "\n".join([f"# {self.title}", "", *head, "", *(table.markdown() for table in self.tables)])

    def to_json(self) -> str:
        """Return the report in JSON."""
        plain = {"title": self.title, "header": self.header, "tables": [asdict(t) for t in self.tables]}
        return json.dumps(plain, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Read `to_json` back."""
        plain = json.loads(text)
        tables = [Table(**{**t, "columns": [Column(**column) for column in t["columns"]]}) for t in plain["tables"]]
        return cls(plain["header"], tables, plain.get("title", cls.title))

    def print(self, console: Console) -> None:
        """Show the report on a terminal."""
        for key, value in self.header.items():
            console.print(Text(f"{key}: {value}", style="dim"))
        for table in self.tables:
            console.print()
            table.print(console)

    def write(self, path: Path) -> None:
        """Write Markdown or JSON, by the file's suffix."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.markdown() if path.suffix == ".md" else self.to_json() + "\n", encoding="utf-8")
