"""Runs: the folder, stopping and going on, and what a kill at any moment leaves behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from small_runs import assert_equal_runs, complete, rows, settings, weights

from tinycnn import data, parallel
from tinycnn.data.dataset import stratified_split
from tinycnn.losses import CrossEntropyLoss
from tinycnn.train import Run, Settings, checkpoint, evaluate, load
from tinycnn.train import run as run_module
from tinycnn.train.run import best_epoch

# ---- the folder --------------------------------------------------------------------------------------------


def test_everything_is_in_the_folder(small, tmp_path):
    folder = tmp_path / "new" / "run"
    run = Run.new(settings(), folder)
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "training_state.safetensors"]
    result = complete(run)
    assert run.draw()
    assert sorted(p.name for p in folder.iterdir()) == [
        "best.safetensors",
        "config.json",
        "curves.png",
        "last.safetensors",
        "metrics.jsonl",
        "result.json",
        "training_state.safetensors",
    ]
    config = json.loads((folder / "config.json").read_text())
    assert Settings.from_dict(config["settings"]) == settings()
    assert config["versions"]["numpy"] == np.__version__
    assert config["threads"] == parallel.get_num_threads()
    assert [row["epoch"] for row in rows(folder)] == [1, 2, 3]
    assert 0 <= result["test_accuracy"] <= 1
    assert result["parameters"] == 61_706


def test_the_best_weights_can_be_used_without_the_rest(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    result = complete(run)
    alone = tmp_path / "alone.safetensors"
    shutil.move(tmp_path / "a" / "best.safetensors", alone)
    metadata = checkpoint.read(alone, "weights").metadata
    how = metadata["preprocessing"]
    test = data.load(how["data"], "test")
    normalize = data.Normalize(tuple(how["mean"]), tuple(how["std"]))
    x = normalize(data.fit_images(test.images, tuple(how["input_size"])))
    found = load(alone)(x).argmax(axis=1)
    assert (found == test.labels).mean() == result["test_accuracy"]
    assert how["classes"] == list("0123456789")
    assert metadata["metrics"]["epoch"] == result["best_epoch"]


def test_test_images_are_looked_at_once_at_the_end(small, tmp_path, monkeypatch):
    looked = []
    run = Run.new(settings(), tmp_path / "a")
    epoch = run.test.epoch
    run.test.epoch = lambda *args: (looked.append(run.trainer.epoch), epoch(*args))[1]
    complete(run)
    assert looked == [3]


def test_validation_images_are_not_trained_on(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    labels = data.load("digits").labels
    rest, part = stratified_split(labels, 0.1, 7)
    assert len(run.training.labels) == len(rest) == 180
    assert np.array_equal(run.validation.labels, labels[part])
    assert np.array_equal(run.training.labels, labels[rest])


def test_the_seed_reaches_everything(small, tmp_path):
    one, other = (Run.new(settings(seed=seed), tmp_path / str(seed)) for seed in (7, 8))
    assert not np.array_equal(one.trainer.model["fc1"].weight.data, other.trainer.model["fc1"].weight.data)
    assert not np.array_equal(one.validation.labels, other.validation.labels)
    assert not np.array_equal(one.training.order(0), other.training.order(0))
    assert (one.training.seed, one.test.seed) == (7, 7)


def test_without_validation_the_last_epoch_counts(small, tmp_path):
    run = Run.new(settings(val_fraction=0.0), tmp_path / "a")
    assert run.validation is None
    result = complete(run)
    assert (result["best_epoch"], result["val_accuracy"]) == (3, None)
    assert "val_loss" not in rows(tmp_path / "a")[0]


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.90, 0.98, 0.99], 3),
        ([0.90, 1.00, 0.99], 3),  # 1 mistake against 0 is luck: 1 ≤ √1
        ([0.90, 1.00, 0.98], 2),  # 2 against 0 is not: 2 > √2
        ([0.90, 1.00, 0.99, 0.97], 3),  # compared with the best, not with the one before
        ([1.00, 0.99, 0.98, 0.97], 2),  # creeping away, each time by a little
        ([0.50, 0.38], 1),  # 12 > √112
        ([0.50, 0.42], 2),  # 8 < √108
        ([0.1], 1),
        ([], 0),
    ],
)
def test_the_last_epoch_that_is_as_good_as_any(accuracies, expected):
    history = [{"epoch": i, "val_accuracy": a} for i, a in enumerate(accuracies, start=1)]
    assert best_epoch(history, 100) == expected
    assert best_epoch(history, 0) == len(accuracies)


def test_an_existing_run_is_not_overwritten(small, tmp_path):
    folder = tmp_path / "a"
    Run.new(settings(), folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(FileExistsError, match=r"continue with tinycnn train --resume .*a$"):
        Run.new(settings(), folder)
    assert before == {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_folder_that_cannot_be_made_is_refused_before_training(small, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Run.new(settings(), tmp_path / "file" / "run")


def test_a_folder_that_cannot_be_written_to_is_left_as_it_was(small, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(run_module, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        Run.new(settings(), tmp_path / "a")
    assert not list(tmp_path.iterdir())


# ---- the same bits -----------------------------------------------------------------------------------------


def test_two_runs_with_one_seed_are_equal_on_any_number_of_threads(small, tmp_path):
    for threads in (1, 2, 3):
        parallel.set_num_threads(threads)
        complete(Run.new(settings(), tmp_path / str(threads)))
    assert_equal_runs(tmp_path / "1", tmp_path / "2")
    assert_equal_runs(tmp_path / "1", tmp_path / "3")
    complete(Run.new(settings(seed=8), tmp_path / "other"))
    assert rows(tmp_path / "other") != rows(tmp_path / "1")


@pytest.mark.parametrize("stops", [[2], [3, 4, 8], [9]])
def test_stopped_and_resumed_equals_uninterrupted(small, tmp_path, stops):
    """Three batches an epoch, with shifted images and a cosine: stopped in mid-epoch, at its end, and at the last."""
    complete(Run.new(settings(), tmp_path / "whole"))
    folder = tmp_path / "stopped"
    run = Run.new(settings(), folder)
    for stop in stops:
        run.trainer.after_batch.append(lambda t, stop=stop: t.stop() if 3 * t.epoch + t.batch == stop else None)
        assert not run.fit()
        run = Run.resume(folder, None, None)
        assert 3 * run.trainer.epoch + run.trainer.batch == stop
    complete(run)
    assert_equal_runs(tmp_path / "whole", folder)


@pytest.mark.parametrize("die_at", range(1, 10))
def test_killed_between_any_two_files_and_resumed(small, tmp_path, monkeypatch, die_at):
    """Every file is put in place by one rename: die before the n-th of them, go on, and end up with the same bytes."""
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    complete(Run.new(settings(epochs=2), whole))
    run = Run.new(settings(epochs=2), folder)
    replace, count = os.replace, []

    class Killed(BaseException):
        pass

    def die(source, target):
        count.append(target)
        if len(count) == die_at:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with contextlib.suppress(Killed):
            complete(run)
    assert len(count) == die_at, "a run of two epochs puts nine files in place after the first two"
    for path in folder.glob("*.safetensors"):
        checkpoint.read(path, "training state" if "state" in path.name else "weights")
    again = Run.resume(folder, None, None)
    assert rows(folder) == rows(whole)[: again.trainer.epoch]
    complete(again)
    assert_equal_runs(whole, folder)


def test_killed_for_real(tmp_path):
    """kill -9 at some moment of a process that does nothing but train: what it leaves can be loaded and goes on."""
    code = (
        "import sys; from pathlib import Path; from tinycnn.train import Run, Settings\n"
        "run = Run.new(Settings.choose(epochs=50, batch_size=700, seed=7), Path(sys.argv[1]))\n"
        "print('go', flush=True); run.fit()"
    )
    folder = tmp_path / "a"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"go\n"
    deadline = time.monotonic() + 30
    while not (folder / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    process.stdout.close()
    assert process.returncode == -signal.SIGKILL
    state = checkpoint.read(folder, "training state")
    run = Run.resume(folder, None, None)
    assert run.trainer.epoch == state.metadata["trainer"]["epoch"] == len(rows(folder))
    before = run.trainer.epoch
    run.trainer.after_epoch.append(lambda t, row: t.stop())
    run.fit()
    assert run.trainer.epoch == before + 1


def test_metrics_are_cut_back_to_what_the_state_knows(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    run.trainer.after_epoch.append(lambda t, row: t.stop())
    run.fit()
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 2, "train_lo')
    Run.resume(tmp_path / "a", None, None)
    assert [row["epoch"] for row in rows(tmp_path / "a")] == [1]


def test_eval_equals_the_accuracy_reported(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    result = complete(run)
    means = evaluate(load(tmp_path / "a"), run.test, CrossEntropyLoss())
    assert means == {"accuracy": result["test_accuracy"], "loss": result["test_loss"]}


def test_on_a_gpu(tiny, tmp_path, gpu):
    """Trained, stopped and resumed there: the bits of a run that was not; and the result is about the CPU's."""
    chosen = settings(epochs=2, batch_size=5, precision="float64")
    here = complete(Run.new(chosen, tmp_path / "here"))
    whole = Run.new(chosen, tmp_path / "whole", "cuda")
    there = complete(whole)
    assert whole.trainer.captured.state == "captured"
    run = Run.new(chosen, tmp_path / "parts", "cuda")
    run.trainer.after_batch.append(lambda t: t.stop() if t.epoch == 1 and t.batch == 2 else None)
    assert not run.fit()
    run = Run.resume(tmp_path / "parts", None, None)
    assert run.device == "cuda"
    assert run.trainer.model["fc1"].weight.data.__class__ is gpu.ndarray
    complete(run)
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert there["test_loss"] == pytest.approx(here["test_loss"], rel=1e-8)
    losses = [rows(tmp_path / folder)[1]["train_loss"] for folder in ("whole", "here")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["gpu"]


def test_images_that_do_not_fit_travel(tiny, tmp_path, gpu, monkeypatch):
    from tinycnn.data import device

    chosen = settings(epochs=1, batch_size=5, shift=1)
    complete(Run.new(chosen, tmp_path / "resident", "cuda"))
    monkeypatch.setattr(device, "SHARE", 0)
    run = Run.new(chosen, tmp_path / "travelling", "cuda")
    assert not run.training.resident
    complete(run)
    assert_equal_runs(tmp_path / "resident", tmp_path / "travelling")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_runs_in_half_precision_stop_and_go_on(tiny, tmp_path, gpu, precision):
    pytest.importorskip("ml_dtypes")
    chosen = settings(epochs=1, batch_size=4, precision=precision)
    complete(Run.new(chosen, tmp_path / "whole", "cuda"))
    run = Run.new(chosen, tmp_path / "parts", "cuda")
    run.trainer.after_batch.append(lambda t: t.stop() if t.batch == 2 else None)
    assert not run.fit()
    complete(Run.resume(tmp_path / "parts", None, None))
    assert_equal_runs(tmp_path / "whole", tmp_path / "parts")
    assert weights(tmp_path / "whole")["fc1.weight"].dtype == np.float32


# ---- going on after the end --------------------------------------------------------------------------------


def test_a_finished_run_stays_as_it_is(small, tmp_path):
    result = complete(Run.new(settings(), tmp_path / "a"))
    before = (tmp_path / "a" / "last.safetensors").read_bytes()
    run = Run.resume(tmp_path / "a", None, None)
    assert run.fit()
    assert run.finish() == result
    assert (tmp_path / "a" / "last.safetensors").read_bytes() == before


def test_more_epochs_equal_as_many_from_the_start(small, tmp_path):
    complete(Run.new(settings(schedule="none", epochs=2), tmp_path / "a"))
    complete(Run.resume(tmp_path / "a", None, None, epochs=4))
    complete(Run.new(settings(schedule="none", epochs=4), tmp_path / "b"))
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    assert json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["epochs"] == 4


def test_epochs_that_do_not_fit(small, tmp_path):
    Run.new(settings(schedule="cosine"), tmp_path / "a")
    with pytest.raises(ValueError, match=r"\(cosine\) is made for 3 epochs: only a run with --schedule none"):
        Run.resume(tmp_path / "a", None, None, epochs=5)
    with pytest.raises(ValueError, match="at least the run's 3, got 2"):
        Run.resume(tmp_path / "a", None, None, epochs=2)
