"""VGG: costs, names, initial values, PyTorch parity."""

import itertools

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, stirred
from references import count
from references.vgg import VGG

from tinycnn import Sequential, gradcheck
from tinycnn.models import architecture, create, vgg

DEPTHS = (11, 13, 16, 19)
NETS = (
    {f"vgg{depth}": {"depth": depth} for depth in DEPTHS}
    | {f"vgg{depth}_bn": {"depth": depth, "batch_norm": True} for depth in DEPTHS}
    | {
        f"vgg{depth}_bn_cifar": {"depth": depth, "batch_norm": True, "hidden": None, "num_classes": 10}
        for depth in (16, 19)
    }
)


@pytest.mark.parametrize("name", NETS)
def test_costs_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        assert count(VGG(**NETS[name]), known.input_shape) == (known.parameters, known.macs)


def keys(convolutions, norms=()):
    """Names of a state dict, given the places of convolutions and normalisations in ``features``."""
    names = []
    for i in convolutions:
        names += [f"features.{i}.weight", f"features.{i}.bias"]
        if i + 1 in norms:
            kinds = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
            names += [f"features.{i + 1}.{kind}" for kind in kinds]
    return names


def linear(*places):
    return [f"classifier{place}.{kind}" for place in places for kind in ("weight", "bias")]


def test_names_are_torchvisions():
    plain = keys((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)) + linear(".0", ".3", ".6")
    assert list(create("vgg16", initialize=False, hidden=8).state_dict()) == plain
    assert len(plain) == 32
    places = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    normalised = keys(places, [i + 1 for i in places])
    wanted = normalised + linear(".0", ".3", ".6")
    assert sorted(create("vgg16_bn", initialize=False, hidden=8).state_dict()) == sorted(wanted)
    assert (len(wanted), sum("num_batches_tracked" not in name for name in wanted)) == (97, 84)
    assert sorted(create("vgg16_bn_cifar", initialize=False).state_dict()) == sorted(normalised + linear(""))


def before_a_norm(model):
    """Names of the biases of convolutions that a normalisation follows."""
    pairs = itertools.pairwise(model["features"])
    return [f"{a.path}.bias" for a, b in pairs if type(a).__name__ == "Conv2d" and "BatchNorm" in type(b).__name__]


@pytest.mark.parametrize(
    ("name", "image"),
    [("vgg11", (32, 65)), ("vgg13_bn", (64, 40)), ("vgg16", (33, 40)), ("vgg19_bn_cifar", (32, 50))],
)
def test_a_step_is_pytorchs(name, image):
    hidden = {} if name.endswith("cifar") else {"hidden": 24}
    ours = create(name, num_classes=7, in_channels=2, dropout=0.0, **hidden)
    theirs = VGG(**{**NETS[name], **hidden, "num_classes": 7}, in_channels=2, dropout=0.0)
    model, module = stirred(ours, theirs)
    x = np.random.default_rng(0).standard_normal((2, 2, *image))
    assert_step_is_torchs(model, module, x, tolerance=1e-9, vanishing=before_a_norm(model))


@pytest.mark.parametrize("name", ["vgg11_bn", "vgg16_bn_cifar"])
def test_evaluation_is_pytorchs(name):
    hidden = {} if name.endswith("cifar") else {"hidden": 24}
    model, module = stirred(create(name, **hidden), VGG(**{**NETS[name], **hidden}))
    model.eval(backward=True)
    module.eval()
    assert_step_is_torchs(model, module, np.random.default_rng(0).standard_normal((1, 3, 33, 32)), tolerance=1e-9)


def test_dropout_is_drawn_in_training_only():
    x = np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32)
    for name, options in (("vgg11", {"hidden": 64}), ("vgg16_bn_cifar", {"dropout": 0.5})):
        model = create(name, **options)
        kinds = [type(layer).__name__ for layer in model.layers()]
        assert kinds.count("Dropout") == (2 if name == "vgg11" else 1)
        assert (model(x) != model(x)).any()
        model.eval()
        assert (model(x) == model(x)).all()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_gradients_of_a_stage(batch_norm):
    features = vgg(11, in_channels=2, batch_norm=batch_norm, hidden=4)["features"]
    stage = Sequential(*list(features)[:3]).astype(np.float64)
    report = gradcheck(stage, np.random.default_rng(0).standard_normal((2, 2, 6, 4)))
    assert report.ok, str(report)


def test_initial_values_are_torchvisions():
    for name, p in create("vgg13_bn", hidden=64).named_parameters():
        if p.data.ndim == 1:
            assert (p.data == (1 if name.endswith("weight") else 0)).all(), name
        else:
            std = np.sqrt(2 / (9 * len(p.data))) if p.data.ndim == 4 else 0.01
            assert p.data.std() == pytest.approx(std, rel=0.02 if p.size > 10_000 else 0.1), name


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="depth must be one of 11, 13, 16, 19, got 12"):
        vgg(12, hidden=8)
    with pytest.raises(ValueError, match=r"p is the probability of dropping, from 0 to 1, got -0\.1"):
        create("vgg16_bn_cifar", dropout=-0.1)
    with pytest.raises(ValueError, match="use larger images"):
        create("vgg11", hidden=8)(np.zeros((1, 3, 31, 64), np.float32))
