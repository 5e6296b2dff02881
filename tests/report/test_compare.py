"""Several runs in one picture and one table."""

import sys

import pytest
from matplotlib.image import imread

from tinycnn.report import compare
from tinycnn.report.story import Story


def run(folder, accuracies=(0.5, 0.75), validation=True, **settings):
    rows = [{"epoch": e, "train_accuracy": a, "seconds": 30.0} for e, a in enumerate(accuracies, start=1)]
    if validation:
        rows = [{**row, "val_accuracy": row["train_accuracy"] - 0.1} for row in rows]
    return Story(folder, {"settings": {"model": "lenet5", "data": "mnist", "epochs": 2, **settings}}, rows, {})


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw, and return the axes as matplotlib has them."""
    from matplotlib.figure import Figure

    kept = []
    original = Figure.subplots
    monkeypatch.setattr(Figure, "subplots", lambda self, *a, **k: kept.append(original(self, *a, **k)) or kept[-1])

    def draw(runs, name="a.png"):
        compare.draw(runs, tmp_path / name)
        return kept[-1]

    return draw


def test_a_line_for_each_part_of_each_run(drawn, tmp_path):
    axes = drawn([run(tmp_path / "a"), run(tmp_path / "b", (0.1, 0.2), validation=False, model="resnet20")])
    val, train, alone = axes.lines
    assert list(val.get_ydata()) == pytest.approx([60, 35])
    assert list(train.get_ydata()) == pytest.approx([50, 25])
    assert list(alone.get_ydata()) == pytest.approx([90, 80])
    assert list(alone.get_xdata()) == [1, 2]
    assert val.get_linestyle() == "-"
    assert train.get_linestyle() == alone.get_linestyle() == "--"
    assert val.get_color() == train.get_color() != alone.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["lenet5 on mnist", "resnet20 on mnist"]
    assert imread(tmp_path / "a.png").shape[0] > 500
    assert axes.get_title("left") == "validation error (dashed: training error)"


def test_without_validation_the_title_promises_none(drawn, tmp_path):
    assert drawn([run(tmp_path / "a", validation=False)]).get_title("left") == "training error"


@pytest.mark.parametrize("name", ["a.svg", "a.pdf", "A.PNG"])
def test_other_formats(drawn, tmp_path, name):
    drawn([run(tmp_path)], name)
    assert (tmp_path / name).stat().st_size > 1000


def test_runs_that_are_alike_are_told_apart_by_their_folders(tmp_path):
    runs = [run(tmp_path / "a"), run(tmp_path / "b"), run(tmp_path / "c", recipe="he")]
    assert compare.names_of(runs) == ["lenet5 on mnist (a)", "lenet5 on mnist (b)", "he"]
    first, second = (tmp_path / folder / "run" for folder in "de")
    names = [f"lenet5 on mnist ({first})", f"lenet5 on mnist ({second})", "lenet5 on mnist (a)"]
    assert compare.names_of([run(first), run(second), runs[0]]) == names


def test_names_leave_room_for_the_curves(drawn, tmp_path):
    changed = run(
        tmp_path / "a", recipe="he, shortened: 10 % of the images, " + "schedule onecycle instead of multistep, " * 9
    )
    alike = [run(tmp_path / ("long " * 30)), run(tmp_path / "b")]
    axes = drawn([changed, *alike])
    first, second, _ = (text.get_text() for text in axes.get_legend().get_texts())
    assert first == "he, shortened"
    assert len(second) > 150
    assert all(len(line) <= compare.LEGEND for line in second.splitlines())


def test_names_are_no_mathematics(drawn, tmp_path):
    axes = drawn([run(tmp_path / r"$\frac$"), run(tmp_path / "b")])
    first = axes.get_legend().get_texts()[0]
    assert first._preprocess_math(first.get_text()) == (r"lenet5 on mnist ($\frac$)", False)


def test_the_table(tmp_path):
    finished = run(tmp_path / "b", recipe="he")
    finished.result.update(test_accuracy=0.625, best_epoch=2)
    text = compare.table([run(tmp_path / "a", accuracies=()), finished])
    head, first, second = (line.split("  ") for line in text.splitlines())
    cells = [[cell.strip() for cell in line if cell.strip()] for line in (head, first, second)]
    assert cells[0] == ["run", "epochs", "training", "validation", "test", "best epoch", "time"]
    assert cells[1] == ["lenet5 on mnist", "0 of 2", "–", "–", "–", "–", "0 s"]
    assert cells[2] == ["he", "2 of 2", "75.00 %", "65.00 %", "62.50 %", "2", "60 s"]


def test_what_cannot_be_drawn(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"must end in one of \.png"):
        compare.draw([run(tmp_path)], tmp_path / "a.txt")
    with pytest.raises(ValueError, match="nothing to draw"):
        compare.draw([run(tmp_path, accuracies=())], tmp_path / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"tinycnn\[plot\]"):
        compare.draw([run(tmp_path)], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
