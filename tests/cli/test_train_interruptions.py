"""``tinycnn train``, interrupted and gone on with."""

import os
import signal
import subprocess
import sys
import time

import pytest
from small_runs import assert_equal_weights

QUICK = ("--epochs", 1, "--batch-size", 500)


def start(folder, epochs):
    """Start a run in a process of its own; returns once an epoch is done."""
    options = ["--out", str(folder), "--epochs", str(epochs), "--batch-size", "300"]
    argv = [sys.executable, "-m", "tinycnn", "train", *options]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (line := process.stdout.readline()).startswith("epoch 1/"):
        assert line, process.stderr.read()
    return process


def finish(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_ctrl_c_saves_and_resuming_equals_the_uninterrupted_run(command, tmp_path):
    process = start(tmp_path / "a", epochs=9)  # it must not be over before the signal comes
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130
    (line,) = err.splitlines()
    assert line.startswith("tinycnn: stopped ")
    assert line.endswith(f"go on with: tinycnn train --resume {tmp_path / 'a'}")
    assert not (tmp_path / "a" / "result.json").exists()
    assert command("train", "--resume", "a", "--json") == 0
    assert "going on after epoch" in command.err
    resumed = command.json()
    assert command("train", "--out", "b", "--epochs", 9, "--batch-size", 300, "--json") == 0
    whole = command.json()
    assert_equal_weights(tmp_path / "a", tmp_path / "b")
    for key in ("test_accuracy", "test_loss", "val_accuracy", "best_epoch", "epochs"):
        assert resumed[key] == whole[key]


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_in_mid_epoch(command, tmp_path, monkeypatch, number, expected):
    """The signal comes after a batch chosen here: epoch 2, batch 2 of 5."""
    from tinycnn.train import Trainer

    step, two = Trainer.step, ("--epochs", 2, "--batch-size", 300)

    def interrupted(self, x, y, **last):
        result = step(self, x, y, **last)
        if self.epoch == 1 and self.batch == 1:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # as timeout(1) does: once to the child, once to its group
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", interrupted)
        assert command("train", *two, "--out", "a dir", "--quiet") == expected
    assert command.err == (
        "tinycnn: stopped in epoch 2, after batch 2; saved; go on with: tinycnn train --resume 'a dir'\n"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert command("train", "--resume", "a dir", "--quiet") == 0
    assert command("train", *two, "--out", "b", "--quiet") == 0
    assert_equal_weights(tmp_path / "a dir", tmp_path / "b")


def test_the_second_signal_stops_at_once(command, monkeypatch):
    from tinycnn.train import Trainer

    def hanging(self, x, y, **last):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.55)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second signal is to end this")

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", hanging)
        assert command("train", *QUICK, "--out", "a", "--quiet") == 130
    assert command.err == "tinycnn: stopped at once; go on from the state saved last with: tinycnn train --resume a\n"
    assert command("train", "--resume", "a", "--quiet") == 0


def test_nohup_stays_nohup(command, monkeypatch):
    from tinycnn.train import Trainer

    step = Trainer.step

    def hung_up(self, x, y, **last):
        os.kill(os.getpid(), signal.SIGHUP)
        return step(self, x, y, **last)

    monkeypatch.setattr(Trainer, "step", hung_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert command("train", *QUICK, "--out", "a", "--quiet") == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_finished_run_says_so(command, trained):
    assert command("train", "--resume", trained, "--json") == 0
    assert "is finished: all 2 epochs are done" in command.err
    assert command.json()["run"] == str(trained)
    assert "is made for 2 epochs" in command.refused("train", "--resume", trained, "--epochs", 4)


def test_more_epochs_for_a_constant_learning_rate(command):
    assert command("train", *QUICK, "--schedule", "none", "--out", "a", "--quiet") == 0
    assert command("train", "--resume", "a", "--epochs", 2, "--json") == 0
    assert command.json()["epochs"] == 2
