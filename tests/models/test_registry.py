"""Architectures by name."""

import numpy as np
import pytest

from tinycnn import models

PARAMETERS = {
    "lenet5": 61_706,
    "lenet5_1998": 60_000,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
    "resnet1202": 19_421_274,
    "plain20": 269_722,
    "plain32": 464_154,
    "plain44": 658_586,
    "plain56": 853_018,
    "plain110": 1_727_962,
}


def test_all_names_are_counted():
    assert set(models.names()) == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_exact(name):
    assert models.create(name).num_parameters() == PARAMETERS[name] == models.architecture(name).parameters


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


def test_unknown_names_get_a_suggestion():
    with pytest.raises(ValueError, match=r"unknown model 'lenet-5'; did you mean 'lenet5'\?"):
        models.create("lenet-5")
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        models.create("lenet5", num_classes=0)
    with pytest.raises(TypeError, match="shortcut"):
        models.create("lenet5", shortcut="B")
