"""Looking at a network while it works."""

import re

import numpy as np
import pytest

from tinycnn import (
    BatchNorm2d,
    BatchNormReLU2d,
    Checkpointed,
    Concat,
    Conv2d,
    Dropout,
    Identity,
    LayerError,
    ReLU,
    Residual,
    ResidualNormReLU,
    Sequential,
)
from tinycnn.layers.watch import forward_to, input_of, restored, watched


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


# ---- forward, as far as a layer --------------------------------------------------------------------------------


def deep(checkpointed=False):
    """Residual, concatenation and a checkpoint around each other, with state of every kind."""
    rng = np.random.default_rng(0)
    left = Sequential({"norm": BatchNorm2d(3), "relu": ReLU()})
    branches = Concat({"left": left, "right": Conv2d(3, 2, 1, rng=rng), "all": Identity()})
    block = Residual(Sequential({"conv": Conv2d(3, 3, 3, padding=1, rng=rng), "norm": BatchNorm2d(3)}))
    drop = Checkpointed(Sequential({"drop": Dropout(0.5, rng=rng), "norm": BatchNorm2d(8)}))
    return Sequential({"block": Checkpointed(block) if checkpointed else block, "fork": branches, "end": drop})


def images(seed=0):
    return np.random.default_rng(seed).standard_normal((4, 3, 6, 5)).astype(np.float32)


def outputs(model, x):
    """What every layer gives in an ordinary forward, copied at once; of layers of one name the outermost."""
    seen = {}
    with restored(model), watched(model, lambda layer, x, y: seen.update({layer.path: y.copy()})):
        model(x)
    return seen


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_layer_can_be_reached(mode, checkpointed):
    model, x = deep(checkpointed), images()
    getattr(model, mode)()
    wanted = outputs(model, x)
    names = list(dict.fromkeys(name for name, _ in model.named_layers()))
    inside = "block block.conv block.norm block.downsample fork fork.left fork.left.norm fork.left.relu fork.right"
    assert names == ["", *inside.split(), "fork.all", "end", "end.drop", "end.norm"]
    found = forward_to(model, names[::-1], x)
    assert list(found) == names[::-1]
    for name in names:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(forward_to(model, [name], x)[name], wanted[name], err_msg=name)
    assert forward_to(model, [], x) == {}


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_look_changes_nothing_and_a_backward_that_is_due_can_be_done(mode):
    model, same = deep(), deep()
    for net in (model, same):
        net.eval(backward=True) if mode == "eval" else net.train()
    y, y_same = model(images()), same(images())
    state, streams = model.state_dict(), model.random_state()
    forward_to(model, ["end.drop", "fork.left"], images(1))
    input_of(model, "end.norm", images(2))
    assert all("forward" not in vars(layer) for layer in model.layers())
    assert model.random_state() == streams == same.random_state()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[name], err_msg=name)
    np.testing.assert_array_equal(model.backward(np.ones_like(y)), same.backward(np.ones_like(y_same)))
    np.testing.assert_array_equal(model(images(3)), same(images(3)))


def test_a_look_keeps_nothing_for_backward():
    model = deep()
    forward_to(model, ["end"], images())
    assert all(layer._saved is None for layer in model.layers())
    with pytest.raises(RuntimeError, match="call forward first"):
        model.backward(np.ones((4, 8, 6, 5), np.float32))


def test_nothing_after_the_layer_is_computed(monkeypatch):
    model, x = deep(), images()
    later = ("fork.right", "fork.all", "end", "end.drop", "end.norm")
    for layer in model.layers():
        if layer.path in later:
            monkeypatch.setattr(layer, "forward", lambda x: pytest.fail("computed for nothing"))
    forward_to(model, ["fork.left.norm", "block"], x)
    input_of(model, "fork.right", x)


def test_the_input_of_a_layer():
    model, x = deep().eval(), images()
    np.testing.assert_array_equal(input_of(model, "fork.left", x), forward_to(model, ["block"], x)["block"])
    np.testing.assert_array_equal(input_of(model, "end", x), forward_to(model, ["fork"], x)["fork"])
    np.testing.assert_array_equal(input_of(model, "", x), x)


def test_what_fails_on_the_way_is_told_and_leaves_no_trace():
    model = deep()
    before = model.state_dict()
    with pytest.raises(LayerError, match="expected 3 channels on axis 1, got 2"):
        forward_to(model, ["end"], images()[:, :2])
    assert all("forward" not in vars(layer) and layer.saving for layer in model.layers())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fork.lefd", "no layer is called 'fork.lefd'; did you mean 'fork.left'?"),
        ("block.conv.weight", "block.conv.weight is the weight of a layer: name the layer, 'block.conv'"),
        ("end.norm.running_var", "end.norm.running_var is the running_var of a layer: name the layer, 'end.norm'"),
        ("quite.another", "no layer is called 'quite.another'"),
    ],
)
def test_names_that_are_no_layers(name, message):
    with pytest.raises(LayerError, match=re.escape(message)):
        forward_to(deep(), [name], images())


def test_a_layer_that_a_forward_leaves_out_is_named():
    class First(Sequential):
        def forward(self, x):
            return self[0](x)

    model = Sequential(First(Identity(), ReLU()))
    for look in (lambda: forward_to(model, ["0.0", "0.1"], images()), lambda: input_of(model, "0.1", images())):
        with pytest.raises(LayerError, match=r"0\.1 \(ReLU\(\)\): no"):
            look()


def test_a_look_within_a_look(monkeypatch):
    model, seen = deep().eval(), []
    with watched(model, lambda layer, x, y: seen.append(layer.path)):
        forward_to(model, ["block.norm"], images())
    assert seen == ["block.conv", "block.norm"]
