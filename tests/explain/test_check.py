"""The checker on a recorded layer: right ones pass, planted mistakes do not."""

import numpy as np

from tinycnn.explain import check, record
from tinycnn.explain.check import check_layer
from tinycnn.layers import Conv2d, ReLU, Tanh

X = np.random.default_rng(0).standard_normal((1, 2, 5, 4)).astype(np.float32)


class Doubled(Tanh):
    """A backward that is wrong by a factor of two."""

    def backward(self, dy):
        return 2 * super().backward(dy)


def visit(layer):
    return record(layer, X, np.ones_like)[layer]


def test_right_and_wrong():
    conv = Conv2d(2, 3, 3)
    found = check_layer(conv, visit(conv))
    assert found["ok"]
    assert 0 < found["error"] < 1e-10
    assert [t["name"] for t in found["tensors"]] == ["x", "weight", "bias"]
    wrong = Doubled()
    found = check_layer(wrong, visit(wrong))
    assert not found["ok"]
    assert found["error"] > 0.1


def test_the_layer_stays_float32_and_silent():
    relu, conv = ReLU(), Conv2d(2, 3, 3)
    check_layer(relu, visit(relu))
    check_layer(conv, visit(conv))
    assert conv.weight.dtype == np.float32


def test_what_would_take_long_is_not_done(monkeypatch):
    monkeypatch.setattr(check, "MOST", 10)
    conv = Conv2d(2, 3, 3)
    assert "not checked here" in check_layer(conv, visit(conv))["why"]
