"""The machinery that every layer shares: paths, state, switches, errors."""

import copy
import pickle

import numpy as np
import pytest
from helpers import is_channels_last

from tinycnn import BatchNorm2d, Conv2d, Dropout, Linear, ReLU, Residual, Sequential
from tinycnn.layers.base import Layer, LayerError
from tinycnn.models import create
from tinycnn.parameter import Parameter


def small():
    block = Sequential({"": Residual(Sequential({"conv1": Conv2d(3, 3, 1), "bn1": BatchNorm2d(3)})), "relu": ReLU()})
    return Sequential({"stem": Conv2d(2, 3, 3), "layer1": Sequential(block, ReLU())})


def test_paths_are_pytorchs_and_empty_names_share_their_parents_space():
    model = small()
    assert [name for name, _ in model.named_parameters()] == [
        "stem.weight",
        "stem.bias",
        "layer1.0.conv1.weight",
        "layer1.0.conv1.bias",
        "layer1.0.bn1.weight",
        "layer1.0.bn1.bias",
    ]
    assert [name for name, _ in model.named_buffers()] == [
        f"layer1.0.bn1.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    ]
    assert {p.name for p in model.parameters()} == {name for name, _ in model.named_parameters()}


def test_a_name_that_ends_in_an_underscore_is_joined_without_a_dot():
    inner = Sequential({"0": Conv2d(2, 2, 1), "": Sequential({"1a": Conv2d(2, 2, 1)})})
    model = Sequential({"stem": Sequential({"branch1_": inner, "_odd": Conv2d(2, 2, 1, bias=False)})})
    names = [name for name, _ in model.named_parameters()]
    places = ("branch1_0", "branch1_1a")
    wanted = [f"stem.{place}.{kind}" for place in places for kind in ("weight", "bias")]
    assert names == [*wanted, "stem._odd.weight"]
    assert [p.name for p in model.parameters()] == names
    assert model["stem"]["branch1_"]["0"].path == "stem.branch1_0"
    assert "stem.branch1_1a" in dict(model.named_layers())


def test_names_are_relative_to_the_layer_asked():
    part = small()["layer1"]
    assert next(part.named_parameters())[0] == "0.conv1.weight"
    assert next(iter(part.state_dict())) == "0.conv1.weight"


def test_parts_are_attributes_through_empty_names_too():
    model = small()
    assert model.stem is model["stem"]
    assert model.layer1[0].conv1.weight.name == "layer1.0.conv1.weight"
    with pytest.raises(AttributeError, match="Sequential has no attribute 'conv2'"):
        model.conv2  # noqa: B018 (reading it is the test)
    with pytest.raises(LayerError, match="cannot be called 'backward'"):
        Sequential({"backward": ReLU()})


def test_a_layer_can_be_replaced():
    model = create("lenet5")
    model.fc3 = Linear(84, 3)
    assert model(np.zeros((1, 1, 32, 32), np.float32)).shape == (1, 3)
    assert model.state_dict()["fc3.weight"].shape == (3, 84)


def test_a_forgotten_init_is_named():
    class Forgetful(Layer):
        def __init__(self):
            self.weight = Parameter(np.ones(1))

    with pytest.raises(TypeError, match=r"Forgetful.__init__ must call super"):
        Forgetful()


def test_switches():
    model = small()
    assert all(layer.training and layer.saving for layer in model.layers())
    model.eval()
    assert not any(layer.training or layer.saving for layer in model.layers())
    model.eval(backward=True)
    assert all(layer.saving and not layer.training for layer in model.layers())
    model.train()
    assert all(layer.training and layer.saving for layer in model.layers())


def test_backward_stops_where_nothing_below_needs_a_gradient():
    model = Sequential(Conv2d(1, 2, 3), ReLU(), Conv2d(2, 2, 3), ReLU(), Conv2d(2, 1, 3))
    for p in (*model[0].parameters(), *model[2].parameters()):
        p.requires_grad = False
    model.require_dx(False)
    y = model(np.random.default_rng(0).standard_normal((2, 1, 9, 9)).astype(np.float32))
    assert [layer._saved is not None for layer in model] == [False, False, False, False, True]
    assert model.backward(np.ones_like(y)) is None
    assert (model[4].weight.grad != 0).any()
    assert all((p.grad == 0).all() for layer in (model[0], model[2]) for p in layer.parameters())


def test_astype_reaches_parameters_gradients_and_buffers():
    model = small().astype(np.float64)
    assert {p.data.dtype for p in model.parameters()} == {p.grad.dtype for p in model.parameters()} == {np.dtype("f8")}
    assert {b.dtype.str[1:] for b in model.buffers()} == {"f8", "i8"}
    with pytest.raises(ValueError, match="float32 or float64, not in float16"):
        model.astype(np.float16)


def test_random_streams_go_on_where_they_were():
    model = Sequential(Dropout(0.5), ReLU(), Dropout(0.5))
    x = np.ones((4, 50))
    state = model.random_state()
    first, second = model(x), model(x)
    model.set_random_state(state)
    np.testing.assert_array_equal(model(x), first)
    np.testing.assert_array_equal(model(x), second)
    assert (first != second).any()


def test_errors_name_the_layer_by_its_path():
    model = create("resnet20")
    with pytest.raises(LayerError, match=r"conv1 \(Conv2d\(3, 16, 3, padding=1, bias=False\)\): expected 3 channels"):
        model(np.ones((1, 1, 32, 32), np.float32))


def test_a_layer_must_define_both_directions():
    with pytest.raises(TypeError, match="Layer must define forward"):
        Layer()(np.ones(1))
    with pytest.raises(TypeError, match="Layer must define backward"):
        Layer().backward(np.ones(1))


def test_a_layer_put_elsewhere_too_keeps_its_place_in_the_first_network():
    model = create("lenet5")
    state, paths = model.state_dict(), [path for path, _ in model.named_layers()]
    Sequential(*list(model)[:7])  # a feature extractor
    assert list(model.state_dict()) == list(state)
    assert [path for path, _ in model.named_layers()] == paths
    model.load_state_dict(state)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Sequential({"a.b": ReLU()}), "cannot be called 'a.b', dots separate"),
        (lambda: Residual(Sequential({"downsample": ReLU()}), ReLU()), "two parts would be called 'downsample'"),
        (lambda: Sequential({"a": ReLU(), "": Sequential({"a": ReLU()})}), "two parts would be called 'a'"),
        (lambda: Residual(ReLU(), shortcut_name=""), "shortcut_name must not be empty"),
    ],
)
def test_no_two_parts_share_a_path(build, message):
    with pytest.raises(LayerError, match=message):
        build()


def test_parts_can_be_replaced_through_empty_names():
    model = create("resnet20")
    block = model.layer1[0]
    block.conv1 = Conv2d(16, 16, 3, padding=1, bias=False)
    assert type(block).__name__ == "ResidualNormReLU"
    assert model.num_parameters() == 269_722
    assert model.layer1[0].conv1.path == "layer1.0.conv1"


def test_only_a_part_takes_the_place_of_a_part():
    conv = Conv2d(1, 1, 1)
    for value in (None, np.ones((1, 1, 1, 1), np.float32)):
        with pytest.raises(LayerError, match="weight is a part of this layer"):
            conv.weight = value


class TwoSteps(Layer):
    """A composite of a user's own, with the default rules."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Conv2d(1, 2, 3), Conv2d(2, 2, 3)

    def forward(self, x):
        return self.second(self.first(x))

    def backward(self, dy):
        return self.first.backward(self.second.backward(dy))


def test_a_composite_of_ones_own_may_come_first():
    model = Sequential(TwoSteps(), ReLU())
    model.require_dx(False)
    y = model(np.random.default_rng(0).standard_normal((2, 1, 7, 7)).astype(np.float32))
    model.backward(np.ones_like(y))
    assert all((p.grad != 0).any() for p in model.parameters())


def test_eval_releases_what_was_saved():
    model = small()
    model(np.ones((2, 2, 5, 5), np.float32))
    model.eval()
    assert all(layer._saved is None for layer in model.layers())


def test_a_tree_of_layers_is_named_in_a_line():
    assert "\n" not in str(create("resnet20"))
    assert str(create("resnet20").layer1[0]) == "layer1.0 (ResidualNormReLU)"


def test_thawing_without_telling_says_what_to_do():
    conv = Conv2d(1, 1, 1)
    for p in conv.parameters():
        p.requires_grad = False
    conv.require_dx(False)
    for p in conv.parameters():
        p.requires_grad = True
    y = conv(np.ones((1, 1, 1, 1), np.float32))
    with pytest.raises(RuntimeError, match="call require_dx again"):
        conv.backward(y)


def test_a_random_state_of_another_network_is_refused():
    with pytest.raises(LayerError, match="no entry"):
        Sequential(Dropout(0.5)).set_random_state({})


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(copy_of):
    model = create("resnet20")
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    other = copy_of(model)
    np.testing.assert_array_equal(other(x), model(x))
    assert all(is_channels_last(p.data) and is_channels_last(p.grad) for p in other.parameters())
    other.fc.weight.data.fill(0)
    assert (model.fc.weight.data != 0).any()


def test_arrays_on_two_devices_are_told_apart(gpu):
    from tinycnn import to_device

    layer, x = Linear(3, 2), np.ones((1, 3), np.float32)
    with pytest.raises(LayerError, match=r"input is on GPU 0, parameters are on the CPU: move the layers with \.to"):
        layer(to_device(x, "cuda"))
    layer.to("cuda")
    with pytest.raises(LayerError, match=r"Linear\(3, 2\): input is on the CPU, parameters are on GPU 0"):
        layer(x)
    layer(to_device(x, "cuda"))
    with pytest.raises(LayerError, match="dL/dy is on the CPU, parameters are on GPU 0"):
        layer.backward(np.ones((1, 2), np.float32))


def test_two_gpus_are_two_places(gpu, monkeypatch):
    from tinycnn.layers import check

    layer, x = Linear(3, 2).to("cuda"), gpu.zeros((1, 3), np.float32)
    monkeypatch.setattr(check, "place_of", lambda a: int(a is x))
    with pytest.raises(LayerError, match="input is on GPU 1, parameters are on GPU 0"):
        layer(x)
