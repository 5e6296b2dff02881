"""What the loader costs: the tables, and what is checked before anything is timed."""

import numpy as np
import pytest

from benchmarks import loader
from benchmarks.timing import Effort
from tinycnn import data

LEAST = Effort(0, 1, 1, 1)


@pytest.fixture(autouse=True)
def _least_effort(monkeypatch):
    monkeypatch.setattr(loader, "QUICK", LEAST)
    monkeypatch.setattr(loader, "QUICK_ALONE", LEAST)


def test_what_training_loses():
    (table,) = loader.run(threads=1, quick=True, only="resnet20")
    assert [row["title"] for row in table.rows] == [
        "made in advance",
        "loader, no workers",
        "loader, 1 worker",
        "loader, 2 workers",
    ]
    advance = table.rows[0]["step"]["median"]
    for row in table.rows[1:]:
        assert row["lost"] == pytest.approx(1 - advance / row["step"]["median"], abs=1e-5)
        assert row["relative"]["median"] == pytest.approx(row["step"]["median"] / advance)
    assert all(0 <= row["waiting"] < 1 for row in table.rows)


def test_every_step_has_a_batch_of_its_own():
    batches = iter([(np.full((2, 3, 32, 32), i, np.float32), np.array([i, i])) for i in range(loader.STEPS)])
    training = loader.Training("resnet20", 2, batches)
    training.steps()
    assert training.y.tolist() == [loader.STEPS - 1] * 2
    assert next(batches, None) is None


def test_the_wait_for_a_batch_is_noted_without_the_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loader.time, "perf_counter", lambda: now[0])

    def batches():
        for i in range(loader.STEPS):
            now[0] += i  # so long does it take
            yield np.zeros((2, 3, 32, 32), np.float32), np.array([0, 1])

    def step():
        now[0] += 100

    training = loader.Training("resnet20", 2, batches())
    monkeypatch.setattr(training, "step", step)
    training.steps()
    assert training.waits == list(range(loader.STEPS))


def test_speeds_are_those_of_all_images():
    table = loader.decoding(quick=True)
    assert [(row["title"], row["workers"]) for row in table.rows[:3]] == [("decoded, 256×256", n) for n in (0, 1, 2)]
    for row in table.rows:
        assert row["images"] == pytest.approx(16 / row["time"]["median"], rel=1e-2)


def test_batches_that_depend_on_the_workers_are_not_timed():
    x, y = loader.pictures(20, 4)
    loader.check({n: data.Loader(x, y, 4, workers=n) for n in (0, 1)})
    with pytest.raises(AssertionError, match="depend on the number of workers"):
        loader.check({n: data.Loader(x, y, 4, seed=n, workers=n) for n in (0, 1)})
