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


def test_training_ends_with_a_report(trained):
    assert "lenet5 on digits" in (trained / "report.html").read_text(encoding="utf-8")


def test_training_does_not_fail_with_its_report(command, monkeypatch):
    def broken(*arguments, **named):
        raise RuntimeError("out of ink")

    monkeypatch.setattr("tinycnn.report.write", broken)
    assert command("train", "--epochs", 1, "--out", "a") == 0
    assert "no report: out of ink; try again with tinycnn report a" in command.out + command.err
    assert "test accuracy" in command.out


def test_training_for_tensorboard(command, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    constant = ("--schedule", "none", "--out", "a")
    assert command("train", "--tensorboard", "--epochs", 1, *constant) == 0
    assert command("train", "--tensorboard", "--epochs", 2, "--resume", "a") == 0
    found = event_accumulator.EventAccumulator(str(tmp_path / "a" / "tensorboard")).Reload()
    assert [event.step for event in found.Scalars("accuracy/validation")] == [1, 2]


def test_without_tensorboard_there_is_no_run(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert "tinycnn[tensorboard]" in command.refused("train", "--tensorboard", "--out", "a")
    assert not (tmp_path / "a").exists()


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
