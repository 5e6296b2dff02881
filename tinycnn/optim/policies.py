"""Two policies that are more than a formula in t: the one-cycle policy, and waiting for a plateau."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from .base import Optimizer
from .groups import Group
from .schedules import LRScheduler


class OneCycleLR(LRScheduler):
    """lr up to ``max_lr`` and down to almost nothing in one training, momentum the other way.

        t = 0                        lr = max_lr/div_factor                        momentum = max_momentum
        t = pct_start·T − 1          lr = max_lr                                   momentum = base_momentum
        t = T − 1                    lr = max_lr/(div_factor·final_div_factor)     momentum = max_momentum

    with half a cosine (or a straight line) from each to the next; ``three_phase`` comes down in as many steps as it
    went up, to the lr and momentum of the start, and only then to the end.  To be stepped after every batch.  The
    momentum cycled is ``group["momentum"]``, or β1 of the optimizers that have ``betas``.

    Args:
        optimizer: whose groups to write to; their own lr and momentum are overwritten.
        max_lr: the top, for all groups or a list with one for each.
        total_steps: T.
        epochs, steps_per_epoch: T as their product, instead.
        pct_start: part of the cycle that goes up.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        cycle_momentum, base_momentum, max_momentum: whether momentum cycles, and its bounds.
        div_factor, final_div_factor, three_phase: see above.
        last_epoch: see `LRScheduler`.

    Raises:
        ValueError: an argument out of range; momentum to cycle in an optimizer that has none; a step beyond T.

    Sources: Smith & Topin 2018, "Super-convergence"; Smith 2018, "A disciplined approach to neural network
    hyper-parameters: part 1" (cyclical momentum).

    >>> from tinycnn import Linear, optim
    >>> optimizer = optim.SGD(Linear(3, 2).parameters(), lr=1.0, momentum=0.9)
    >>> cycle, seen = OneCycleLR(optimizer, 8.0, total_steps=5, pct_start=0.6, div_factor=8, final_div_factor=4), []
    >>> for _ in range(5):
    ...     group = optimizer.param_groups[0]
    ...     seen.append((round(group["lr"], 3), round(group["momentum"], 3)))
    ...     cycle.step()
    >>> seen
    [(1.0, 0.95), (4.5, 0.9), (8.0, 0.85), (4.125, 0.9), (0.25, 0.95)]
    """

    absolute = True

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85,
        max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        self.optimizer = self._checked(optimizer)
        if total_steps is None:
            total_steps = self._count("epochs", epochs) * self._count("steps_per_epoch", steps_per_epoch)
        self.total_steps = self._count("total_steps", total_steps)
        self._need(0 <= pct_start <= 1, "pct_start", "lie between 0 and 1", pct_start)
        self._need(anneal_strategy in ("cos", "linear"), "anneal_strategy", "be 'cos' or 'linear'", anneal_strategy)
        self._need(div_factor > 0, "div_factor", "be greater than 0", div_factor)
        self._need(final_div_factor > 0, "final_div_factor", "be greater than 0", final_div_factor)
        self.pct_start, self.anneal_strategy, self.three_phase = pct_start, anneal_strategy, three_phase
        self.cycle_momentum = cycle_momentum
        if last_epoch == -1:
            self._prepare_rates(self._per_group("max_lr", max_lr), div_factor, final_div_factor)
        if cycle_momentum:
            self._prepare_momentum(base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _prepare_rates(self, max_lrs: list[float], div_factor: float, final_div_factor: float) -> None:
        for group, max_lr in zip(self.optimizer.param_groups, max_lrs, strict=True):
            group["initial_lr"] = max_lr / div_factor
            group["max_lr"] = max_lr
            group["min_lr"] = group["initial_lr"] / final_div_factor

    def _prepare_momentum(self, base: Any, top: Any, last_epoch: int) -> None:
        if not {"momentum", "betas"} & set(self.optimizer.defaults):
            name = type(self.optimizer).__name__
            self._reject(f"{name} has neither momentum nor betas: pass cycle_momentum=False")
        bounds = zip(self._per_group("base_momentum", base), self._per_group("max_momentum", top), strict=True)
        if last_epoch == -1:
            for group, (low, high) in zip(self.optimizer.param_groups, bounds, strict=True):
                group["base_momentum"], group["max_momentum"] = low, high

    def _phases(self) -> list[tuple[float, str, str, str, str]]:
        """Return (last t, lr from, lr to, momentum from, momentum to) of every phase, as names of group entries."""
        top = self.pct_start * self.total_steps - 1
        end = float(self.total_steps - 1)
        up = (top, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        if not self.three_phase:
            return [up, (end, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        down = (2 * top, "max_lr", "initial_lr", "base_momentum", "max_momentum")
        return [up, down, (end, "initial_lr", "min_lr", "max_momentum", "max_momentum")]

    def _between(self, a: float, b: float, part: float) -> float:
        if self.anneal_strategy == "linear":
            return a + (b - a) * part
        return b + (a - b) / 2 * (1 + math.cos(math.pi * part))

    def get_lr(self) -> list[float]:
        """Return lr at t, and write the momentum of t."""
        t = self.last_epoch
        if t > self.total_steps:
            self._reject(f"step {t} is beyond total_steps={self.total_steps}: the cycle is over")
        phases = self._phases()
        now = next((i for i, phase in enumerate(phases[:-1]) if t <= phase[0]), len(phases) - 1)
        start = phases[now - 1][0] if now else 0.0
        end, lr_a, lr_b, momentum_a, momentum_b = phases[now]
        part = (t - start) / (end - start) if end > start else 1.0
        if self.cycle_momentum:
            for group in self.optimizer.param_groups:
                _set_momentum(group, self._between(group[momentum_a], group[momentum_b], part))
        return [self._between(group[lr_a], group[lr_b], part) for group in self.optimizer.param_groups]


def _set_momentum(group: Group, momentum: float) -> None:
    if "betas" in group:
        group["betas"] = (momentum, *group["betas"][1:])
    else:
        group["momentum"] = momentum


class ReduceLROnPlateau:
    """Multiply lr by ``factor`` when a metric has stopped improving.

    An epoch is bad if its metric is not better than the best so far by ``threshold``.  When the bad epochs in a row
    *exceed* ``patience`` lr is reduced, and for ``cooldown`` epochs after that none counts as bad.

    Args:
        optimizer: whose groups to write to.
        mode: ``"min"`` if a smaller metric is better (a loss), ``"max"`` if a larger one is (an accuracy).
        factor: what lr is multiplied by, less than 1.
        patience: bad epochs to put up with.
        threshold, threshold_mode: better means metric < best·(1 − threshold) (``"rel"``) or best − threshold
            (``"abs"``); for ``"max"`` with the opposite signs.
        cooldown: epochs to wait after a reduction.
        min_lr: never less than this, for all groups or a list with one for each.
        eps: a reduction by less than this is not made.

    Raises:
        ValueError: an argument out of range.

    >>> from tinycnn import Linear, optim
    >>> optimizer = optim.SGD(Linear(3, 2).parameters(), lr=8.0)
    >>> plateau = ReduceLROnPlateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (2, 2, 2):
    ...     plateau.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    4.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: Literal["min", "max"] = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: Literal["rel", "abs"] = "rel",
        cooldown: int = 0,
        min_lr: float | list[float] = 0,
        eps: float = 1e-8,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"ReduceLROnPlateau: expected an optimizer first, got a {type(optimizer).__name__}")
        groups = len(optimizer.param_groups)
        for ok, name, must, value in (
            (mode in ("min", "max"), "mode", "be 'min' or 'max'", mode),
            (threshold_mode in ("rel", "abs"), "threshold_mode", "be 'rel' or 'abs'", threshold_mode),
            (0 <= factor < 1, "factor", "be at least 0 and less than 1", factor),
            (patience >= 0, "patience", "be at least 0", patience),
            (cooldown >= 0, "cooldown", "be at least 0", cooldown),
            (not isinstance(min_lr, list) or len(min_lr) == groups, "min_lr", f"have {groups} entries", min_lr),
        ):
            if not ok:
                raise ValueError(f"ReduceLROnPlateau: {name} must {must}, got {value!r}")
        self.optimizer = optimizer
        self.mode, self.factor, self.patience = mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown, self.eps = threshold, threshold_mode, cooldown, eps
        self.min_lrs = list(min_lr) if isinstance(min_lr, list) else [min_lr] * groups
        self.best: float | None = None
        self.last_epoch, self.num_bad_epochs, self.cooldown_counter = 0, 0, 0

    def step(self, metrics: float) -> None:
        """Take note of the metric of an epoch, and reduce lr if it is time."""
        self.last_epoch += 1
        if self._is_better(float(metrics)):
            self.best = float(metrics)
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _is_better(self, metric: float) -> bool:
        if self.best is None:
            return math.isfinite(metric)
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            bound = self.best + sign * self.threshold
        else:
            bound = self.best * (1 + sign * self.threshold)
        return sign * metric > sign * bound

    def _reduce(self) -> None:
        for group, least in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, least)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """Return lr of every group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule stands, and its arguments; JSON-able."""
        own = {name: value for name, value in vars(self).items() if name != "optimizer"}
        return {"schedule": type(self).__name__, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where a saved schedule stood.

        Raises:
            ValueError: the state of another kind of schedule, or for another number of groups.
        """
        own = self.state_dict()
        if state.get("schedule") != own["schedule"] or set(state) != set(own):
            saved = state.get("schedule", "no schedule")
            raise ValueError(f"ReduceLROnPlateau: the state does not fit: {saved} saved it")
        if len(state["min_lrs"]) != len(self.min_lrs):
            raise ValueError(
                f"ReduceLROnPlateau: the state does not fit: it is for {len(state['min_lrs'])} groups, "
                f"not {len(self.min_lrs)}"
            )
        vars(self).update({name: value for name, value in state.items() if name != "schedule"})
