import numpy as np
import pytest

from tinycnn.optim import SGD, Adam, decay_groups
from tinycnn.optim.groups import plain
from tinycnn.parameter import Parameter


def names(group):
    return [p.name for p in group["params"]]


def test_groups_are_completed_by_the_defaults(parameters):
    optimizer = SGD(
        [{"params": iter(parameters[:2]), "lr": 0.5, "name": "first"}, {"params": parameters[2]}], lr=0.1, momentum=0.9
    )
    first, second = optimizer.param_groups
    assert names(first) == ["conv.weight", "conv.bias"]
    assert names(second) == ["fc.weight"]
    assert (first["lr"], second["lr"]) == (0.5, 0.1)
    assert first["momentum"] == second["momentum"] == 0.9
    assert first["name"] == "first"


def test_a_generator_of_parameters_will_do(parameters):
    assert names(SGD(p for p in parameters).param_groups[0]) == [p.name for p in parameters]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (set, "got a set"),
        (lambda ps: ps[0], "got a Parameter"),
        (lambda ps: {"params": ps}, "got a dict"),
        (lambda ps: 3, "got a int"),
        (lambda ps: [p.data for p in ps], "expected Parameters, got a ndarray: pass model.parameters()"),
        (lambda ps: [(p.name, p) for p in ps], "expected Parameters, got a tuple"),
        (lambda ps: [{"params": ps}, ps[0]], "group 1 must be a dict with an entry 'params', got Parameter"),
        (lambda ps: [{"lr": 0.1}], "group 0 must be a dict with an entry 'params'"),
        (lambda ps: [{"params": set(ps)}], "group 0: .*got a set"),
    ],
)
def test_what_is_not_parameters_in_an_order_is_refused(parameters, params, message):
    with pytest.raises(TypeError, match=f"SGD: .*{message}"):
        SGD(params(parameters), lr=0.1)


def test_a_misspelt_hyperparameter_is_refused(parameters):
    with pytest.raises(ValueError, match=r"SGD: group 0 has an unknown entry 'weigth_decay'; known are lr, "):
        SGD([{"params": parameters, "weigth_decay": 0.1}], lr=0.1)


def test_a_bad_value_in_a_group_is_refused(parameters):
    with pytest.raises(ValueError, match=r"Adam: betas must .*, got \(0.9, 2\)"):
        Adam([{"params": parameters, "betas": (0.9, 2)}])


def test_no_parameters_and_parameters_twice_are_refused(parameters):
    with pytest.raises(ValueError, match="no parameters"):
        SGD([], lr=0.1)
    with pytest.raises(ValueError, match="twice"):
        SGD([{"params": parameters}, {"params": parameters[:1]}], lr=0.1)


def test_plain_values():
    values = plain([np.float32(0.5), np.int64(2), 3, "x", None])
    assert values == (0.5, 2, 3, "x", None)
    assert [type(v) for v in values[:2]] == [float, int]


class Model:
    def __init__(self, parameters):
        self._parameters = parameters

    def parameters(self):
        yield from self._parameters


@pytest.mark.parametrize("source", [list, iter, Model])
def test_only_weights_decay(parameters, source):
    decayed, others = decay_groups(source(parameters), 0.1)
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert names(decayed) == ["conv.weight", "fc.weight"]
    assert names(others) == ["conv.bias", "fc.bias", "scale"]
    assert len(SGD([decayed, others], lr=0.1).flat.parameters) == 5


def test_an_empty_group_is_left_out():
    assert len(decay_groups([Parameter(np.zeros((2, 2)))], 0.1)) == 1
    assert decay_groups([Parameter(np.zeros(2))], 0.1)[0]["weight_decay"] == 0.0
