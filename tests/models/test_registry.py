"""Architectures by name: what each counts, and how they are made."""

import numpy as np
import pytest

from tinycnn import models

# name: parameters, multiply-adds of one image as the literature rounds them (None: it does not say), classes.
# Exact multiply-adds are compared with PyTorch's in each family's own test.
PUBLISHED = {
    "lenet5": (61_706, 416_520, 10),
    "lenet5_1998": (60_000, None, 10),
    "alexnet": (61_100_840, 714_188_480, 1000),
    "alexnet_2012": (60_965_224, 724_406_816, 1000),
    "vgg11": (132_863_336, 7.609e9, 1000),
    "vgg13": (133_047_848, 11.308e9, 1000),
    "vgg16": (138_357_544, 15.470e9, 1000),
    "vgg19": (143_667_240, 19.632e9, 1000),
    "vgg11_bn": (132_868_840, 7.609e9, 1000),
    "vgg13_bn": (133_053_736, 11.308e9, 1000),
    "vgg16_bn": (138_365_992, 15.470e9, 1000),
    "vgg19_bn": (143_678_248, 19.632e9, 1000),
    "vgg16_bn_cifar": (14_728_266, 313.2e6, 10),
    "vgg19_bn_cifar": (20_040_522, 398.1e6, 10),
    "nin_cifar": (966_986, 222_486_528, 10),
    "nin_imagenet": (7_595_176, 1_100_188_800, 1000),
    "googlenet": (6_624_904, 1.498e9, 1000),
    "googlenet_2014": (6_998_552, 1.583e9, 1000),
    "inception_v4": (42_679_816, 12.254e9, 1000),
    "inception_resnet_v2": (55_843_464, 13.156e9, 1000),
    "resnet18": (11_689_512, 1.814e9, 1000),
    "resnet34": (21_797_672, 3.664e9, 1000),
    "resnet50": (25_557_032, 4.089e9, 1000),
    "resnet101": (44_549_160, 7.801e9, 1000),
    "resnet152": (60_192_808, 11.514e9, 1000),
    "resnet20": (269_722, 40.55e6, 10),
    "resnet32": (464_154, 68.86e6, 10),
    "resnet44": (658_586, 97.17e6, 10),
    "resnet56": (853_018, 125.49e6, 10),
    "resnet110": (1_727_962, 252.89e6, 10),
    "resnet1202": (19_421_274, 2829.24e6, 10),
    "plain20": (269_722, 40.55e6, 10),
    "plain32": (464_154, 68.86e6, 10),
    "plain44": (658_586, 97.17e6, 10),
    "plain56": (853_018, 125.49e6, 10),
    "plain110": (1_727_962, 252.89e6, 10),
    "preact_resnet110": (1_727_962, 252.9e6, 10),
    "preact_resnet164": (1_703_258, 244.5e6, 10),
    "preact_resnet1001": (10_327_706, 1487.8e6, 10),
    "wrn_16_8": (10_961_370, None, 10),
    "wrn_28_10": (36_479_194, 5.243e9, 10),
    "wrn_40_4": (8_949_210, None, 10),
    "resnext29_8x64d": (34_426_698, 5.387e9, 10),
    "resnext29_16x64d": (68_155_210, 10.689e9, 10),
    "resnext29_32x4d": (4_775_754, None, 10),
    "resnext50_32x4d": (25_028_904, 4.230e9, 1000),
    "resnext101_32x8d": (88_791_336, 16.414e9, 1000),
    "stochastic_resnet110": (1_727_962, 252.89e6, 10),
    "stochastic_resnet1202": (19_421_274, 2829.24e6, 10),
    "densenet121": (7_978_856, 2.834e9, 1000),
    "densenet169": (14_149_480, 3.360e9, 1000),
    "densenet201": (20_013_928, 4.291e9, 1000),
    "densenet_bc_100_12": (769_162, 287.9e6, 10),
    "densenet_40_12": (1_019_722, None, 10),
}


def last_digit(number):
    """Half a unit in the last digit of a number as it was written above: 1.814e9 is given to 0.001e9."""
    return 0.5001 * (1e6 if number >= 1e9 else 1e5 if number in ROUGH else 1e4)


ROUGH = {313.2e6, 398.1e6, 252.9e6, 244.5e6, 287.9e6}


def test_all_names_are_counted():
    assert set(models.names()) == set(PUBLISHED)


@pytest.mark.parametrize("name", models.names())
def test_parameters_and_multiply_adds_are_the_published(name):
    parameters, macs, classes = PUBLISHED[name]
    known, model = models.architecture(name), models.create(name, initialize=False)
    assert model.num_parameters() == parameters == known.parameters
    assert model.architecture["num_classes"] == classes
    assert model.macs((1, *known.input_shape)) == known.macs
    if isinstance(macs, int):
        assert known.macs == macs
    elif macs is not None:
        assert known.macs == pytest.approx(macs, abs=last_digit(macs))


@pytest.mark.parametrize("name", ["lenet5", "lenet5_1998", "resnet20", "plain20"])
def test_arguments_change_inputs_and_outputs(name):
    model = models.create(name, num_classes=4, in_channels=2)
    assert model(np.zeros((3, 2, 32, 32), np.float32)).shape == (3, 4)
    assert model.architecture == {"name": name, "num_classes": 4, "in_channels": 2}


def test_one_seed_one_network():
    a, b, c = (models.create("resnet20", seed=s).state_dict() for s in (1, 1, 2))
    assert all((a[name] == b[name]).all() for name in a)
    assert (a["conv1.weight"] != c["conv1.weight"]).any()
    fresh = [models.create("lenet5", seed=None).state_dict()["conv1.weight"] for _ in range(2)]
    assert (fresh[0] != fresh[1]).any()


def test_the_description_builds_it_anew():
    model = models.create("resnet20", num_classes=3, shortcut="B")
    again = models.create(**model.architecture)
    assert list(again.state_dict()) == list(model.state_dict())


def test_uninitialised_weights_are_zeros():
    model = models.create("resnet20", initialize=False)
    assert not any(p.data.any() for p in model.parameters() if p.data.ndim > 1)
    assert list(model.state_dict()) == list(models.create("resnet20").state_dict())


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown model 'lenet-5'; did you mean 'lenet5'\?"):
        models.create("lenet-5")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        models.create("lenet5", num_classes=0)
    with pytest.raises(TypeError, match="shortcut"):
        models.create("lenet5", shortcut="B")
