"""States taken apart and put together."""

import json

import numpy as np
import pytest

from tinycnn.train.state import join, split

STATE = {
    "model": {"a.weight": np.arange(6.0).reshape(2, 3), "a/b": np.zeros((), np.int64)},
    "callbacks": [{"state": {}}, {"state": {"kept": [np.ones(2, np.float32), None, 1.5]}}],
    "history": [],
    "text": "x",
    "nothing": None,
}


def test_there_and_back_through_json():
    arrays, rest = split(STATE)
    assert set(arrays) == {"model/a.weight", "model/a/b", "callbacks/1/state/kept/0"}
    again = join(arrays, json.loads(json.dumps(rest)))
    np.testing.assert_equal(again, STATE)
    assert again["model"]["a.weight"] is STATE["model"]["a.weight"]
    assert again["callbacks"][1]["state"]["kept"][0].dtype == np.float32


def test_an_array_that_is_missing():
    arrays, rest = split(STATE)
    del arrays["model/a.weight"]
    with pytest.raises(KeyError, match=r"model/a\.weight"):
        join(arrays, rest)
