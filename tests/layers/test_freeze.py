"""Freezing: PyTorch's gradients and steps with the same parts frozen, work that is not done, names, and thawing."""

import numpy as np
import pytest
import reference
import torch
from helpers import relative_error, stirred

from tinycnn import BatchNorm2d, Conv2d, Dropout, Flatten, LayerError, Linear, ReLU, Residual, Sequential, optim
from tinycnn.layers.base import Layer
from tinycnn.layers.freeze import frozen_parts, restore_frozen
from tinycnn.layers.watch import restored
from tinycnn.models import create, resnet_cifar

LOWER = ("conv1", "bn1", "layer1.*")
MIDDLE = ("layer2",)
UPPER = ("layer3.*", "bn1")


def images(n=4, shape=(3, 12, 8), seed=0):
    return np.random.default_rng(seed).standard_normal((n, *shape))


def pair():
    """ResNet-14 and PyTorch's, of one state."""
    return stirred(resnet_cifar(14, num_classes=7, rng=0), reference.ResNetCifar(14, num_classes=7))


def freeze_torch(module, prefixes):
    for name, p in module.named_parameters():
        p.requires_grad = not name.startswith(prefixes)
    for name, part in module.named_modules():
        if name.startswith(prefixes):
            part.eval()


def prefixes(patterns):
    return tuple(pattern.removesuffix("*") for pattern in patterns)


def small(rng=None):
    return Sequential(
        {
            "conv1": Conv2d(2, 3, 3, rng=rng),
            "bn1": BatchNorm2d(3),
            "drop": Dropout(0.5),
            "relu": ReLU(),
            "flatten": Flatten(),
            "fc": Linear(3 * 16, 2, rng=rng),
        }
    )


# ---- the mathematics: PyTorch's --------------------------------------------------------------------------------


@pytest.mark.parametrize("patterns", [LOWER, MIDDLE, UPPER, (*LOWER, "layer2.*", "layer3.*")])
def test_gradients_and_statistics_are_pytorchs_with_the_same_frozen(patterns):
    ours, theirs = pair()
    before = ours.state_dict()
    names = ours.freeze(*patterns)
    freeze_torch(theirs, prefixes(patterns))
    assert names == [name for name, p in theirs.named_parameters() if not p.requires_grad]
    ours.train()  # frozen normalisation stays as it is
    x = images()
    y, y_torch = ours(x), theirs(torch.from_numpy(x))
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert ours.backward(dy) is None  # nobody wants dL/d(image)
    assert relative_error(y, y_torch.detach().numpy()) < 1e-11
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        if name in names:
            assert q.grad is None
            assert not p.grad.any(), name
        else:
            assert relative_error(p.grad, q.grad.numpy()) < 1e-9, name
    for name, value in theirs.named_buffers():
        assert relative_error(ours.state_dict()[name], value.numpy()) < 1e-11, name
        if name.startswith(prefixes(patterns)):
            np.testing.assert_array_equal(ours.state_dict()[name], before[name], err_msg=name)


def test_dx_goes_through_frozen_layers_when_it_is_wanted():
    ours, theirs = pair()
    ours.freeze(*LOWER)
    freeze_torch(theirs, prefixes(LOWER))
    ours.require_dx()
    x = images()
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = ours(x), theirs(x_torch)
    y_torch.backward(torch.ones_like(y_torch))
    assert relative_error(ours.backward(np.ones_like(y)), x_torch.grad.numpy()) < 1e-9


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("momentum", lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, weight_decay=0.01)),
        ("adamw", lambda ps: torch.optim.AdamW(ps, lr=0.05, weight_decay=0.01)),
    ],
)
def test_freezing_and_thawing_between_steps_is_pytorchs(name, make):
    """Two steps with the lower half frozen, two with everything trained, two with the middle frozen."""
    ours, theirs = pair()
    options = {"lr": 0.05, "weight_decay": 0.01}
    optimizer, torch_optimizer = optim.create(name, ours.parameters(), **options), make(theirs.parameters())
    for step, patterns in enumerate([LOWER] * 2 + [()] * 2 + [MIDDLE] * 2):
        ours.unfreeze()
        if patterns:
            ours.freeze(*patterns)
        theirs.train()
        freeze_torch(theirs, prefixes(patterns) or ("nothing",))
        x = images(seed=step)
        dy = np.random.default_rng(step).standard_normal((4, 7)) / 10
        ours.zero_grad()
        torch_optimizer.zero_grad()
        ours(x)
        ours.backward(dy)
        theirs(torch.from_numpy(x)).backward(torch.from_numpy(dy))
        optimizer.step()
        torch_optimizer.step()
    for key, value in theirs.state_dict().items():
        assert relative_error(ours.state_dict()[key], value.numpy()) < 1e-9, key


def test_a_frozen_part_of_the_network_passes_gradients_to_what_is_before_it():
    """Frozen by itself, not knowing who needs its dx."""
    model, same = (create("resnet20").astype(np.float64) for _ in range(2))
    model["layer2"].freeze()
    same.freeze("layer2")
    same.require_dx()  # where dL/d(image) is computed too sums may round otherwise
    for net in (model, same):
        net.backward(np.ones_like(net(images())))
    for (name, p), q in zip(model.named_parameters(), same.parameters(), strict=True):
        np.testing.assert_array_equal(p.grad, q.grad, err_msg=name)
    assert model.conv1.weight.grad.any()


# ---- work that is not done -------------------------------------------------------------------------------------


def test_nothing_goes_back_through_a_frozen_trunk_nor_is_kept_for_it(monkeypatch):
    model = create("resnet20")
    model.freeze(*LOWER, "layer2")
    called = []
    for layer in model.layers():
        monkeypatch.setattr(
            layer, "backward", lambda dy, b=layer.backward, path=layer.path: called.append(path) or b(dy)
        )
    y = model(images().astype(np.float32))
    saved = {layer.path for layer in model.layers() if layer._saved is not None}
    assert saved
    assert all(path.startswith(("layer3", "avgpool", "flatten", "fc")) for path in saved)
    model.backward(np.ones_like(y))
    assert not any(path.startswith(("conv1", "bn1", "layer1", "layer2")) for path in called)
    assert "layer3.0.conv1" in called


def test_the_lowest_trained_layer_computes_no_dx():
    model = create("resnet20")
    model.freeze(*LOWER)
    assert not model.layer2[0].conv1.needs_dx
    assert not model.layer2[0].needs_dx
    assert model.layer2[1].conv1.needs_dx
    model.unfreeze("layer1.2")
    assert model.layer2[0].conv1.needs_dx
    assert not model.layer1[1].reached


# ---- names -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "frozen", "parameters"),
    [
        ((), "conv1 bn1 drop relu flatten fc", "conv1.weight conv1.bias bn1.weight bn1.bias fc.weight fc.bias"),
        (("bn1",), "bn1", "bn1.weight bn1.bias"),
        (("bn1.*",), "bn1", "bn1.weight bn1.bias"),
        (("*1",), "conv1 bn1", "conv1.weight conv1.bias bn1.weight bn1.bias"),
        (("*.bias",), "", "conv1.bias bn1.bias fc.bias"),
        (("*.bias", "bn?.weight"), "bn1", "conv1.bias bn1.weight bn1.bias fc.bias"),
        (("drop",), "drop", ""),
    ],
)
def test_patterns(patterns, frozen, parameters):
    model = small()
    names = model.freeze(*patterns)
    assert names == parameters.split()
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == set(names)
    assert [name for name, layer in model.named_layers() if name and layer.frozen] == frozen.split()
    assert [layer.training for layer in model] == [not layer.frozen for layer in model]
    assert model.unfreeze(*patterns) == names
    assert all(p.requires_grad for p in model.parameters())
    assert all(layer.training and not layer.frozen for layer in model.layers())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["conv1", "layre1.*"], r"no layer and no parameter matches 'layre1\.\*'; did you mean 'layer1"),
        (["fc.wieght"], r"did you mean 'fc\.weight'"),
        (["bn1.running_mean"], "matches 'bn1.running_mean'"),
    ],
)
def test_a_pattern_that_matches_nothing_changes_nothing(patterns, message):
    model = create("resnet20")
    with pytest.raises(LayerError, match=message):
        model.freeze(*patterns)
    assert all(p.requires_grad for p in model.parameters())
    assert model.conv1.needs_dx


def test_names_are_those_of_the_layer_asked():
    part = create("resnet20")["layer1"]
    assert part.freeze("0.conv?") == ["0.conv1.weight", "0.conv2.weight"]


# ---- modes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["train", "eval", "eval(backward=True)"])
def test_thawed_layers_are_in_the_mode_of_the_others(mode):
    model = small()
    model.freeze("bn1", "drop")
    eval(f"model.{mode}" if ")" in mode else f"model.{mode}()", {"model": model})
    assert not model.bn1.training
    assert model.bn1.saving == (mode != "eval")
    model.unfreeze("bn1")
    assert model.bn1.training is model.conv1.training is (mode == "train")
    assert not model.drop.training


def test_a_look_between_freezing_and_thawing_leaves_the_mode():
    model = small()
    model.freeze("bn1")
    with restored(model):
        model.eval()
    model.unfreeze()
    assert model.bn1.training


def test_everything_but_the_head():
    model = small()
    model.freeze("*")
    assert not model.training
    model.unfreeze("fc")
    assert model.training
    assert model.fc.training
    assert not model.bn1.training
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["fc.weight", "fc.bias"]
    y = model(images(shape=(2, 6, 6)).astype(np.float32))
    model.backward(np.ones_like(y))
    assert model.fc.weight.grad.any()


def test_a_layer_with_one_trained_parameter_is_not_frozen():
    model = small()
    model.freeze("bn1")
    model.unfreeze("bn1.bias")
    assert not model.bn1.frozen
    assert model.bn1.bias.requires_grad
    assert not model.bn1.weight.requires_grad


def test_statistics_may_be_fixed_while_scale_and_shift_are_trained():
    model = small()
    model.freeze("bn1")
    for p in model.bn1.parameters():
        p.requires_grad = True
    model.require_dx(False)
    before = model.bn1.running_mean.copy()
    y = model.train()(images(shape=(2, 6, 6)).astype(np.float32))
    model.backward(np.ones_like(y))
    assert model.bn1.weight.grad.any()
    np.testing.assert_array_equal(model.bn1.running_mean, before)


def test_frozen_dropout_drops_nothing_and_draws_nothing():
    model = small()
    model.freeze("bn1", "drop")
    x, streams = images(shape=(2, 6, 6)).astype(np.float32), model.random_state()
    trained = model(x)
    assert model.random_state() == streams
    np.testing.assert_array_equal(trained, model.eval()(x))


def test_a_layer_made_of_layers_is_frozen_where_all_of_them_are():
    model = create("resnet20", checkpointed=True)
    model.freeze("layer1.0.*", "layer1.1", "layer1.2")
    assert model.layer1.frozen
    model.unfreeze("layer1.2.bn1")
    assert not model.layer1.frozen
    assert model.layer1[1].frozen


def test_a_composite_of_ones_own_with_parameters_is_frozen_by_them():
    class Scaled(Layer):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = ReLU(), Linear(1, 1).weight

    model = Sequential(Scaled(), Residual(Linear(2, 2)))
    model.freeze("0.inner")
    assert not model[0].frozen
    model.freeze("0.scale")
    assert model[0].frozen


# ---- keeping it ------------------------------------------------------------------------------------------------


def test_what_is_frozen_can_be_written_down_and_restored():
    model, other = (create("resnet20") for _ in range(2))
    model.freeze(*LOWER, "fc.bias")
    parts = frozen_parts(model)
    assert parts["parameters"][:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert "layer1.0.bn1" in parts["layers"]
    assert "layer1" not in parts["layers"]
    other.freeze("layer3")
    other.require_dx(False)
    restore_frozen(other, parts)
    assert frozen_parts(other) == parts
    assert [layer.frozen for layer in other.layers()] == [layer.frozen for layer in model.layers()]
    assert [layer.reached for layer in other.layers()] == [layer.reached for layer in model.layers()]


def test_pickles_and_copies_stay_frozen():
    import copy
    import pickle

    model = small()
    model.freeze("bn1")
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not same.train().bn1.training
        assert same.conv1.training
