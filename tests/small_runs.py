"""Small runs, and what it means for two of them to be equal."""

import json

import numpy as np

from tinycnn.train import Settings, checkpoint


def settings(**given):
    return Settings.choose(**{"epochs": 3, "optimizer": "momentum", "schedule": "cosine", "seed": 7, **given})


def weights(folder, name="last"):
    return checkpoint.read(folder / f"{name}.safetensors", "weights").arrays


def rows(folder):
    timed = ("seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def assert_equal_weights(a, b):
    for name in ("last", "best"):
        one, other = weights(a, name), weights(b, name)
        assert list(one) == list(other)
        assert all(np.array_equal(one[key], other[key]) for key in one)


def assert_equal_runs(a, b):
    assert_equal_weights(a, b)
    assert rows(a) == rows(b)
    result_a, result_b = (json.loads((f / "result.json").read_text()) for f in (a, b))
    for key in ("test_accuracy", "test_loss", "val_accuracy", "best_epoch"):
        assert result_a[key] == result_b[key]


def complete(run):
    assert run.fit()
    return run.finish()
