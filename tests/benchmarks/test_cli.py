import json
import sys

import pytest
import torch

from benchmarks import cli, frozen, memory, optimizers, peers, plots, profiling, scaling
from benchmarks.agree import Disagreement
from benchmarks.libraries import Library, Task, TinyCNN
from benchmarks.report import Report
from benchmarks.timing import Effort

LEAST = Effort(0, 1, 1, 1)


@pytest.fixture(autouse=True)
def _threads_of_torch():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def _least_effort(monkeypatch):
    for name in ("steps", "inference", "frozen", "layers", "optimizers", "loader", "scaling", "peers"):
        monkeypatch.setattr(f"benchmarks.{name}.QUICK", LEAST)


@pytest.mark.usefixtures("_least_effort")
def test_a_command_shows_and_writes(tmp_path, capsys):
    path, pictures = tmp_path / "steps.json", tmp_path / "pictures"
    arguments = ["steps", "--quick", "--only", "lenet", "--threads", "1", "--json", str(path), "--plot", str(pictures)]
    assert cli.main(arguments) == 0
    assert "LeNet-5" in capsys.readouterr().out
    report = Report.from_json(path.read_text(encoding="utf-8"))
    (row,) = report.tables[0].rows
    assert row["net"] == "lenet5"
    assert row["ours"]["median"] > 0
    assert row["ratio"]["median"] == pytest.approx(row["theirs"]["median"] / row["ours"]["median"])
    assert report.header["threads"].startswith("1")
    assert [p.name for p in pictures.iterdir()] == ["steps.png"]


@pytest.mark.usefixtures("_least_effort")
def test_frozen_layers_are_measured_with_what_is_left_to_train():
    (table,) = frozen.run(threads=1, quick=True)
    assert [row["frozen"] for row in table.rows] == ["nothing", "up to layer1", "all but the classifier"]
    assert [row["trained"] for row in table.rows] == [269_722, 269_722 - (432 + 32 + 6 * (2304 + 32)), 650]
    assert table.rows[0]["saved"]["median"] == 1
    assert all(row[name]["median"] > 0 for row in table.rows for name in ("ratio", "saved", "their_saved"))


def test_a_step_that_freezes_otherwise_is_not_timed(monkeypatch):
    """Statistics that move, or a part that is trained after all, are no rounding error."""

    def frozen_but_in_training(step, names):
        for path in names:
            step.model.get_submodule(path).requires_grad_(False)
        return step

    monkeypatch.setattr(frozen, "theirs", frozen_but_in_training)
    frozen.check("resnet20", 2, ())
    with pytest.raises(Disagreement, match="layer1"):
        frozen.check("resnet20", 2, ("layer1",))


@pytest.mark.usefixtures("_least_effort")
def test_layers_optimizers_and_scaling(tmp_path):
    path = tmp_path / "found.json"
    assert cli.main(["layers", "--quick", "--only", "conv 5×5, 6", "--json", str(path)]) == 0
    (row,) = json.loads(path.read_text(encoding="utf-8"))["tables"][0]["rows"]
    # 2 operations · 8 images · 10² places · 16 outputs · 6·5² inputs
    assert row["forward_gflops"] * row["forward"]["median"] * 1e9 == pytest.approx(2 * 8 * 100 * 16 * 150)
    assert row["backward_gflops"] * row["backward"]["median"] * 1e9 == pytest.approx(4 * 8 * 100 * 16 * 150)
    (table,) = optimizers.run(threads=1, quick=True, only="AdamW")
    assert [row["name"] for row in table.rows] == ["AdamW"]
    assert table.rows[0]["best"] in ("single", "foreach")
    (table,) = scaling.run(threads=1, quick=True, only="batch")
    assert [row["size"] for row in table.rows] == [8, 16]
    assert table.rows[1]["growth"]["median"] == pytest.approx(
        table.rows[1]["ours"]["median"] / table.rows[0]["ours"]["median"]
    )
    assert table.notes[0].startswith("largest growth")
    assert len(plots.draw(Report({}, [table]), tmp_path)) == 1


def test_every_optimizer_of_both_is_measured():
    import tinycnn

    kinds = {kind for kind, _ in optimizers.CASES.values()}
    both = {
        name
        for name in tinycnn.optim.__all__
        if isinstance(getattr(tinycnn.optim, name), type)
        and issubclass(getattr(tinycnn.optim, name), tinycnn.optim.Optimizer)
        and hasattr(torch.optim, name)
    } - {"Optimizer"}
    assert kinds == both
    assert len(optimizers.tensors(0, 2)) == 60


def test_memory_is_of_a_process_of_its_own():
    found = memory.measure("lenet5", 2, threads=1, repeats=1)
    assert 0 < found["ours_extra"] < found["ours_whole"] < found["contiguous_whole"] < 2 << 30


def test_absent_libraries_are_named_and_wrong_ones_found_out(monkeypatch):
    class Absent(Library):
        name, package = "Absent", "absent-package"

        def __init__(self):
            raise ImportError("No module named 'absent'")

    class Wrong(TinyCNN):
        def convolution(self, x, w, dy):
            task = super().convolution(x, 1.01 * w, dy)
            return Task(task.run, task.results)

    monkeypatch.setattr(peers, "PEERS", (Absent,))
    (table,) = peers.run(threads=1, quick=True)
    assert table.rows == []
    assert any("pip install absent-package" in note for note in table.notes)
    monkeypatch.setattr(peers, "PEERS", (Wrong,))
    with pytest.raises(Disagreement, match="tinycnn, conv 3×3"):
        peers.run(threads=1, quick=True)


def test_a_profile_adds_up():
    kinds, layers = profiling.tables("lenet5", 4)
    assert sum(row["share"] for row in kinds.rows) == pytest.approx(1)
    assert {"Conv2d", "MaxPool2d", "Linear", "optimizer.step"} <= {row["kind"] for row in kinds.rows}
    assert next(row for row in layers.rows if row["path"] == "conv1")["algorithm"]


def test_wrong_options_get_one_line(capsys):
    assert cli.main(["steps", "--threads", "0"]) == 2
    assert cli.main(["jumps"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_without_torch_there_is_a_cure(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main(["steps", "--quick"]) == 2
    assert "pip install" in capsys.readouterr().err
