"""Event files, as TensorBoard itself reads them."""

import json
import sys
from types import SimpleNamespace

import pytest
from small_runs import settings

from tinycnn.report import TensorBoard
from tinycnn.report.tensorboard import markdown
from tinycnn.train import Run

pytest.importorskip("tensorboard")


def accumulated(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def trained(run, folder, epochs=None):
    """Train, and stop after so many epochs."""
    run.trainer.callbacks.append(TensorBoard(folder, run.settings.to_dict()))
    if epochs is not None:
        run.trainer.after_epoch.append(lambda trainer, row: trainer.epoch == epochs and trainer.stop())
    run.fit()
    return run


def test_every_number_of_every_epoch(tmp_path):
    run = trained(Run.new(settings(epochs=2), tmp_path / "run"), tmp_path / "events")
    found = accumulated(tmp_path / "events")
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    names = {"loss/training": "train_loss", "loss/validation": "val_loss"}
    names |= {"accuracy/training": "train_accuracy", "accuracy/validation": "val_accuracy"}
    names |= {name: name for name in ("lr", "seconds", "images_per_second")}
    assert set(found.Tags()["scalars"]) == set(names)
    for tag, name in names.items():
        events = [(event.step, event.value) for event in found.Scalars(tag)]
        assert events == [(row["epoch"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    (text,) = found.Tensors("configuration")
    assert b"| model | lenet5 |" in b"".join(text.tensor_proto.string_val)


def test_a_run_that_goes_on_has_every_epoch_once(tmp_path):
    """The state of epoch 1 is put in place of that of epoch 2, as after a kill before it was written."""
    run = trained(Run.new(settings(epochs=3), tmp_path / "run"), tmp_path / "events", epochs=1)
    state = (run.folder / "training_state.safetensors").read_bytes()
    trained(Run.resume(run.folder, None, None), tmp_path / "events", epochs=2)
    (run.folder / "training_state.safetensors").write_bytes(state)
    trained(Run.resume(run.folder, None, None), tmp_path / "events")
    assert len(list((tmp_path / "events").iterdir())) == 3
    found = accumulated(tmp_path / "events")
    assert [event.step for event in found.Scalars("loss/training")] == [1, 2, 3]
    assert len(found.Tensors("configuration")) == 1


def test_it_is_readable_while_the_training_goes_on(tmp_path):
    run = Run.new(settings(epochs=2), tmp_path / "run")
    seen = []
    run.trainer.callbacks.append(TensorBoard(tmp_path / "events"))

    def look(trainer, row):
        if trainer.epoch == 2:  # what the first epoch wrote is there
            seen.extend(event.step for event in accumulated(tmp_path / "events").Scalars("lr"))

    run.trainer.after_epoch.append(look)
    run.fit()
    assert seen[0] == 1


class Keeping:
    """A writer that keeps what it is given until it must write it, as TensorBoard's may for two minutes."""

    def __init__(self, folder):
        self.kept, self.written, self.closed = [], [], False

    def add_event(self, event):
        self.kept.append(event)

    def flush(self):
        self.written += self.kept
        self.kept = []

    def close(self):
        self.flush()
        self.closed = True


def test_nothing_is_kept_back(tmp_path, monkeypatch):
    """A process that is killed has written all epochs that it has finished, and before the first what it does."""
    from tensorboard.summary.writer import event_file_writer

    monkeypatch.setattr(event_file_writer, "EventFileWriter", Keeping)
    board, trainer = TensorBoard(tmp_path, {"model": "lenet5"}), SimpleNamespace(epoch=0)
    board.on_train_begin(trainer)
    writer = board._writer
    for epoch in range(3):
        assert [event.step for event in writer.written] == list(range(epoch + 1))
        board.on_epoch_end(trainer, {"epoch": epoch + 1, "lr": 0.1})
    assert [event.step for event in writer.written] == [0, 1, 2, 3]
    board.on_train_end(trainer)
    assert writer.closed


def test_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"tinycnn\[tensorboard\]"):
        TensorBoard(tmp_path)


def test_a_stroke_does_not_end_a_cell():
    assert markdown({"a": "b|c"}).splitlines()[-1] == "| a | b\\|c |"
