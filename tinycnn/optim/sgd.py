"""Stochastic gradient descent, with momentum and Nesterov's variant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..backend import array_module
from .base import Optimizer, Past, Scalars
from .groups import Group
from .vectors import Stretch


class SGD(Optimizer):
    """Go downhill; with momentum, keep some of the speed of the steps before.

    Letters: p parameter, g gradient dL/dp, v velocity, μ momentum, τ dampening, λ weight decay.

        g ← g + λ·p
        v ← μ·v + (1 − τ)·g         (the first time v ← g)
        d = v                       (nesterov: d = g + μ·v;  without momentum: d = g)
        p ← p − lr·d

    The learning rate stands outside the velocity, as in PyTorch.  Caffe, Chainer, Keras and the papers
    below put it inside, v ← μ·v + lr·g; p ← p − v.  While lr is constant that is the same path.  After lr drops
    to a tenth, the velocity here is a tenth at once; there it still carries the large steps for about 1/(1 − μ)
    updates, and after a warm-up it lags likewise.

    Nesterov's method takes the gradient where the momentum is about to carry p.  As usual in deep learning the
    stored p *is* that point, so that the gradient is taken where the network stands.

    Cost: with momentum two reads and writes of v and p and one read of g per update; state: v, one number per
    parameter, and none without momentum.

    Args:
        params: parameters in an order, or groups ``{"params": …, "lr": …}``.
        lr: learning rate.
        momentum: μ.
        dampening: τ.
        weight_decay: λ.
        nesterov: look ahead; needs momentum > 0 and dampening = 0.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Polyak 1964 (momentum); Sutskever et al. 2013, "On the importance of initialization and momentum in
    deep learning", eq. 1-2 (momentum) and 3-4 (Nesterov).

    >>> import numpy as np
    >>> from tinycnn.parameter import Parameter
    >>> p = Parameter(np.array([1.0, 2.0]))
    >>> optimizer = SGD([p], lr=0.1, momentum=0.9)
    >>> for _ in range(2):
    ...     p.grad[:] = 1
    ...     optimizer.step()
    >>> p.data.round(6)  # 1 - 0.1·1 - 0.1·(0.9 + 1)
    array([0.71, 1.71])
    """

    slots = ("velocity",)
    kernel = "sgd"
    # PyTorch starts a velocity with the gradient, undamped, when it is first needed: "pushes" counts its updates.
    new_past: ClassVar[Mapping[str, Any]] = {"step": 0, "pushes": 0}

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "weight_decay": weight_decay,
                "nesterov": nesterov,
            },
        )

    def check(self, values: Mapping[str, Any]) -> None:
        """Raise ValueError if a hyper-parameter is out of range, or nesterov lacks its momentum."""
        super().check(values)
        if values["nesterov"] and (values["momentum"] == 0 or values["dampening"] != 0):
            raise ValueError(
                f"SGD: nesterov needs momentum > 0 and dampening 0, "
                f"got momentum {values['momentum']} and dampening {values['dampening']}"
            )

    def slots_of(self, group: Group) -> tuple[str, ...]:
        """Return the velocity, if there is momentum."""
        return self.slots if group["momentum"] else ()

    def advance(self, group: Group, past: Past) -> None:
        """Count the update, and whether it pushes the velocity."""
        past["step"] += 1
        past["pushes"] += bool(group["momentum"])

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr, μ, how much of g comes into v, and whether to look ahead."""
        share = 1 if past["pushes"] == 1 else 1 - group["dampening"]
        return group["lr"], group["momentum"], share, group["nesterov"]

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        first, nesterov, plain = past["pushes"] == 1, group["nesterov"], group["dampening"] == 0
        lr, mu, share, _ = self.numbers(*self.scalars(group, past))
        if not group["momentum"]:
            for p, g, a in parts:
                # p ← p − lr·g
                xp.multiply(g, lr, out=a)
                p -= a
            return
        for p, g, v, a in parts:
            # v ← μ·v + (1 − τ)·g
            if first:
                v[...] = g
            else:
                v *= mu
                v += g if plain else xp.multiply(g, share, out=a)
            if nesterov:
                # p ← p − lr·(g + μ·v)
                xp.multiply(v, mu, out=a)
                a += g
                a *= lr
            else:
                # p ← p − lr·v
                xp.multiply(v, lr, out=a)
            p -= a
