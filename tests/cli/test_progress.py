"""What is seen of a training."""

import io

import numpy as np
import pytest

from tinycnn.cli import progress
from tinycnn.train import Sums

ROW = {
    **{"epoch": 3, "train_loss": 0.5, "train_accuracy": 0.75, "val_loss": 0.25, "val_accuracy": 1.0},
    **{"lr": 0.01, "seconds": 2.0, "images_per_second": 1234.5},
}


class Work:
    """What a display looks at of a trainer."""

    def __init__(self, epoch=0, batch=0):
        self.epoch, self.batch, self.seconds, self.sums = epoch, batch, 2.0, Sums(np.zeros(1), [30.0, 45, 60, 60])


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_of_an_epoch():
    line = progress.epoch_line(ROW, 10)
    assert line == ("epoch  3/10  loss 0.5000  acc  75.00 %  | val loss 0.2500  acc 100.00 %  | lr 0.01  1,234 img/s")
    bare = {key: value for key, value in ROW.items() if "val" not in key and "accuracy" not in key}
    assert progress.epoch_line(bare, 3) == "epoch 3/3  loss 0.5000  | lr 0.01  1,234 img/s"


def test_time_left_counts_what_this_process_did(monkeypatch):
    """A resumed run: 10 batches of this process took 5 s, and 70 are left."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    stream = io.StringIO()
    display = progress.make(10, 10, stream, quiet=False)
    for _ in range(10):
        display.after_batch(Work())
    now[0] = 105.0
    display.after_epoch(Work(epoch=3), ROW)
    assert stream.getvalue().endswith("  0:35 left\n")
    display.after_epoch(Work(epoch=10), ROW)
    assert stream.getvalue().endswith("img/s\n")


def test_measuring_shows_a_bar_on_a_terminal_alone():
    class Tuned:
        def tune(self, progress):
            progress(0, 3)
            progress(2, 3)

    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        assert progress.tuning(stream, quiet) is progress.Run.tune
    terminal = Terminal()
    progress.tuning(terminal, quiet=False)(Tuned())
    assert "timing convolutions" in terminal.getvalue()
    assert "2/3" in terminal.getvalue()


def test_a_terminal_gets_a_bar_that_moves():
    stream = Terminal()
    with progress.make(4, 10, stream, quiet=False) as display:
        assert isinstance(display, progress.Live)
        display.last = -1.0
        display.after_batch(Work(epoch=2, batch=5))
        (task,) = display.progress.tasks
        assert (task.completed, task.total) == (25, 40)
        display.progress.refresh()
        display.after_epoch(Work(epoch=3), ROW)
    text = stream.getvalue()
    assert "epoch 3/4" in text
    assert "loss 0.5000  acc  75.00 %  30 img/s" in text
    assert progress.epoch_line(ROW, 4) in text


@pytest.mark.parametrize(("columns", "bar"), [("40", False), ("79", False), ("80", True)])
def test_a_narrow_terminal_keeps_the_numbers_and_drops_the_bar(monkeypatch, columns, bar):
    monkeypatch.setenv("COLUMNS", columns)
    kinds = [type(column).__name__ for column in progress.make(4, 10, Terminal(), quiet=False).progress.columns]
    assert ("BarColumn" in kinds) == bar
    assert kinds[0] == "TextColumn"


def test_quiet_shows_nothing():
    stream = Terminal()
    with progress.make(1, 1, stream, quiet=True) as display:
        display.say("x")
        display.after_batch(Work())
        display.after_epoch(Work(1), ROW)
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (7283, "2:01:23")])
def test_clock(seconds, words):
    assert progress.clock(seconds) == words
