"""``tinycnn report`` and ``tinycnn compare``."""

import shutil
import sys

import pytest


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


def test_report(command, run):
    assert command("report", run) == 0
    assert command.out == f"report in {run / 'report.html'}\n"
    assert "lenet5 on digits" in (run / "report.html").read_text(encoding="utf-8")
    assert command("report", run, "--out", "a.html", "--json") == 0
    assert command.json() == {"run": str(run), "report": "a.html"}


def test_report_refuses(command, tmp_path, run):
    assert "there is no such folder" in command.refused("report", tmp_path / "nowhere")
    assert "not a run folder" in command.refused("report", tmp_path)
    assert "No such file" in command.refused("report", run, "--out", "nowhere/a.html")
    assert "--device" in command.refused("report", run, "--device", "gpu") or "device 'gpu'" in command.err


def test_compare(command, run, trained, tmp_path):
    assert command("compare", run, trained, "--out", "a.png") == 0
    head, first, _, last = command.out.splitlines()
    assert head.split()[:2] == ["run", "epochs"]
    assert first.startswith("lenet5 on digits")
    assert last == "picture in a.png"
    assert (tmp_path / "a.png").is_file()
    assert command("compare", run, "--json") == 0
    (found,) = command.json()["runs"]
    assert found["epochs"] == 2
    assert (tmp_path / command.json()["picture"]).name == "compare.png"


def test_compare_refuses(command, run, tmp_path, monkeypatch):
    assert "must end in" in command.refused("compare", run, "--out", "a.bmp")
    assert "not a run folder" in command.refused("compare", run, tmp_path)
    assert "runs" in command.refused("compare").lower()
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "tinycnn[plot]" in command.refused("compare", run)
