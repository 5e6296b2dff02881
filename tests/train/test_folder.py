"""The files of a run folder.  What is wrong with them is in test_run_refusals.py."""

import json

import numpy as np
import pytest

from tinycnn.train import CheckpointError, folder


def test_a_state_goes_in_and_comes_out(tmp_path):
    x = np.arange(3.0)
    state = {
        "model": {"a.weight": x},
        "optimizer": {"state": {"velocity": {"a.weight": x + 1}}, "step": 3},
        "ema": {"state": {"average": {"a.weight": x + 2}}, "updates": 4, "decay": 0.5},
        "waiting": {"waiting": 1, "gradients": {"a.weight": x + 3}},
        "callbacks": [{"callback": "A", "state": {"kept": x + 4}}],
        "epoch": 2,
        "history": [{"epoch": 1}],
    }
    folder.write_state(tmp_path, state, settings={"lr": 0.1})
    saved, again = folder.read_state(tmp_path)
    assert saved.metadata["settings"] == {"lr": 0.1}
    assert "optimizer/velocity/a.weight" in saved.arrays
    np.testing.assert_equal(again, state)


def test_without_averages(tmp_path):
    state = {"model": {}, "optimizer": {"state": {}}, "ema": None, "waiting": None, "epoch": 0}
    folder.write_state(tmp_path, state)
    assert folder.read_state(tmp_path)[1] == state


def test_results(tmp_path):
    assert folder.read_result(tmp_path) is None
    (tmp_path / "result.json").write_text(json.dumps({"test_accuracy": 1}))
    assert folder.read_result(tmp_path) == {"test_accuracy": 1}


def test_a_folder_must_be_empty(tmp_path):
    folder.must_be_empty(tmp_path)
    folder.must_be_empty(tmp_path / "new")
    (tmp_path / "a").touch()
    with pytest.raises(FileExistsError, match="name another, or empty it"):
        folder.must_be_empty(tmp_path)


def test_no_run(tmp_path):
    with pytest.raises(CheckpointError, match="not a run folder"):
        folder.read_config(tmp_path)
