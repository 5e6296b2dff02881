"""Schedules made of schedules, one after the other or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from .base import Optimizer
from .policies import ReduceLROnPlateau
from .schedules import LRScheduler


class _Composed(LRScheduler):
    """What both have in common: parts, which share the optimizer and keep their own state."""

    hidden = ("optimizer", "parts")

    def _take(self, optimizer: Any, schedulers: Sequence[LRScheduler]) -> None:
        """Store the parts after checking that they can be stepped by this schedule."""
        self._need(len(schedulers) > 0, "schedulers", "have at least one entry", list(schedulers))
        self.optimizer = self._checked(optimizer)
        for i, part in enumerate(schedulers):
            if isinstance(part, ReduceLROnPlateau):
                self._reject(f"schedule {i} is a ReduceLROnPlateau, whose step needs a metric: step that one yourself")
            if not isinstance(part, LRScheduler):
                raise TypeError(f"{type(self).__name__}: schedule {i} is a {type(part).__name__}, not a schedule")
            if part.optimizer is not optimizer:
                self._reject(f"schedule {i} ({type(part).__name__}) belongs to another optimizer")
        self.parts = list(schedulers)
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]

    def rewind(self) -> None:
        """Go back to before the first step, with all parts."""
        self.last_epoch = -1
        for part in self.parts:
            part.rewind()

    def state_dict(self) -> dict[str, Any]:
        """Return where the schedule and its parts stand."""
        return {**super().state_dict(), "parts": [part.state_dict() for part in self.parts]}

    def _restore(self, state: Mapping[str, Any]) -> None:
        super()._restore(state)
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)

    def _fit(self, state: Mapping[str, Any]) -> None:
        super()._fit(state)
        saved = state["parts"]
        if len(saved) != len(self.parts):
            self._reject(f"the state does not fit: it has {len(saved)} schedules, this one {len(self.parts)}")
        for part, one in zip(self.parts, saved, strict=True):
            part._fit(one)


class SequentialLR(_Composed):
    """One schedule after the other; each starts anew, from t = 0 and the initial rates, at its milestone.

    The usual example, five epochs of warm-up and a cosine after it:

        warmup = LinearLR(optimizer, 0.1, total_iters=5)
        cosine = CosineAnnealingLR(optimizer, T_max=95)
        schedule = SequentialLR(optimizer, [warmup, cosine], milestones=[5])

    Args:
        optimizer: the parts' own.
        schedulers: the parts, in order.
        milestones: t at which the next part takes over, one less than there are parts.

    Raises:
        TypeError, ValueError: parts that do not belong together.

    >>> from tinycnn import Linear, optim
    >>> optimizer = optim.SGD(Linear(3, 2).parameters(), lr=8.0)
    >>> parts = [optim.LinearLR(optimizer, 0.25, total_iters=3), optim.CosineAnnealingLR(optimizer, T_max=2)]
    >>> schedule, seen = SequentialLR(optimizer, parts, milestones=[3]), []
    >>> for _ in range(6):
    ...     seen.append(round(optimizer.param_groups[0]["lr"], 6))
    ...     schedule.step()
    >>> seen
    [2.0, 4.0, 6.0, 8.0, 4.0, 0.0]
    """

    def __init__(self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int]) -> None:
        self._take(optimizer, schedulers)
        self.milestones = list(milestones)
        self._need(
            len(self.milestones) == len(self.parts) - 1,
            "milestones",
            f"have {len(self.parts) - 1} entries for {len(self.parts)} schedules",
            self.milestones,
        )
        self._need(self.milestones == sorted(self.milestones), "milestones", "be in increasing order", self.milestones)
        self.last_epoch = -1
        self.restart()

    def step(self) -> None:
        """Step the part whose turn it is; at a milestone, restart the next."""
        self.last_epoch += 1
        turn = bisect_right(self.milestones, self.last_epoch)
        part = self.parts[turn]
        if turn > 0 and self.milestones[turn - 1] == self.last_epoch:
            part.restart()
        else:
            part.step()
        self._last_lr = part.get_last_lr()


class ChainedScheduler(_Composed):
    """Several schedules at once: their factors multiply.

    Args:
        schedulers: the parts, stepped in this order.  One that sets lr (`LambdaLR`, `CosineAnnealingWarmRestarts`,
            `OneCycleLR`) overrides those before it.
        optimizer: the parts' own; taken from the first of them if absent.

    Raises:
        TypeError, ValueError: parts that do not belong together.

    >>> from tinycnn import Linear, optim
    >>> optimizer = optim.SGD(Linear(3, 2).parameters(), lr=8.0)
    >>> parts = [optim.ConstantLR(optimizer, 0.25, total_iters=1), optim.ExponentialLR(optimizer, 0.5)]
    >>> schedule = ChainedScheduler(parts)
    >>> optimizer.param_groups[0]["lr"]  # 8·¼·1
    2.0
    >>> schedule.step()
    >>> optimizer.param_groups[0]["lr"]  # 8·1·½
    4.0
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        first = getattr(schedulers[0], "optimizer", None) if schedulers else None
        self._take(optimizer or first, schedulers)
        self.last_epoch = self.parts[0].last_epoch
        self._last_lr = self._rates()

    def step(self) -> None:
        """Step every part."""
        self.last_epoch += 1
        for part in self.parts:
            part.step()
        self._last_lr = self._rates()
