"""Looking at a network while it works."""

import numpy as np
import pytest

from tinycnn import BatchNorm2d, BatchNormReLU2d, Dropout, Identity, ReLU, ResidualNormReLU, Sequential
from tinycnn.layers.watch import restored, watched


def network():
    return Sequential({"a": BatchNorm2d(2), "b": Sequential(ReLU(), Dropout(0.5))})


def test_every_forward_is_noted_inner_ones_first():
    model, seen = network(), []
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    with watched(model, lambda layer, x, y: seen.append((layer.path, x.shape == y.shape))):
        model(x)
    assert seen == [("a", True), ("b.0", True), ("b.1", True), ("b", True), ("", True)]
    model(x)
    assert len(seen) == 5


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_put_back(fails):
    model = network()
    model["b"].eval()
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    state, streams = model.state_dict(), model.random_state()
    switches = [(layer.training, layer.saving) for layer in model.layers()]

    def change_everything():
        with restored(model):
            model.train()
            model(x)
            model.eval(backward=True)
            if fails:
                raise KeyError("on the way")

    if fails:
        with pytest.raises(KeyError):
            change_everything()
    else:
        change_everything()
    assert [(layer.training, layer.saving) for layer in model.layers()] == switches
    assert model.random_state() == streams
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_watching_nests_and_meets_a_layer_twice():
    relu, outer, inner = ReLU(), [], []
    model = Sequential(relu, relu)
    with watched(model, lambda *_: outer.append(1)):
        with watched(model, lambda *_: inner.append(1)):
            model(np.ones((1, 2)))
        model(np.ones((1, 2)))
    model(np.ones((1, 2)))
    assert (len(outer), len(inner)) == (6, 3)


def test_a_layer_with_two_inputs_is_watched_too():
    model, seen = ResidualNormReLU(Identity(), BatchNormReLU2d(2)), []
    x = np.random.default_rng(0).standard_normal((3, 2, 4, 4)).astype(np.float32)
    with watched(model, lambda layer, x, y: seen.append((layer.path, x.shape == y.shape))):
        y = model(x)
    assert seen == [("", True), ("downsample", True), ("bn2", True), ("", True)]
    assert "bn2" in str(model.summary((3, 2, 4, 4)))
    np.testing.assert_array_equal(y, model(x))
