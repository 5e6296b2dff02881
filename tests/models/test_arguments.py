"""What the builders of architectures are given: refused with its name, or made plain."""

import inspect
import json

import numpy as np
import pytest

from tinycnn import models
from tinycnn.models.arguments import checked, plain

BUILDERS = {
    name: build
    for name in models.__all__
    if inspect.isfunction(build := getattr(models, name)) and "rng" in inspect.signature(build).parameters
}
REQUIRED = {"depth": 20, "widen": 2, "groups": 2, "width_per_group": 4, "counts": (1, 1)}
NO_NUMBER = {bool: ("no", 1, None), int: (20.0, "20", True, None), float: ("0.1", True, None)}


def required(build):
    return {name: value for name, value in REQUIRED.items() if name in inspect.signature(build).parameters}


def test_all_builders_are_here():
    assert len(BUILDERS) == 21
    assert {"resnet_cifar", "inception_v4", "basic_resnet"} < set(BUILDERS)


@pytest.mark.parametrize("name", BUILDERS)
def test_arguments_of_another_kind_are_refused_by_name(name):
    build = BUILDERS[name]
    kinds = {
        parameter.name: eval(parameter.annotation)
        for parameter in inspect.signature(build).parameters.values()
        if parameter.annotation in ("bool", "int", "float")
    }
    assert {"num_classes", "in_channels"} <= set(kinds)
    for argument, kind in kinds.items():
        for value in NO_NUMBER[kind]:
            with pytest.raises(ValueError, match=rf"^{argument} must be .*, got {value!r}$"):
                build(**{**required(build), argument: value})


@pytest.mark.parametrize(
    ("name", "argument"), [("inception_v4", "blocks"), ("inception_resnet_v2", "blocks"), ("basic_resnet", "counts")]
)
@pytest.mark.parametrize("value", [3, 3.0, "434", (4, 7, 3.0), (4, True, 3), None])
def test_several_numbers_are_several_numbers(name, argument, value):
    with pytest.raises(ValueError, match=f"^{argument} must be whole numbers, one for each stage, got "):
        BUILDERS[name](**{argument: value})


def test_what_is_too_many_or_too_few_names_the_builder():
    with pytest.raises(TypeError, match="resnet_cifar: missing a required argument: 'depth'"):
        models.resnet_cifar()
    with pytest.raises(TypeError, match="lenet5: got an unexpected keyword argument 'depth'"):
        models.create("lenet5", depth=3)


def test_numpys_numbers_become_pythons():
    seen = {}

    @checked
    def build(depth: int, share: float, wide: bool, stages: tuple[int, int], word: str):
        seen.update(locals())

    build(np.int64(3), np.float32(0.5), np.True_, np.array([1, 2]), word=np.str_("A"))
    assert repr({name: seen[name] for name in ("depth", "share", "wide", "stages", "word")}) == (
        "{'depth': 3, 'share': 0.5, 'wide': True, 'stages': (1, 2), 'word': 'A'}"
    )
    assert (
        repr(plain({"a": np.int8(1), "b": [np.float64(0.5), (np.bool_(False),)]})) == "{'a': 1, 'b': [0.5, (False,)]}"
    )


def test_the_description_of_a_network_is_json():
    model = models.create(
        "inception_v4",
        np.int64(4),
        np.uint8(3),
        blocks=np.array([1, 1, 2]),
        dropout=np.float64(0.5),
        checkpointed=np.True_,
        initialize=False,
    )
    described = json.loads(json.dumps(model.architecture))
    assert described == {
        "name": "inception_v4",
        "num_classes": 4,
        "in_channels": 3,
        "blocks": [1, 1, 2],
        "dropout": 0.5,
        "checkpointed": True,
    }
    again = models.create(**described, initialize=False)
    assert list(again.state_dict()) == list(model.state_dict())
