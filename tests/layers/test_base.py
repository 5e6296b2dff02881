"""The machinery that every layer shares: paths, state, switches, errors."""

import numpy as np
import pytest

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


def test_state_is_copied_both_ways():
    model, other = create("resnet20", seed=1), create("resnet20", seed=2)
    state = model.state_dict()
    other.load_state_dict(state)
    state["conv1.weight"][:] = 0
    assert (model.state_dict()["conv1.weight"] != 0).any()
    assert (other.state_dict()["conv1.weight"] != 0).any()


def test_loading_is_all_or_nothing():
    model = create("lenet5")
    before = model.state_dict()
    state = create("lenet5", seed=3).state_dict()
    for change, message in [
        (lambda s: s.pop("fc3.bias"), "missing fc3.bias"),
        (lambda s: s.update(extra=np.ones(1)), "unexpected extra"),
        (lambda s: s.update({"fc3.bias": np.ones(11)}), r"fc3.bias has shape \(10,\), the state's has \(11,\)"),
    ]:
        changed = dict(state)
        change(changed)
        with pytest.raises(LayerError, match=message):
            model.load_state_dict(changed)
        for name, value in model.state_dict().items():
            np.testing.assert_array_equal(value, before[name])


def test_not_strict_says_what_it_left_and_never_loads_nothing():
    model = create("lenet5")
    missing, unexpected = model.load_state_dict({"fc3.bias": np.ones(10), "head.bias": np.ones(2)}, strict=False)
    assert "fc3.weight" in missing
    assert unexpected == ["head.bias"]
    assert (model.state_dict()["fc3.bias"] == 1).all()
    with pytest.raises(LayerError, match="none of the 1 names given"):
        model.load_state_dict({"module.fc3.bias": np.ones(10)}, strict=False)


def test_old_files_lack_the_batch_counter():
    model = create("resnet20")
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    assert model.load_state_dict(state) == ([], [])


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
