import io

from rich.console import Console

from benchmarks.report import Column, Report, Table
from benchmarks.timing import Spread

COLUMNS = [
    Column("name", "case"),
    Column("time", "ms", "ms"),
    Column("ratio", "ratio", "ratio"),
    Column("n", "N", "count"),
]


def a_report():
    table = Table("steps", "Steps", COLUMNS, notes=["a note"])
    table.add(
        name="a|b", time=Spread(0.0123, 0.0121, 0.0127, 9), ratio=Spread(1.25, 1.2, 1.4, 9), n=1234, hidden=[1, 2]
    )
    table.add(name="→", time=Spread(2.5, 2.0, 4.0, 3))
    return Report({"machine": "an abacus", "date": "today"}, [table])


def test_json_reads_back_as_it_was(tmp_path):
    report = a_report()
    assert Report.from_json(report.to_json()) == report
    report.write(tmp_path / "new" / "cpu.json")
    assert Report.from_json((tmp_path / "new" / "cpu.json").read_text(encoding="utf-8")) == report


def test_markdown(tmp_path):
    a_report().write(tmp_path / "cpu.md")
    assert (tmp_path / "cpu.md").read_text(encoding="utf-8").splitlines() == [
        "# tinycnn on a CPU",
        "",
        "| | |",
        "|---|---|",
        "| machine | an abacus |",
        "| date | today |",
        "",
        "## Steps",
        "",
        "| case | ms | ratio | N |",
        "| --- | ---: | ---: | ---: |",
        "| a\\|b | 12.30 ±0.30 | 1.25 ±0.10 | 1,234 |",
        "| → | 2,500 ±1,000 |  |  |",
        "",
        "- a note",
    ]


def test_a_terminal_shows_the_same_cells():
    console = Console(file=io.StringIO(), width=120)
    a_report().print(console)
    text = console.file.getvalue()
    for cell in ("an abacus", "Steps", "a|b", "12.30 ±0.30", "1.25 ±0.10", "1,234", "2,500", "a note"):
        assert cell in text
