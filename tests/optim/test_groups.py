import re

import numpy as np
import pytest
import torch

from tinycnn.optim import SGD, Adam, CosineAnnealingLR, decay_groups, groups_by_name
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


class Named(Model):
    def named_parameters(self):
        return ((p.name, p) for p in self._parameters)


def test_every_parameter_is_in_the_first_group_that_matches(parameters):
    groups = groups_by_name(Named(parameters), {"fc.bias": 0.5, "fc.*": {"lr": 0.1, "momentum": 0.5}, "*": 0.01})
    assert [names(group) for group in groups] == [["fc.bias"], ["fc.weight"], ["conv.weight", "conv.bias", "scale"]]
    optimizer = SGD(groups, lr=1.0, momentum=0.9)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.1, 0.01]
    assert [group["momentum"] for group in optimizer.param_groups] == [0.9, 0.5, 0.9]
    assert [group["name"] for group in optimizer.param_groups] == ["fc.bias", "fc.*", "*"]


def test_only_the_weights_of_each_group_decay(parameters):
    groups = groups_by_name(Named(parameters), {"conv.*": 0.5, "*": 0.01}, weight_decay=0.1)
    assert [(names(g), g["lr"], g["weight_decay"], g["name"]) for g in groups] == [
        (["conv.weight"], 0.5, 0.1, "conv.*"),
        (["conv.bias"], 0.5, 0.0, "conv.*"),
        (["fc.weight"], 0.01, 0.1, "*"),
        (["fc.bias", "scale"], 0.01, 0.0, "*"),
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"conv.*": 1, "fc.*": 1}, "no pattern matches scale: add one for the rest, '*', or freeze"),
        ({"fc.*": 1}, "no pattern matches conv.weight, conv.bias, scale: add"),
        ({}, "no pattern matches conv.weight, conv.bias, fc.weight, fc.bias and 1 more"),
        ({"cnv.weight": 1, "*": 1}, "no parameter is left for 'cnv.weight'; did you mean 'conv.weight'?"),
        ({"*": 1, "fc.*": 1}, "no parameter is left for 'fc.*': patterns before it have taken all"),
        ({"scale": 1, "sc*": 1, "*": 1}, "no parameter is left for 'sc*': patterns before it have taken all"),
    ],
)
def test_patterns_that_leave_out_or_catch_nothing_are_refused(parameters, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        groups_by_name(Named(parameters), settings)


def test_frozen_parameters_need_no_pattern_but_may_have_one(parameters):
    for p in parameters[:3]:
        p.requires_grad = False
    groups = groups_by_name(Named(parameters), {"fc.*": 0.1, "scale": 1})
    assert [names(group) for group in groups] == [["fc.weight", "fc.bias"], ["scale"]]


def test_rates_and_their_schedule_are_pytorchs(parameters, gradients):
    """Groups of rates 100 apart, under a cosine, one group frozen for a while."""
    twins = [torch.nn.Parameter(torch.tensor(p.data.copy())) for p in parameters]
    optimizer = SGD(groups_by_name(Named(parameters), {"conv.*": 1e-3, "fc.*": 1e-2, "*": 0.1}), lr=1, momentum=0.9)
    reference = torch.optim.SGD(
        [{"params": part, "lr": lr} for part, lr in ((twins[:2], 1e-3), (twins[2:4], 1e-2), (twins[4:], 0.1))],
        lr=1,
        momentum=0.9,
    )
    schedules = CosineAnnealingLR(optimizer, 10), torch.optim.lr_scheduler.CosineAnnealingLR(reference, 10)
    for step, gs in enumerate(gradients(10)):
        for i, (p, twin, g) in enumerate(zip(parameters, twins, gs, strict=True)):
            p.requires_grad = i > 1 or step > 4
            p.grad[...] = g
            twin.grad = torch.tensor(g) if p.requires_grad else None
        for one in (optimizer, reference, *schedules):
            one.step()
        for p, twin in zip(parameters, twins, strict=True):
            np.testing.assert_allclose(p.data, twin.detach().numpy(), rtol=1e-12, atol=1e-14)
