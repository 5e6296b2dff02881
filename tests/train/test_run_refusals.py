"""Runs: folders that are no runs, damaged, or in use."""

import os
import shutil
import subprocess
import sys

import pytest
from small_runs import assert_equal_runs, settings

from tinycnn.train import CheckpointError, Run, checkpoint

# ---- damage ------------------------------------------------------------------------------------------------


def test_no_run_folder(tmp_path):
    with pytest.raises(CheckpointError, match="there is no such folder"):
        Run.resume(tmp_path / "nowhere", None, None)
    with pytest.raises(CheckpointError, match="not a run folder"):
        Run.resume(tmp_path, None, None)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "damaged"),
        ("[]", "has no settings"),
        ('{"settings": {"model": "lenet5"}}', "not what tinycnn"),
        ('{"settings": 3}', "has no settings"),
    ],
)
def test_damaged_config(small, tmp_path, content, words):
    Run.new(settings(), tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=words):
        Run.resume(tmp_path / "a", None, None)


def test_damaged_or_missing_state(small, tmp_path):
    Run.new(settings(), tmp_path / "a")
    state = tmp_path / "a" / "training_state.safetensors"
    raw = state.read_bytes()
    state.write_bytes(raw[:-5])
    with pytest.raises(CheckpointError, match="truncated"):
        Run.resume(tmp_path / "a", None, None)
    (tmp_path / "a" / "metrics.jsonl").touch()
    state.unlink()
    with pytest.raises(CheckpointError, match="has no training_state"):
        Run.resume(tmp_path / "a", None, None)


def test_a_state_of_another_run(small, tmp_path):
    Run.new(settings(), tmp_path / "a")
    Run.new(settings(model="lenet5_1998"), tmp_path / "b")
    shutil.copy(tmp_path / "b" / "training_state.safetensors", tmp_path / "a")
    with pytest.raises(CheckpointError, match=r"its model was 'lenet5_1998', config.json says 'lenet5'"):
        Run.resume(tmp_path / "a", None, None)


def test_a_state_that_lost_an_array(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    run.trainer.after_batch.append(lambda t: t.stop())
    run.fit()
    saved = checkpoint.read(tmp_path / "a", "training state")
    arrays = {k: v for k, v in saved.arrays.items() if k != "optimizer/velocity/conv1.weight"}
    metadata = {k: v for k, v in saved.metadata.items() if k != "checksum"}
    checkpoint.write(saved.path, arrays, metadata)
    with pytest.raises(CheckpointError, match=r"does not fit this run: .*velocity of conv1.weight"):
        Run.resume(tmp_path / "a", None, None)


def test_killed_while_the_folder_was_made_begins_at_the_beginning(small, tmp_path):
    for name in ("a", "b"):
        Run.new(settings(epochs=1), tmp_path / name)
    (tmp_path / "b" / "training_state.safetensors").unlink()
    for name in ("a", "b"):
        run = Run.resume(tmp_path / name, None, None)
        (tmp_path / name / "metrics.jsonl").unlink()
        assert run.fit()
        run.finish()
    assert_equal_runs(tmp_path / "a", tmp_path / "b")


def test_half_written_files_do_not_count_as_something(small, tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / ".config.json.tmp").write_text("{")
    Run.new(settings(), folder)


def test_equal_runs_are_equal_files(small, tmp_path):
    for name in ("a", "b"):
        Run.new(settings(epochs=1), tmp_path / name).fit()
    for name in ("best", "last"):
        one, other = ((tmp_path / run / f"{name}.safetensors").read_bytes() for run in ("a", "b"))
        assert one == other


OTHER_PROCESS = """
import sys, time
from pathlib import Path
from tinycnn.files import locked
with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="no folder locks on this system")
def test_one_process_at_a_time_trains_in_a_folder(small, tmp_path):
    run = Run.new(settings(epochs=1), tmp_path / "a")
    other = subprocess.Popen([sys.executable, "-c", OTHER_PROCESS, tmp_path / "a"], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "in\n"
        for begin in (run.fit, lambda: Run.resume(tmp_path / "a", None, None)):
            with pytest.raises(FileExistsError, match="another process is training in this folder"):
                begin()
    finally:
        other.kill()
        other.communicate()
    assert run.fit()


def finished(folder, **given):
    run = Run.new(settings(epochs=1, **given), folder)
    run.fit()
    return run


@pytest.mark.parametrize("damaged", ["{", "[1]", ""])
def test_a_damaged_result_is_made_anew(small, tmp_path, damaged):
    run = finished(tmp_path / "a")
    result = run.finish()
    (tmp_path / "a" / "result.json").write_text(damaged)
    assert run.finish() == result


def test_best_weights_of_another_run_are_refused(small, tmp_path):
    run = finished(tmp_path / "a")
    best = tmp_path / "a" / "best.safetensors"
    finished(tmp_path / "b", model="lenet5_1998")
    shutil.copy(tmp_path / "b" / "best.safetensors", best)
    with pytest.raises(CheckpointError, match="not the weights of this run's epoch 1"):
        run.finish()
    best.unlink()
    with pytest.raises(CheckpointError, match="there is no such file"):
        run.finish()
    assert not (tmp_path / "a" / "result.json").exists()
