"""Parameter groups: which parameters share which hyper-parameters, and what values those may take."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, TypeAlias

import numpy as np

from ..messages import nearest, some
from ..parameter import Parameter

Group: TypeAlias = dict[str, Any]
"""``{"params": [Parameter, …], "lr": 0.1, …}``: the values may be changed at any time, a schedule does so."""

Rule: TypeAlias = tuple[str, Callable[[Any], bool]]


def _number(v: Any) -> bool:
    return isinstance(v, Real) and not isinstance(v, bool) and math.isfinite(v)


_FINITE: Rule = ("be a finite number", _number)
_NOT_NEGATIVE: Rule = ("be a number of at least 0", lambda v: _number(v) and v >= 0)
_POSITIVE: Rule = ("be a number greater than 0", lambda v: _number(v) and v > 0)
_FRACTION: Rule = ("lie between 0 and 1", lambda v: _number(v) and 0 <= v <= 1)
_FLAG: Rule = ("be True or False", lambda v: isinstance(v, bool))
_BETAS: Rule = (
    "be two numbers, each at least 0 and less than 1",
    lambda v: isinstance(v, tuple) and len(v) == 2 and all(_number(b) and 0 <= b < 1 for b in v),
)

RULES: dict[str, Rule] = {
    "lr": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "momentum": _NOT_NEGATIVE,
    "dampening": _FINITE,
    "nesterov": _FLAG,
    "lr_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "rho": _FRACTION,
    "alpha": _FRACTION,
    "centered": _FLAG,
    "betas": _BETAS,
    # PyTorch lets eps be 0; the first entry whose gradient is exactly 0 is then 0/0.
    "eps": _POSITIVE,
    "amsgrad": _FLAG,
    "decoupled_weight_decay": _FLAG,
    "momentum_decay": _NOT_NEGATIVE,
}
"""What each hyper-parameter must be; a name means the same in every optimizer."""

EXTRAS = ("name", "initial_lr")
"""What a group may hold beside ``params`` and hyper-parameters: a label, and where schedules start from."""


def plain(value: Any) -> Any:
    """Return NumPy scalars as Python's and lists as tuples.

    A ``numpy.float64`` would promote a float32 array to float64; a Python float does not.
    """
    if isinstance(value, list | tuple):
        return tuple(plain(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value


def check_values(values: Mapping[str, Any], owner: str) -> None:
    """Check every hyper-parameter among ``values`` against `RULES`.

    Raises:
        ValueError: one is out of range; names it and its value.
    """
    for name, value in values.items():
        if name in RULES and not RULES[name][1](value):
            raise ValueError(f"{owner}: {name} must {RULES[name][0]}, got {value!r}")


def make_groups(params: Any, defaults: Mapping[str, Any], owner: str) -> list[Group]:
    """Return a list of complete groups.

    Args:
        params: parameters in an order, or group dicts ``{"params": parameters, **hyper-parameters}``.
        defaults: the hyper-parameters of a group that does not say otherwise.
        owner: the optimizer's name, for errors.

    Raises:
        TypeError: not parameters in an order, and not groups of them.
        ValueError: an unknown hyper-parameter, or one out of range.
    """
    items = _ordered(params, owner)
    if not any(isinstance(item, Mapping) for item in items):
        items = [{"params": items}]
    groups: list[Group] = []
    for i, item in enumerate(items):
        if not isinstance(item, Mapping) or "params" not in item:
            raise TypeError(f"{owner}: group {i} must be a dict with an entry 'params', got {type(item).__name__}")
        unknown = [key for key in item if key not in (*defaults, *EXTRAS, "params")]
        if unknown:
            raise ValueError(f"{owner}: group {i} has an unknown entry {unknown[0]!r}; known are {', '.join(defaults)}")
        members = members_of(item["params"], f"{owner}: group {i}")
        groups.append({"params": members, **defaults, **{k: plain(v) for k, v in item.items() if k != "params"}})
    return groups


def _ordered(params: Any, owner: str) -> list[Any]:
    if isinstance(params, Parameter | Mapping | set | frozenset | str) or not isinstance(params, Iterable):
        raise TypeError(
            f"{owner}: expected parameters in an order (a list, model.parameters()) or a list of groups, "
            f"got a {type(params).__name__}"
        )
    return list(params)


def members_of(params: Any, owner: str) -> list[Parameter]:
    """Return the parameters of a layer, of an ordered collection, or the one given.

    Raises:
        TypeError: ``params`` is none of these; ``owner`` begins the message.
    """
    if hasattr(params, "parameters"):
        params = params.parameters()
    members = [params] if isinstance(params, Parameter) else _ordered(params, owner)
    for member in members:
        if not isinstance(member, Parameter):
            raise TypeError(f"{owner}: expected Parameters, got a {type(member).__name__}: pass model.parameters()")
    return members


def decay_groups(params: Any, weight_decay: float) -> list[Group]:
    """Split parameters into those that weight decay is for and those that it is not.

    Weights (two dimensions or more) decay.  Biases and the scales and shifts of normalisations do not: there
    are few of them, they do not overfit, and pulling a scale towards 0 only works against its purpose.

    Args:
        params: a layer, or parameters in an order.
        weight_decay: of the first group; the second has 0.

    Returns:
        Groups to hand to an optimizer; one without members is left out.

    Sources: He et al. 2019, "Bag of Tricks", section 3.1.

    >>> from tinycnn import Linear
    >>> [(g["weight_decay"], [p.name for p in g["params"]]) for g in decay_groups(Linear(3, 2), 1e-4)]
    [(0.0001, ['weight']), (0.0, ['bias'])]
    """
    members = members_of(params, "decay_groups")
    groups = [
        {"params": [p for p in members if len(p.shape) > 1], "weight_decay": weight_decay},
        {"params": [p for p in members if len(p.shape) <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def groups_by_name(
    model: Any, settings: Mapping[str, float | Mapping[str, Any]], weight_decay: float | None = None
) -> list[Group]:
    """Give the parameters of a network hyper-parameters by their names: other learning rates for other layers.

        groups = optim.groups_by_name(model, {"fc.*": 1e-2, "layer3.*": 1e-3, "*": 1e-4})
        optimizer = optim.SGD(groups, lr=1e-2, momentum=0.9)

    Each parameter belongs to the first pattern that matches its name.  What a network learned first, edges and
    textures, serves every task, and is moved little; what is new has to move far.

    Args:
        model: a network: whatever has ``named_parameters``.
        settings: by pattern (``*`` stands for anything): the learning rate, or a dict of hyper-parameters.
        weight_decay: of every group that does not say otherwise, but for biases, scales and shifts, which get groups of
            their own (`decay_groups`).

    Returns:
        Groups to hand to an optimizer, each with its pattern as ``name``.

    Raises:
        ValueError: a pattern matches no name that is left, or a parameter that is trained matches none.  (A frozen one
            that matches is in its group, and trained with it once it is thawed; one that does not is left out.)

    Sources: Howard & Ruder 2018, "Universal language model fine-tuning for text classification", section 3.2.

    >>> from tinycnn import Conv2d, Linear, Sequential
    >>> model = Sequential({"conv1": Conv2d(1, 2, 3), "fc": Linear(8, 2)})
    >>> [(g["name"], g["lr"], len(g["params"])) for g in groups_by_name(model, {"fc.*": 1e-2, "*": 1e-3})]
    [('fc.*', 0.01, 2), ('*', 0.001, 2)]
    """
    rest = dict(model.named_parameters())
    every, groups = list(rest), list[Group]()
    for pattern, values in settings.items():
        hit = [name for name in rest if fnmatchcase(name, pattern)]
        if not hit:
            taken = any(fnmatchcase(name, pattern) for name in every)
            why = ": patterns before it have taken all it matches" if taken else nearest(pattern, every)
            raise ValueError(f"groups_by_name: no parameter is left for {pattern!r}{why}")
        group = dict(values) if isinstance(values, Mapping) else {"lr": values}
        members = [rest.pop(name) for name in hit]
        parts = [{"params": members}] if weight_decay is None else decay_groups(members, weight_decay)
        groups += [{**part, **group, "name": pattern} for part in parts]
    missing = [name for name, p in rest.items() if p.requires_grad]
    if missing:
        raise ValueError(
            f"groups_by_name: no pattern matches {some(missing)}: add one for the rest, '*', or freeze these parameters"
        )
    return groups
