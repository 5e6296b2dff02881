"""The tables of what was measured on a GPU, and last the one that says what was wanted and what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .gpu_worker import PARTS
from .report import Column, Table

Rows = Mapping[str, Mapping[str, Any]]
Results = Mapping[str, Rows]

PASSES = ("forward", "dx", "dw")
COLUMNS: dict[str, list[Column]] = {
    "ceilings": [Column("name", "work"), Column("speed", "speed", "two"), Column("unit", "")],
    "golden": [
        Column("title", "network"),
        Column("dtype", "dtype"),
        Column("steps", "steps", "count"),
        Column("loss", "loss off by", "error"),
        Column("gradient", "gradient off by", "error"),
    ],
    "graph": [
        Column("title", "network"),
        Column("precision", "precision"),
        Column("steps", "steps", "count"),
        Column("arrays", "arrays with equal bits", "count"),
    ],
    "steps": [
        Column("title", "training step"),
        Column("precision", "precision"),
        Column("batch", "batch", "count"),
        Column("ours", "tinycnn ms", "ms"),
        Column("eager", "without graph ms", "ms"),
        Column("theirs", "PyTorch eager ms", "ms"),
        Column("best", "at its best"),
        Column("ratio", "ratio", "ratio"),
        Column("torch_graph", "PyTorch's graph ms", "ms"),
        Column("graph_ratio", "ratio", "ratio"),
        Column("error", "error", "error"),
        Column("torch_error", "PyTorch's", "error"),
    ],
    "compiled": [
        Column("title", "training step"),
        Column("precision", "precision"),
        Column("batch", "batch", "count"),
        Column("ours", "tinycnn ms", "ms"),
        Column("compiled", "torch.compile ms", "ms"),
        Column("ratio", "ratio", "ratio"),
    ],
    "bandwidth": [
        Column("name", "operation"),
        Column("ours", "tinycnn ms", "ms"),
        Column("tb", "TB/s", "two"),
        Column("fraction", "of a copy", "percent"),
        Column("theirs", "PyTorch ms", "ms"),
        Column("ratio", "ratio", "ratio"),
        Column("error", "error", "error"),
    ],
    "memory": [
        Column("title", "training step"),
        Column("precision", "precision"),
        Column("batch", "batch", "count"),
        Column("ours", "tinycnn MiB", "MiB"),
        Column("ours_held", "held by the pool", "MiB"),
        Column("captured", "with its graph", "MiB"),
        Column("theirs", "PyTorch MiB", "MiB"),
        Column("theirs_held", "reserved", "MiB"),
        Column("ratio", "ratio", "two"),
    ],
    "epoch": [
        Column("title", "network"),
        Column("precision", "precision"),
        Column("batch", "batch", "count"),
        Column("first", "first epoch s", "two"),
        Column("epoch", "epoch s", "two"),
        Column("images_per_second", "images/s", "one"),
        Column("state", "steps"),
        Column("loss", "loss", "two"),
    ],
    "tests": [
        Column("file", "file"),
        Column("tests", "tests", "count"),
        Column("skipped", "skipped", "count"),
        Column("seconds", "s", "one"),
    ],
    "layers": [
        Column("net", "from"),
        Column("layer", "convolution"),
        Column("precision", "precision"),
        Column("algorithm", "algorithm"),
        *(
            column
            for which in PASSES
            for column in (
                Column(which, f"{which} ms", "ms"),
                Column(f"{which}_tflops", "TFLOP/s", "one"),
                Column(f"{which}_roofline", "of roofline", "percent"),
                Column(f"{which}_ratio", "ratio", "ratio"),
            )
        ),
        Column("error", "error", "error"),
        Column("torch_error", "PyTorch's", "error"),
    ],
}
NOTES = {
    "golden": ["the same weights and batches in PyTorch, float64, on the CPU; in float32 the first step's gradients."],
    "graph": [
        "every loss, parameter, statistic and momentum after the steps; eager twice, and replayed; one batch is odd and"
        " the learning rate changes at every step."
    ],
    "steps": [
        "tinycnn's step is captured and replayed; PyTorch's graph is its best eager step captured, and has a ratio of"
        " its own.",
        "error: largest relative error of a gradient against float64, on a smaller batch.",
    ],
    "compiled": ["torch.compile with mode reduce-overhead, channels_last, fused update."],
    "bandwidth": ["PyTorch eager, its optimizers fused (RMSprop: foreach); tinycnn captured."],
    "memory": ["the most that arrays take at any time of three eager steps, weights and all."],
    "layers": [
        "ten calls in a CUDA graph, on both sides; of roofline: the time that the card's measured product and copy"
        " speeds allow ÷ the time taken."
    ],
}


def tables(results: Results) -> list[Table]:
    """Return a table for every part that has results, one of what is missing, and the last one."""
    found = [_part(name, results) for name in PARTS if results.get(name)]
    return [*found, *_missing(results), summary(results)]


def _good(results: Results, name: str) -> list[dict[str, Any]]:
    return [dict(row) for row in results.get(name, {}).values() if not failed(row)]


def _part(name: str, results: Results) -> Table:
    table = Table(name, PARTS[name].title, COLUMNS[name], notes=list(NOTES.get(name, [])))
    for row in _good(results, name):
        table.add(**(_with_roofline(row, results) if name == "layers" else row))
        for key, why in {k: v for k, v in row.items() if k.endswith("trouble") and v}.items():
            words = f"{row.get('title') or row.get('layer')}, {row.get('precision')}, {key.removesuffix('_trouble')}"
            table.notes.append(f"{words}: {'; '.join(f'{name}: {text}' for name, text in why.items())}")
    return table


def _missing(results: Results) -> list[Table]:
    columns = [Column("part", "part"), Column("case", "case"), Column("why", "why")]
    table = Table("missing", "Failed, or not measured", columns)
    for part, rows in results.items():
        for case, row in rows.items():
            if failed(row):
                table.add(part=part, case=case, why=row["error"])
    return [table] if table.rows else []


def failed(row: Mapping[str, Any] | None) -> bool:
    """Whether a row is missing or says what went wrong: a measurement's own ``error`` is a number."""
    return row is None or isinstance(row.get("error"), str)


# ---- rooflines -------------------------------------------------------------------------------------------------


def _ceilings(results: Results) -> dict[str, float]:
    """Return FLOP/s by precision, and bytes/s of a ``copy``."""
    rows = results.get("ceilings", {})
    return {case: row["speed"] * 1e12 for case, row in rows.items() if row.get("unit") in ("TFLOP/s", "TB/s")}


def _with_roofline(row: dict[str, Any], results: Results) -> dict[str, Any]:
    speeds = _ceilings(results)
    if row["precision"] not in speeds or "copy" not in speeds:
        return row
    least = max(row["flop"] / speeds[row["precision"]], row["bytes"] / speeds["copy"])
    return row | {f"{which}_roofline": least / row[which]["median"] for which in PASSES if which in row}


# ---- what was wanted -------------------------------------------------------------------------------------------

Value = Callable[[Results], "float | None"]


def _step(case: str) -> Value:
    def value(results: Results) -> float | None:
        row = results.get("steps", {}).get(case, {})
        return row["ratio"]["median"] if "ratio" in row else None

    return value


def _fraction(kind: str) -> Value:
    """The least of the fractions of copy bandwidth."""

    def value(results: Results) -> float | None:
        rows = [row for row in results.get("bandwidth", {}).values() if row.get("kind") == kind]
        return min((row["fraction"] for row in rows), default=None)

    return value


def _pass(which: str) -> Value:
    """PyTorch's time of all convolutions together ÷ ours, in TF32."""

    def value(results: Results) -> float | None:
        rows = [row for row in results.get("layers", {}).values() if which in row and row["precision"] == "tf32"]
        ours = sum(row[which]["median"] for row in rows)
        return sum(row[f"{which}_torch"]["median"] for row in rows) / ours if ours else None

    return value


WANTED: list[tuple[str, Value, float, float]] = [
    ("ResNet-20 step, batch 128, float32", _step("resnet20 float32"), 2.0, 4.0),
    ("ResNet-20 step, batch 128, TF32", _step("resnet20 tf32"), 2.0, 4.0),
    ("LeNet-5 step, batch 128, float32", _step("lenet5 float32"), 3.0, 8.0),
    ("VGG-16-BN (CIFAR) step, batch 128, TF32", _step("vgg16_bn_cifar tf32"), 1.0, 1.5),
    ("ResNet-50 step, 224², batch 64, TF32", _step("resnet50 tf32"), 0.6, 1.0),
    ("ResNet-50 step, 224², batch 64, bf16", _step("resnet50 bf16"), 0.5, 1.0),
    ("BN + ReLU (+ sum), least fraction of copy bandwidth", _fraction("norms"), 0.7, 0.9),
    ("optimizers, least fraction of copy bandwidth", _fraction("optimizers"), 0.7, 0.9),
    ("all convolutions forward against cuDNN, TF32", _pass("forward"), 0.5, 0.9),
    ("all convolutions dx against cuDNN, TF32", _pass("dx"), 0.5, 0.9),
    ("all convolutions dw against cuDNN, TF32", _pass("dw"), 0.5, 0.9),
]


def summary(results: Results) -> Table:
    """Return the table of what was wanted."""
    columns = [Column("what", "what"), Column("value", "measured", "two"), Column("must", "must", "two")]
    table = Table("summary", "Wanted and found", [*columns, Column("aim", "aim", "two"), Column("verdict", "")])
    for name, title in (("tests", "tests on the card"), ("golden", "runs against PyTorch"), ("graph", "graph = eager")):
        rows = results.get(name, {})
        good = sum(not failed(row) for row in rows.values())
        verdict = f"{good} of {len(rows)} pass" if rows else "not measured"
        table.add(what=title, verdict=verdict)
    for what, find, must, aim in WANTED:
        value = find(results)
        table.add(what=what, value=value, must=must, aim=aim, verdict=_verdict(value, must, aim))
    table.notes.append(
        "ratios: PyTorch ÷ ours, of steps its best eager one; convolutions: those of all three networks."
    )
    return table


def _verdict(value: float | None, must: float, aim: float) -> str:
    if value is None:
        return "not measured"
    return "aim reached" if value >= aim else "reached" if value >= must else "missed"
