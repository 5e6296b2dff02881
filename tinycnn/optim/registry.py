"""Optimizers and schedules by name, for the command line and for configuration files."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..messages import nearest
from .adam import Adam, Adamax, AdamW, NAdam, RAdam
from .adaptive import Adadelta, Adagrad, RMSprop
from .base import Optimizer
from .composed import SequentialLR
from .policies import OneCycleLR, ReduceLROnPlateau
from .schedules import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    InverseTimeDecay,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
    StepLR,
)
from .sgd import SGD

Schedule: TypeAlias = LRScheduler | ReduceLROnPlateau

_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": functools.partial(SGD, momentum=0.9),
    "nesterov": functools.partial(SGD, momentum=0.9, nesterov=True),
    "adagrad": Adagrad,
    "rmsprop": RMSprop,
    "adadelta": Adadelta,
    "adam": Adam,
    "adamw": AdamW,
    "adamax": Adamax,
    "nadam": NAdam,
    "radam": RAdam,
}


def names() -> list[str]:
    """Return the name of every optimizer."""
    return list(_OPTIMIZERS)


def hyperparameters(name: str) -> dict[str, Any]:
    """Return the hyper-parameters of the optimizer ``name`` with their defaults.

    Raises:
        ValueError: there is no such optimizer.

    >>> hyperparameters("adagrad")["eps"]
    1e-10
    """
    return _arguments(_find("optimizer", name, _OPTIMIZERS), skip=1)


def create(name: str, params: Any, **kwargs: Any) -> Optimizer:
    """Make an optimizer by name.

    ``momentum`` and ``nesterov`` are `SGD` with the momentum 0.9 unless told otherwise; the others are the classes
    of their name.

    Args:
        name: one of `names`.
        params: parameters in an order, or groups.
        kwargs: hyper-parameters; the others have the class's defaults.

    Raises:
        ValueError: an unknown name or hyper-parameter (with the nearest known), or a value out of range.

    >>> from tinycnn import Linear
    >>> create("nesterov", Linear(3, 2).parameters(), lr=0.1).param_groups[0]["momentum"]
    0.9
    """
    accepted = hyperparameters(name)
    _refuse_unknown(f"optimizer {name!r}", kwargs, accepted)
    return _OPTIMIZERS[name](params, **kwargs)


def _none(optimizer: Optimizer, total: int) -> Schedule:
    return ConstantLR(optimizer, factor=1.0, total_iters=1)


def _step(optimizer: Optimizer, total: int, step_size: int | None = None, gamma: float = 0.1) -> Schedule:
    return _multistep(optimizer, total, None, gamma) if step_size is None else StepLR(optimizer, step_size, gamma)


def _multistep(
    optimizer: Optimizer, total: int, milestones: Iterable[int] | None = None, gamma: float = 0.1
) -> Schedule:
    return MultiStepLR(optimizer, (total // 2, total * 3 // 4) if milestones is None else milestones, gamma)


def _exponential(optimizer: Optimizer, total: int, gamma: float | None = None) -> Schedule:
    return ExponentialLR(optimizer, 0.01 ** (1 / total) if gamma is None else gamma)


def _inverse_time(optimizer: Optimizer, total: int, decay: float | None = None) -> Schedule:
    return InverseTimeDecay(optimizer, 9 / total if decay is None else decay)


def _polynomial(optimizer: Optimizer, total: int, power: float = 1.0) -> Schedule:
    return PolynomialLR(optimizer, total, power)


def _cosine(optimizer: Optimizer, total: int, eta_min: float = 0.0) -> Schedule:
    return CosineAnnealingLR(optimizer, total, eta_min)


def _onecycle(
    optimizer: Optimizer,
    total: int,
    max_lr: float | list[float] | None = None,
    pct_start: float = 0.3,
    cycle_momentum: bool | None = None,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    peaks = [group["lr"] for group in optimizer.param_groups] if max_lr is None else max_lr
    if cycle_momentum is None:
        cycle_momentum = bool({"momentum", "betas"} & set(optimizer.defaults))
    return OneCycleLR(
        optimizer,
        peaks,
        total,
        pct_start=pct_start,
        cycle_momentum=cycle_momentum,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
    )


def _plateau(
    optimizer: Optimizer, total: int, factor: float = 0.1, patience: int | None = None, mode: Any = "min"
) -> Schedule:
    return ReduceLROnPlateau(optimizer, mode, factor, max(1, total // 10) if patience is None else patience)


_SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "none": _none,
    "step": _step,
    "multistep": _multistep,
    "exponential": _exponential,
    "inverse-time": _inverse_time,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "onecycle": _onecycle,
    "plateau": _plateau,
}


def schedule_names() -> list[str]:
    """Return the name of every schedule that `create_schedule` knows."""
    return list(_SCHEDULES)


def create_schedule(
    name: str,
    optimizer: Optimizer,
    total: int,
    warmup: int = 0,
    warmup_factor: float = 0.01,
    warmup_mode: str = "linear",
    **kwargs: Any,
) -> Schedule:
    """Make a schedule by name that suits a training of ``total`` steps of the schedule.

    What a step is, an epoch or a batch, is up to the caller: ``total`` counts what is stepped.

    | name | lr, unless ``kwargs`` say otherwise |
    |---|---|
    | none | constant |
    | step | a tenth from 50 % of ``total`` on, a hundredth from 75 % (or every ``step_size``; ``gamma``) |
    | multistep | the same (or at ``milestones``; ``gamma``) |
    | exponential | down to 1 % at the end, by the same factor every step (``gamma``) |
    | inverse-time | down to 10 % at the end, as 1/(1 + decay·t) (``decay``) |
    | polynomial | in a straight line to 0 (``power``) |
    | cosine | half a cosine to 0 (``eta_min``) |
    | onecycle | up from 4 % to the optimizer's lr at 30 %, down to nearly 0 (`OneCycleLR`; best stepped per batch) |
    | plateau | a tenth after ``total``/10 epochs without progress (`ReduceLROnPlateau`: ``step(metric)``, per epoch) |

    Args:
        name: one of `schedule_names`.
        optimizer: whose lr is the highest of the training.
        total: steps of the schedule in the whole training.
        warmup: so many steps come first, and the schedule has the rest; ``milestones`` count from the very first.
        warmup_factor, warmup_mode: they go in a straight line from this share of lr to lr (``"linear"``), or stay at it
            (``"constant"``): ``create_schedule("multistep", optimizer, 64_000, milestones=(32_000, 48_000), warmup=400,
            warmup_factor=0.1, warmup_mode="constant")`` with lr 0.1 is the ResNet-110 of He et al. 2016.
        kwargs: the schedule's arguments.

    Raises:
        ValueError: an unknown name or argument (with the nearest known), or a value out of range.

    >>> from tinycnn import Linear
    >>> optimizer = create("sgd", Linear(3, 2).parameters(), lr=8.0)
    >>> schedule, seen = create_schedule("cosine", optimizer, total=4), []
    >>> for _ in range(5):
    ...     seen.append(round(optimizer.param_groups[0]["lr"], 3))
    ...     schedule.step()
    >>> seen
    [8.0, 6.828, 4.0, 1.172, 0.0]
    """
    make = _find("schedule", name, _SCHEDULES)
    _refuse_unknown(f"schedule {name!r}", kwargs, _arguments(make, skip=2))
    if total < 1:
        raise ValueError(f"schedule {name!r}: total must be at least 1, got {total}")
    if not 0 <= warmup < total:
        raise ValueError(f"schedule {name!r}: warmup must be at least 0 and less than total={total}, got {warmup}")
    if warmup == 0:
        return make(optimizer, total, **kwargs)
    if name in ("onecycle", "plateau"):
        raise ValueError(f"schedule {name!r} cannot have a warmup of {warmup}: onecycle has its own, plateau none")
    if warmup_mode not in ("linear", "constant"):
        raise ValueError(f"warmup_mode must be 'linear' or 'constant', got {warmup_mode!r}")
    if kwargs.get("milestones") is not None:
        kwargs["milestones"] = _after(warmup, kwargs["milestones"])
    first: LRScheduler
    if warmup_mode == "linear":
        first = LinearLR(optimizer, start_factor=warmup_factor, total_iters=warmup)
    else:
        first = ConstantLR(optimizer, factor=warmup_factor, total_iters=warmup)
    then = make(optimizer, total - warmup, **kwargs)
    assert isinstance(then, LRScheduler)
    return SequentialLR(optimizer, [first, then], milestones=[warmup])


def _after(warmup: int, milestones: Iterable[int]) -> list[int]:
    """Return milestones, counted from the first step, as a schedule counts them that begins after a warm-up."""
    milestones = list(milestones)
    if any(milestone <= warmup for milestone in milestones):
        raise ValueError(f"milestones must come after the warmup of {warmup} steps, got {milestones}")
    return [milestone - warmup for milestone in milestones]


def _find(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return known[name]


def _arguments(make: Callable[..., Any], skip: int) -> dict[str, Any]:
    """Return the arguments of a callable after the first ``skip``, with their defaults."""
    return {p.name: p.default for p in list(inspect.signature(make).parameters.values())[skip:]}


def _refuse_unknown(owner: str, given: Iterable[str], accepted: Mapping[str, Any]) -> None:
    for argument in given:
        if argument not in accepted:
            hint = nearest(argument, accepted)
            raise ValueError(f"{owner} takes no {argument!r}{hint} (it takes {', '.join(accepted) or 'nothing'})")
