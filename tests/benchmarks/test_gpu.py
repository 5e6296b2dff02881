"""Workers, results that outlive them, and the last table; no GPU and no measurement."""

import json
import sys
import time

import pytest

from benchmarks import cli, gpu, gpu_rig, gpu_table
from benchmarks.gpu_worker import PARTS, UNUSABLE, Part

WORKER = """
import json, os, sys, time
order = json.load(sys.stdin)
if order["part"] == "dead":
    sys.exit("no such card")
with open(order["into"], "a") as into:
    def say(**line):
        into.write(json.dumps(line) + "\\n")
        into.flush()
    for case in order["cases"]:
        say(start=case)
        if case == "crashes":
            print("an illegal address", file=sys.stderr, flush=True)
            os.abort()
        if case == "hangs":
            time.sleep(60)
        if case == "slow":
            time.sleep(0.3)
        if case == "fails" and not os.path.exists(os.environ["MENDED"]):
            say(case=case, error="ValueError: it fails", traceback="Traceback …")
        elif case == "spoils":
            say(case=case, error="CUDAError: sticky", traceback="Traceback …")
            sys.exit(3)
        else:
            say(case=case, row={"name": case, "speed": 1.0, "unit": "TB/s", "took": 0.1})
"""
CASES = ["one", "crashes", "two", "fails", "hangs", "three", "spoils", "four"]


@pytest.fixture
def workers(monkeypatch, tmp_path):
    """The command of a worker that has a fate for each case; a folder for results."""
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    monkeypatch.setattr(gpu, "COMMAND", [sys.executable, str(path)])
    monkeypatch.setenv("MENDED", str(tmp_path / "mended"))
    return tmp_path


def measured(name, cases, seconds=30.0, stall=1.0, workers=1):
    found = {}
    gpu.measure(name, Part("", "", seconds, stall, workers), cases, seconds, found.update)
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.usefixtures("workers")
def test_whatever_happens_to_a_case_the_others_are_measured(count):
    assert UNUSABLE == 3
    found = measured("any", CASES, workers=count)
    assert set(found) == set(CASES)
    assert {case for case in CASES if "error" not in found[case]} == {"one", "two", "three", "four"}
    assert found["crashes"]["error"] == "the process ended with code -6"
    assert found["crashes"]["traceback"] == "an illegal address"
    assert found["hangs"]["error"] == "it hung: nothing for 1 s"
    assert found["fails"] == {"error": "ValueError: it fails", "traceback": "Traceback …"}


@pytest.mark.usefixtures("workers")
def test_a_process_that_cannot_begin_says_why():
    found = measured("dead", ["one"])
    assert found == {"one": {"error": "the process could not begin, it ended with code 1", "traceback": "no such card"}}


@pytest.mark.usefixtures("workers")
def test_time_is_kept():
    begin = time.monotonic()
    found = measured("any", ["one", "hangs", "two"], seconds=1.5, stall=50)
    assert time.monotonic() - begin < 10
    assert set(found) == {"one"}


@pytest.fixture
def fake_part(monkeypatch, workers):
    part = Part("What the card can do", "", 20, 5)
    monkeypatch.setattr(Part, "function", lambda self, name: lambda size: ["one", "fails", "slow"])
    monkeypatch.setitem(PARTS, "ceilings", part)
    started = []
    start = gpu.Worker.start.__func__
    monkeypatch.setattr(
        gpu.Worker,
        "start",
        classmethod(lambda cls, name, cases, at: (started.append(cases), start(cls, name, cases, at))[1]),
    )
    return workers, started


def run(folder, **how):
    said = []
    options = {"names": ["ceilings"], "budget": 60, "again": False, "gpu": "an abacus", "tiny": True, **how}
    report = gpu.run(folder / "results", say=said.append, **options)
    return report, said, json.loads((folder / "results.json").read_text())


def test_results_are_kept_and_only_what_is_missing_is_measured_again(fake_part):
    folder, started = fake_part
    report, said, plain = run(folder)
    assert started == [["one", "fails", "slow"]]
    assert said[0].startswith("ceilings: 2 of 3, ")
    assert plain["parts"]["ceilings"]["one"]["speed"] == 1.0
    assert plain["parts"]["ceilings"]["fails"]["traceback"] == "Traceback …"
    assert [table.name for table in report.tables] == ["ceilings", "missing", "summary"]
    assert (folder / "results.md").read_text().startswith("# tinycnn on a GPU: an abacus\n")
    (folder / "mended").touch()
    report, said, plain = run(folder)
    assert started[1:] == [["fails"]]
    assert said == ["ceilings: 3 of 3, 0 s"]
    assert [table.name for table in report.tables] == ["ceilings", "summary"]
    run(folder, again=True)
    assert started[2:] == [["one", "fails", "slow"]]


def test_results_of_other_sources_or_another_card_are_not_used(fake_part, monkeypatch):
    folder, started = fake_part
    run(folder)
    run(folder, gpu="another abacus")
    assert len(started[1]) == 3
    monkeypatch.setattr(gpu, "fingerprint", lambda gpu: {"sources": "other"})
    run(folder)
    assert len(started[2]) == 3
    (folder / "results.json").write_text("{ broken")
    run(folder)
    assert len(started[3]) == 3


def test_without_time_nothing_is_measured_and_that_is_said(fake_part):
    folder, started = fake_part
    _, said, plain = run(folder, budget=0)
    assert not started
    assert said == ["ceilings: 0 of 3, 0 s"]
    assert plain["parts"]["ceilings"]["one"] == {"error": "not measured: out of time"}


def test_the_last_table_says_what_was_wanted():
    spread = {"median": 1.7, "q1": 1.6, "q3": 1.8, "n": 5}
    layer = {
        "precision": "tf32",
        "flop": 1e9,
        "bytes": 1e6,
        "forward": {"median": 2e-5},
        "forward_torch": {"median": 1e-5},
    }
    results = {
        "steps": {"resnet20 tf32": {"ratio": spread}, "vgg16_bn_cifar tf32": {"ratio": spread}},
        "bandwidth": {"a": {"kind": "norms", "fraction": 0.95}, "b": {"kind": "norms", "fraction": 0.75}},
        "layers": {
            "a": layer,
            "b": {**layer, "forward": {"median": 1e-5}, "forward_torch": {"median": 5e-6}},
            "c": {**layer, "precision": "float32"},
        },
        "golden": {"a": {"loss": 0.0}, "b": {"error": "AssertionError: …"}},
        "ceilings": {"tf32": {"speed": 400.0, "unit": "TFLOP/s"}, "copy": {"speed": 4.0, "unit": "TB/s"}},
    }
    rows = {row["what"]: (row.get("value"), row["verdict"]) for row in gpu_table.summary(results).rows}
    assert rows["ResNet-20 step, batch 128, TF32"] == (1.7, "missed")
    assert rows["VGG-16-BN (CIFAR) step, batch 128, TF32"] == (1.7, "aim reached")
    assert rows["BN + ReLU (+ sum), least fraction of copy bandwidth"] == (0.75, "reached")
    assert rows["all convolutions forward against cuDNN, TF32"] == (pytest.approx(0.5), "reached")
    assert rows["all convolutions dx against cuDNN, TF32"] == (None, "not measured")
    assert rows["runs against PyTorch"][1] == "1 of 2 pass"
    assert rows["graph = eager"][1] == "not measured"
    roofs = [row.get("forward_roofline") for row in gpu_table._part("layers", results).rows]
    assert roofs == [pytest.approx(0.125), pytest.approx(0.25), None]  # 1 GFLOP at 400 TFLOP/s: 2.5 µs


def test_without_a_gpu_there_is_one_line_with_the_cause(monkeypatch, capsys):
    monkeypatch.setattr("tinycnn.backend.cuda_problem", lambda: "the NVIDIA driver reports no GPU")
    assert cli.main(["gpu"]) == 2
    assert capsys.readouterr().err == "benchmarks: there is nothing to measure: the NVIDIA driver reports no GPU\n"
    assert cli.main(["gpu", "--parts", "steps,jumps"]) == 2
    assert "no part is called 'jumps'" in capsys.readouterr().err


def test_the_command_names_its_files_after_the_card(monkeypatch, tmp_path, capsys):
    class Rig:
        def name(self):
            return "NVIDIA H200"

    seen = []

    def run(out, names, budget, again, card, tiny, say):
        seen.append((out, names, budget, again, card))
        missing = [gpu_table.Table("missing", "", [])] if again else []
        return gpu.Report({}, missing, "")

    monkeypatch.setattr(gpu_rig, "Rig", Rig)
    monkeypatch.setattr(gpu, "run", run)
    assert cli.main(["gpu"]) == 0
    assert (
        cli.main(["gpu", "--parts", "steps, graph", "--budget", "60", "--again", "--out", str(tmp_path / "a.json")])
        == 1
    )
    assert seen == [
        (cli.RESULTS / "nvidia_h200", list(PARTS), 600, False, "NVIDIA H200"),
        (tmp_path / "a", ["steps", "graph"], 60, True, "NVIDIA H200"),
    ]
