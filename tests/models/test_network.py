"""What all architectures share: where features and classifier are, looks inside, freezing, and new classifiers."""

import numpy as np
import pytest
from helpers import relative_error
from small_networks import FAMILIES, images, made

from tinycnn import Conv2d, Flatten, GlobalAvgPool2d, LayerError, Linear, Sequential, load, models, save
from tinycnn.initializers import he_normal
from tinycnn.layers.watch import input_of, restored, watched
from tinycnn.models import Network


def outputs(model, x):
    """What every layer gives on the way to the features in an ordinary forward; of layers of one name the outermost."""
    seen = {}

    def note(layer, x, y):
        seen[layer.path] = y.copy()
        if layer.path == model.features_path:
            raise StopIteration

    with restored(model), watched(model, note), pytest.raises(StopIteration):
        model(x)
    return seen


@pytest.mark.parametrize("name", models.names())
def test_every_network_says_where_its_features_and_classifier_are(name):
    model = models.create(name, initialize=False).eval()
    paths = dict(model.named_layers())
    assert model.features_path in paths
    assert model.classifier_path in paths
    assert set(model.auxiliary_paths) <= set(paths)
    shape = (2, *models.architecture(name).input_shape)
    assert model.output_shape(shape) == (2, model.architecture["num_classes"])


# ---- looking inside --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", FAMILIES)
def test_any_layer_of_any_family_can_be_looked_at(name, mode):
    model = made(name)
    getattr(model, mode)()
    x, state, streams = images(name), model.state_dict(), model.random_state()
    wanted = outputs(model, x)
    kept = [layer._saved for layer in model.layers()]
    features = model.forward_to(model.features_path, x)
    assert features.ndim == 4
    np.testing.assert_array_equal(features, wanted[model.features_path])
    some = np.random.default_rng(0).choice(sorted(wanted), min(12, len(wanted)), replace=False)
    for path, y in model.forward_to(some, x).items():
        np.testing.assert_array_equal(y, wanted[path], err_msg=path)
    assert model.random_state() == streams
    assert all(layer._saved is saved for layer, saved in zip(model.layers(), kept, strict=True))
    assert all(layer.training == (mode == "train") for layer in model.layers())
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, state[key], err_msg=key)
    with restored(model):  # where `features` is a child this is an ordinary forward of it
        np.testing.assert_array_equal(model.features(x), features)


def test_features_are_a_child_where_pytorch_has_one():
    model = models.create("vgg16_bn_cifar")
    assert model.features is model["features"]
    assert model.features_path == "features"
    assert callable(models.create("resnet20").features)


def test_several_names_give_a_dict_and_one_an_array():
    model, x = models.create("resnet20").eval(), images("resnet20")
    found = model.forward_to(["layer3", "layer1.0.conv1", "bn1"], x)
    assert list(found) == ["layer3", "layer1.0.conv1", "bn1"]
    assert [y.shape for y in found.values()] == [(2, 64, 4, 4), (2, 16, 16, 16), (2, 16, 16, 16)]
    np.testing.assert_array_equal(model.forward_to("bn1", x), found["bn1"])
    assert (found["bn1"] >= 0).all()  # its ReLU included
    np.testing.assert_array_equal(model.forward_to("fc", x), model(x))
    with pytest.raises(LayerError, match=r"no layer is called 'layer3\.0\.con1'; did you mean 'layer3\.0\.conv1'"):
        model.forward_to("layer3.0.con1", x)


def test_checkpointed_layers_are_looked_into():
    plain, checkpointed = (models.create("resnet20", checkpointed=c) for c in (False, True))
    names = list(dict.fromkeys(name for name, _ in plain.named_layers()))
    found = (model.forward_to(names, images("resnet20")) for model in (plain, checkpointed))
    for (name, y), other in zip(next(found).items(), next(found).values(), strict=True):
        np.testing.assert_array_equal(y, other, err_msg=name)


# ---- freezing --------------------------------------------------------------------------------------------------


def gradients(model, x, dy):
    """Of every parameter, for the dL/dy of the scores alone, in evaluation."""
    model.eval(backward=True).zero_grad()
    model(x)
    model.backward(dy)
    return {name: p.grad.copy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", [name for name in FAMILIES if "vgg" not in name and "alexnet" not in name])
def test_what_is_trained_above_frozen_layers_has_the_gradients_it_had(name):
    """In evaluation, where freezing changes nothing else: in half of any network."""
    options = {"num_classes": 3} if name != "lenet5_1998" else {}
    model, x = made(name, "float64", **options), images(name, "float64")
    dy = np.random.default_rng(2).standard_normal((2, model.architecture["num_classes"]))
    before = gradients(model, x, dy)
    tops = list(dict.fromkeys(path.partition(".")[0] for path in before))
    lower = tops[: len(tops) // 2]
    frozen = model.freeze(*lower)
    assert set(frozen) == {path for path in before if path.partition(".")[0] in lower}
    for path, grad in gradients(model, x, dy).items():
        if path in frozen:
            assert not grad.any(), path
        else:
            assert relative_error(grad, before[path]) < 1e-9, path
    assert all(not layer.reached for top in lower for layer in model[top].layers())
    model.unfreeze()
    model.require_dx()
    for path, grad in gradients(model, x, dy).items():
        np.testing.assert_array_equal(grad, before[path], err_msg=path)


# ---- another task ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in models.names() if name != "lenet5_1998"])
def test_a_network_with_a_new_classifier_is_that_which_is_built_for_so_many_classes(name):
    model = models.create(name, initialize=False)
    assert model.reset_classifier(7) is model
    assert model.architecture["num_classes"] == 7
    same = models.create(**model.architecture, initialize=False)
    shapes = [{key: p.shape for key, p in net.named_parameters()} for net in (model, same)]
    assert shapes[0] == shapes[1]
    assert list(shapes[0]) == list(shapes[1])
    assert repr(model) == repr(same)


@pytest.mark.parametrize("name", ["lenet5", "nin_cifar", "resnet20"])
def test_only_the_classifier_is_new(name, tmp_path):
    model = models.create(name, seed=3)
    before = model.state_dict()
    model.reset_classifier(4, seed=1)
    for key, value in model.state_dict().items():
        if key.startswith(model.classifier_path):
            assert len(value) == 4
        else:
            np.testing.assert_array_equal(value, before[key], err_msg=key)
    again = models.create(name, seed=3).reset_classifier(4, seed=1)
    other = models.create(name, seed=3).reset_classifier(4, seed=2)
    weight = f"{model.classifier_path}.weight"
    np.testing.assert_array_equal(again.state_dict()[weight], model.state_dict()[weight])
    assert (other.state_dict()[weight] != model.state_dict()[weight]).any()
    save(model, tmp_path / "model.safetensors")
    x = np.random.default_rng(0).standard_normal((2, *models.architecture(name).input_shape)).astype(np.float32)
    np.testing.assert_array_equal(load(tmp_path / "model.safetensors")(x), model.eval()(x))


@pytest.mark.parametrize("name", ["resnet20", "nin_cifar", "vgg16_bn_cifar", "wrn_40_4"])
def test_initial_weights_are_drawn_as_the_architecture_draws_them(name):
    many = 5000
    new = models.create(name, initialize=False).reset_classifier(many, seed=0)
    built = models.create(name, many, seed=1)
    for key in ("weight", "bias"):
        one, other = (net.state_dict()[f"{net.classifier_path}.{key}"] for net in (new, built))
        assert one.std() == pytest.approx(other.std(), rel=0.02)
        assert np.abs(one).max() == pytest.approx(np.abs(other).max(), rel=0.2)


def test_auxiliary_classifiers_are_new_too():
    rng = np.random.default_rng(0)
    layers = {"aux": Sequential({"fc": Linear(4, 9, rng=rng), "other": Linear(9, 4, rng=rng)}), "fc": Linear(4, 9)}
    model = Network(layers, features="aux", classifier="fc", auxiliary=["aux.fc"])
    before = model.state_dict()
    after = model.reset_classifier(3).state_dict()
    assert after["fc.weight"].shape == after["aux.fc.weight"].shape == (3, 4)
    assert (after["fc.weight"] != after["aux.fc.weight"]).any()
    np.testing.assert_array_equal(after["aux.other.weight"], before["aux.other.weight"])


def test_everything_else_is_as_with_the_old_classifier():
    model = models.create("nin_cifar").astype(np.float64).eval()
    old = dict(model.named_layers())[model.classifier_path]
    old.algorithm = "im2col"
    model.require_dx(False)
    model.freeze()
    new = dict(model.reset_classifier(3).named_layers())[model.classifier_path]
    assert new is not old
    assert (new.weight.dtype, new.algorithm, new.training, new.saving) == (np.float64, "im2col", False, False)
    assert new.weight.name == f"{model.classifier_path}.weight"
    assert new.reached
    assert not new.needs_dx
    assert not new.frozen
    y = model.train()(np.random.default_rng(0).standard_normal((2, 3, 32, 32)))
    model.backward(np.ones_like(y))
    assert new.weight.grad.any()


def test_a_number_of_classes_may_be_numpys(tmp_path):
    three = np.int64(3)
    for model in (models.create("lenet5", three, three), models.create("lenet5").reset_classifier(three)):
        save(model, tmp_path / "model.safetensors")
        assert load(tmp_path / "model.safetensors").architecture["num_classes"] == 3


def test_a_network_of_ones_own():
    rng = np.random.default_rng(0)
    layers = {"conv": Conv2d(1, 4, 3, rng=rng), "pool": GlobalAvgPool2d(), "flatten": Flatten()}
    head = Sequential({"fc": Linear(4, 10, bias=False, init=he_normal, rng=rng)})
    model = Network({**layers, "head": head}, features="conv", classifier="head.fc")
    assert model.reset_classifier(3).head.fc.bias is None
    assert model(np.ones((2, 1, 5, 5), np.float32)).shape == (2, 3)
    assert input_of(model, "head", np.ones((2, 1, 5, 5), np.float32)).shape == (2, 4)
    assert not hasattr(model, "architecture")


@pytest.mark.parametrize(
    ("name", "classes", "message"),
    [
        ("resnet20", 0, "num_classes must be at least 1, got 0: give a whole number"),
        ("resnet20", "7", "num_classes must be at least 1, got '7': give a whole number"),
        ("lenet5_1998", 5, r"output \(RBF\(10, 84\)\): only a classifier that is a Linear or a Conv2d"),
    ],
)
def test_classifiers_that_cannot_be(name, classes, message):
    with pytest.raises(ValueError, match=message):
        models.create(name).reset_classifier(classes)
