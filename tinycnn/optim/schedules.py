"""Learning-rate schedules: lr as a function of the number of steps taken.

A schedule writes ``group["lr"]`` of every group of its optimizer, once when it is made and then in every
`LRScheduler.step`, which is called after the optimizer's step, once per epoch or once per batch: its numbers are in
whatever unit it is stepped.  t is ``last_epoch``, 0 from the start and one more after every step.

Most schedules are a *factor* on the initial rate, lr_t = lr_0·f(t).  They are applied as the ratio
f(t)/f(t − 1), as in PyTorch, so that several schedules that are stepped side by side multiply, whatever else
changes lr in between.

Names, arguments and numbers are PyTorch's (`InverseTimeDecay` is not in PyTorch).

>>> from tinycnn import Linear, optim
>>> def rates(make, **options):
...     optimizer = optim.SGD(Linear(3, 2).parameters(), lr=8.0)
...     schedule, seen = make(optimizer, **options), []
...     for _ in range(5):
...         seen.append(round(optimizer.param_groups[0]["lr"], 3))
...         schedule.step()
...     return seen
>>> rates(StepLR, step_size=2, gamma=0.5)
[8.0, 8.0, 4.0, 4.0, 2.0]
>>> rates(LinearLR, start_factor=0.25, total_iters=3)
[2.0, 4.0, 6.0, 8.0, 8.0]
>>> rates(CosineAnnealingLR, T_max=4)
[8.0, 6.828, 4.0, 1.172, 0.0]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any, NoReturn

from .base import Optimizer


class LRScheduler:
    """Base of every schedule: a subclass stores its arguments and defines `factor`, or `get_lr` itself.

    Args:
        optimizer: whose groups to write to.  The rate a group starts from is kept in ``group["initial_lr"]``.
        last_epoch: −1 to start.  Otherwise the steps taken so far less one, with an optimizer that has the lr of
            then and its ``initial_lr``; `load_state_dict` is the simpler way to resume.

    Attributes:
        base_lrs: lr_0 of every group.
        last_epoch: t.

    Raises:
        TypeError: ``optimizer`` is not an optimizer.
        ValueError: an argument out of range.
    """

    hidden: tuple[str, ...] = ("optimizer",)
    """Attributes that are not state."""
    absolute = False
    """Whether `get_lr` sets lr, whatever it was, rather than changing it."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = self._checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                self._reject(f"group {i} has no 'initial_lr' to resume from: load the optimizer's state first")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._start(resumed=last_epoch != -1)

    def _start(self, resumed: bool) -> None:
        """Take the first step, to t = 0; when resumed, lr is there already."""
        if resumed and not self.absolute:
            self.last_epoch += 1
            self._last_lr = self._rates()
        else:
            self.step()

    def factor(self, t: int) -> float:
        """Return f(t), for t ≥ 0."""
        raise TypeError(f"{type(self).__name__} must define factor or get_lr")

    def get_lr(self) -> list[float]:
        """Return what lr becomes at t = last_epoch, for every group: lr·f(t)/f(t − 1)."""
        t = self.last_epoch
        before = self.factor(t - 1) if t > 0 else 1.0
        ratio = self.factor(t) / before if before else 1.0  # lr has come to 0 for good
        return [lr * ratio for lr in self._rates()]

    def step(self) -> None:
        """Go from t to t + 1."""
        self.last_epoch += 1
        self._write(self.get_lr())

    def get_last_lr(self) -> list[float]:
        """Return lr of every group as the last step left it."""
        return self._last_lr

    def restart(self) -> None:
        """Begin again with t = 0 from the initial rates."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = lr
        self.rewind()
        self.step()

    def rewind(self) -> None:
        """Go back to before the first step, without touching lr."""
        self.last_epoch = -1

    def _rates(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _write(self, rates: list[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = float(lr)
        self._last_lr = self._rates()

    # ---- state and errors ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands, and its arguments; JSON-able.  lr itself is the optimizer's state."""
        own = {name: value for name, value in vars(self).items() if name not in self.hidden}
        return {"schedule": type(self).__name__, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved schedule stood; load the optimizer's state as well, which has lr.

        Raises:
            ValueError: the state of another kind of schedule, or for another number of groups.
        """
        self._fit(state)
        self._restore(state)

    def _restore(self, state: Mapping[str, Any]) -> None:
        vars(self).update({name: value for name, value in state.items() if name not in ("schedule", *self.hidden)})

    def _fit(self, state: Mapping[str, Any]) -> None:
        if state.get("schedule") != type(self).__name__:
            self._reject(f"the state does not fit: {state.get('schedule', 'no schedule')} saved it")
        expected = self.state_dict()
        for name in {**expected, **state}:
            if name not in expected or name not in state:
                self._reject(f"the state does not fit: {name!r} is {'missing' if name in expected else 'unknown'}")
        for name in ("base_lrs", "_last_lr"):
            if name in expected and len(state[name]) != len(expected[name]):
                self._reject(f"the state does not fit: it is for {len(state[name])} groups, not {len(expected[name])}")

    def _reject(self, why: str) -> NoReturn:
        raise ValueError(f"{type(self).__name__}: {why}")

    def _need(self, ok: bool, name: str, must: str, value: object) -> None:
        if not ok:
            self._reject(f"{name} must {must}, got {value!r}")

    def _count(self, name: str, value: Any) -> int:
        """Return ``value`` after checking that it is a whole number of at least 1."""
        self._need(isinstance(value, Integral) and int(value) >= 1, name, "be a whole number of at least 1", value)
        return int(value)

    def _per_group(self, name: str, value: Any) -> list[Any]:
        """Return one value per group: ``value`` itself if it is a list, copies of it otherwise."""
        n = len(self.optimizer.param_groups)
        if isinstance(value, list | tuple):
            self._need(len(value) == n, name, f"have one entry for each of the {n} groups", value)
            return list(value)
        return [value] * n

    def _checked(self, optimizer: Any) -> Optimizer:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: expected an optimizer first, got a {type(optimizer).__name__}")
        return optimizer


class ConstantLR(LRScheduler):
    """f(t) = ``factor`` for the first ``total_iters`` steps, then 1: the simplest warm-up."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self._need(0 < factor <= 1, "factor", "be greater than 0 and at most 1", factor)
        self.start_factor = factor
        self.total_iters = self._count("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return self.start_factor if t < self.total_iters else 1.0


class LinearLR(LRScheduler):
    """f(t) goes in a straight line from ``start_factor`` to ``end_factor`` in ``total_iters`` steps, and stays there.

    The usual warm-up (Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.2).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self._need(0 < start_factor <= 1, "start_factor", "be greater than 0 and at most 1", start_factor)
        self._need(0 <= end_factor <= 1, "end_factor", "lie between 0 and 1", end_factor)
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = self._count("total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t) = start + (end − start)·min(t, T)/T."""
        return self.start_factor + (self.end_factor - self.start_factor) * min(t, self.total_iters) / self.total_iters


class StepLR(LRScheduler):
    """f(t) = γ^⌊t/step_size⌋: multiplied by γ every ``step_size`` steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size = self._count("step_size", step_size)
        self._need(gamma > 0, "gamma", "be greater than 0", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return self.gamma ** (t // self.step_size)


class MultiStepLR(LRScheduler):
    """f(t) = γ^(number of milestones ≤ t): the schedule of the ResNet paper (He et al. 2016, section 4.2)."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones = sorted(milestones)
        self._need(gamma > 0, "gamma", "be greater than 0", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return self.gamma ** sum(milestone <= t for milestone in self.milestones)


class ExponentialLR(LRScheduler):
    """f(t) = γ^t."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self._need(gamma > 0, "gamma", "be greater than 0", gamma)
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return self.gamma**t


class InverseTimeDecay(LRScheduler):
    """f(t) = 1/(1 + decay·t): the 1/t decay of classical stochastic approximation (Robbins & Monro 1951)."""

    def __init__(self, optimizer: Optimizer, decay: float, last_epoch: int = -1) -> None:
        self._need(decay >= 0, "decay", "be at least 0", decay)
        self.decay = decay
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return 1 / (1 + self.decay * t)


class PolynomialLR(LRScheduler):
    """f(t) = (1 − t/T)^power down to 0 at T = ``total_iters``, and 0 after."""

    def __init__(self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1) -> None:
        self.total_iters = self._count("total_iters", total_iters)
        self._need(power >= 0, "power", "be at least 0", power)
        self.power = power
        super().__init__(optimizer, last_epoch)

    def factor(self, t: int) -> float:
        """Return f(t)."""
        return (1 - min(t, self.total_iters) / self.total_iters) ** self.power


class LambdaLR(LRScheduler):
    """lr_t = lr_0·λ(t), with a function λ of your own, or one for each group.

    It sets lr rather than multiplying it, and is to be the only schedule, or the first in a chain.  The functions
    are not part of `state_dict`.
    """

    hidden = ("optimizer", "lr_lambdas")
    absolute = True

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | list[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = self._checked(optimizer)
        self.lr_lambdas: list[Callable[[int], float]] = self._per_group("lr_lambda", lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return lr_0·λ(t)."""
        return [lr * f(self.last_epoch) for lr, f in zip(self.base_lrs, self.lr_lambdas, strict=True)]


class CosineAnnealingLR(LRScheduler):
    """lr_t = η + (lr_0 − η)·(1 + cos(π·t/T))/2: half a cosine from lr_0 to η = ``eta_min`` in T = ``T_max`` steps.

    Stepped on, it comes up again (a cosine of period 2T).  Applied relative to the present lr,

        lr ← η + (lr − η)·(1 + cos(π·t/T))/(1 + cos(π·(t − 1)/T)),

    and at the bottom of the cosine, where that is 0/0, by adding the first step up.

    Sources: Loshchilov & Hutter 2017, "SGDR: stochastic gradient descent with warm restarts", eq. 5.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max = self._count("T_max", T_max)
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return what lr becomes at t."""
        t, T, eta = self.last_epoch, self.T_max, self.eta_min
        if t == 0:
            return self._rates()
        if (t - 1 - T) % (2 * T) == 0:
            rise = (1 - math.cos(math.pi / T)) / 2
            return [lr + (base - eta) * rise for lr, base in zip(self._rates(), self.base_lrs, strict=True)]
        ratio = (1 + math.cos(math.pi * t / T)) / (1 + math.cos(math.pi * (t - 1) / T))
        return [eta + (lr - eta) * ratio for lr in self._rates()]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from lr_0 to ``eta_min`` in ``T_0`` steps, then again in T_0·T_mult, T_0·T_mult², …

    lr_t = η + (lr_0 − η)·(1 + cos(π·s/T))/2, s steps after the last restart, in a period of length T.  It sets lr
    rather than multiplying it.

    Sources: Loshchilov & Hutter 2017, eq. 5.
    """

    absolute = True

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        self.T_0, self.T_mult = self._count("T_0", T_0), self._count("T_mult", T_mult)
        self.eta_min = eta_min
        self.time: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def _position(self) -> tuple[float, int]:
        """Return (s, T) at the present time."""
        s, T = self.time, self.T_0
        if self.T_mult == 1:
            return s % T, T
        while s >= T:
            s, T = s - T, T * self.T_mult
        return s, T

    def get_lr(self) -> list[float]:
        """Return lr at the present time."""
        s, T = self._position()
        return [self.eta_min + (lr - self.eta_min) * (1 + math.cos(math.pi * s / T)) / 2 for lr in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Go one further, or to a time given, which may be a fraction: ``step(epoch + batch/batches)``."""
        self._need(epoch is None or epoch >= 0, "epoch", "be at least 0", epoch)
        self.time = self.time + 1 if epoch is None else epoch
        self.last_epoch = math.floor(self.time)
        self._write(self.get_lr())

    def rewind(self) -> None:
        """Go back to before the first step."""
        self.last_epoch = -1
        self.time = -1
