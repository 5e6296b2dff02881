"""Runs whose algorithms were measured: the answer is written down, and taken again."""

import json

import numpy as np
import pytest
from small_runs import assert_equal_runs, complete, rows, settings, weights

from tinycnn.layers import tune as tune_module
from tinycnn.train import CheckpointError, Run, Settings

PLAN = {"conv1": "im2col", "conv2": "strips"}


@pytest.fixture
def clock(monkeypatch):
    """Measurements that come out as `PLAN`, and a count of them."""
    measured = []

    def measure(use, w, names, repeats):
        measured.append(use)
        wanted = PLAN["conv1" if use.problem.OC == 6 else "conv2"]
        return {name: [1.0 if name == wanted else 2.0] for name in names}

    monkeypatch.setattr(tune_module, "measure", measure)
    return measured


def test_the_answer_is_in_the_files(small, tmp_path, clock):
    told = []
    run = Run.new(settings(epochs=1), tmp_path / "a", prepare=lambda run: run.tune(lambda *place: told.append(place)))
    assert [use.problem.x_shape for use in clock] == [(64, 32, 32, 1), (64, 14, 14, 6)], "with the batch it trains with"
    assert [use.need_dx for use in clock] == [False, True], "nobody wants a gradient of the images"
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert run.settings == settings(epochs=1, algorithms=PLAN)
    assert run.trainer.model["conv2"].algorithm == "strips"
    result = complete(run)
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["settings"]["algorithms"] == result["algorithms"] == PLAN


def test_a_small_data_set_is_one_batch(small, tmp_path, clock):
    Run.new(settings(batch_size=500), tmp_path / "a", prepare=Run.tune)
    assert clock[0].problem.x_shape == (180, 32, 32, 1)


def test_a_repeat_from_the_recorded_settings_has_the_same_bits(small, tmp_path, clock):
    complete(Run.new(settings(), tmp_path / "a", prepare=Run.tune))
    recorded = Settings.from_dict(json.loads((tmp_path / "a" / "config.json").read_text())["settings"])
    clock.clear()
    complete(Run.new(recorded, tmp_path / "b"))
    assert not clock, "nothing was measured again"
    assert_equal_runs(tmp_path / "a", tmp_path / "b")
    for name in ("last.safetensors", "best.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_another_plan_has_other_bits(small, tmp_path):
    """Otherwise the tests here would prove nothing."""
    for name, plan in (("a", PLAN), ("b", {"conv1": "strips", "conv2": "im2col"})):
        complete(Run.new(settings(algorithms=plan), tmp_path / name))
    one, other = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert any(not np.array_equal(one[key], other[key]) for key in one)


def test_measuring_changes_nothing_but_the_plan(small, tmp_path, clock):
    complete(Run.new(settings(model="lenet5_1998"), tmp_path / "a"))
    run = Run.new(settings(model="lenet5_1998"), tmp_path / "b", prepare=Run.tune)
    measured = run.settings.algorithms
    assert measured == {"c1": "im2col", "c5": "strips"}
    complete(Run.new(settings(model="lenet5_1998", algorithms=measured), tmp_path / "c"))
    complete(run)
    assert_equal_runs(tmp_path / "b", tmp_path / "c")


def test_stopped_and_resumed_takes_the_recorded_plan(small, tmp_path, clock):
    complete(Run.new(settings(algorithms=PLAN), tmp_path / "whole"))
    run = Run.new(settings(), tmp_path / "stopped", prepare=Run.tune)
    run.trainer.after_batch.append(lambda t: t.stop() if 3 * t.epoch + t.batch == 4 else None)
    assert not run.fit()
    clock.clear()
    run = Run.resume(tmp_path / "stopped", None, None)
    assert not clock
    assert run.trainer.model["conv1"].algorithm == "im2col"
    complete(run)
    assert_equal_runs(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_of_a_version_that_recorded_none_goes_on(small, tmp_path):
    run = Run.new(settings(), tmp_path / "a")
    run.trainer.after_epoch.append(lambda t, row: t.stop())
    run.fit()
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    del config["settings"]["algorithms"]
    (tmp_path / "a" / "config.json").write_text(json.dumps(config))
    complete(Run.resume(tmp_path / "a", None, None))
    assert len(rows(tmp_path / "a")) == 3


def test_a_plan_of_another_network_is_refused(small, tmp_path):
    with pytest.raises(ValueError, match="no convolution at 'conv3'; did you mean 'conv"):
        Run.new(settings(algorithms={"conv3": "im2col"}), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_plan_changed_in_mid_run_is_refused(small, tmp_path):
    Run.new(settings(algorithms=PLAN), tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.write_text(path.read_text().replace('"strips"', '"im2col"'))
    with pytest.raises(CheckpointError, match=r"its algorithms was .* these files are not of one run"):
        Run.resume(tmp_path / "a", None, None)


def test_float64_is_not_measured(small, tmp_path, clock):
    run = Run.new(settings(precision="float64"), tmp_path / "a", prepare=Run.tune)
    assert not clock
    assert set(run.settings.algorithms.values()) == {"im2col"}
