"""Step sizes adapted to each parameter by the squares of its gradients: Adagrad, RMSprop, Adadelta."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..backend import array_module
from .base import Optimizer, Past, Scalars
from .groups import Group
from .vectors import Stretch, add_square, lerp


class Adagrad(Optimizer):
    """Divide every step by the root of the sum of all squared gradients so far: rare features keep large steps.

    Letters: p parameter, g gradient, s sum of squares, t update (from 1), λ weight decay, η lr decay.

        g ← g + λ·p
        s ← s + g²                      (s starts at initial_accumulator_value)
        p ← p − lr/(1 + (t − 1)·η) · g/(√s + ε)

    Steps only ever shrink, which ends the learning of a deep network early: RMSprop and Adadelta forget instead.
    TensorFlow starts s at 0.1 and has ε = 1e-7.

    State: s, one number per parameter.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        lr_decay: η.
        weight_decay: λ.
        initial_accumulator_value: what s starts from.
        eps: ε, outside the root.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Duchi, Hazan & Singer 2011, "Adaptive subgradient methods", eq. 1 (with the diagonal of G).

    >>> import numpy as np
    >>> from tinycnn import Parameter
    >>> p = Parameter(np.array([1.0, 1.0]))
    >>> optimizer = Adagrad([p], lr=1.0)
    >>> for g in (3, 4):
    ...     p.grad[:] = g
    ...     optimizer.step()
    >>> p.data.round(6)  # 1 − 3/3 − 4/5
    array([-0.8, -0.8])
    """

    slots = ("sum",)
    kernel = "adagrad"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "lr_decay": lr_decay,
                "weight_decay": weight_decay,
                "initial_accumulator_value": initial_accumulator_value,
                "eps": eps,
            },
        )
        for group in self.param_groups:
            for run in self.flat.runs(group["params"]):
                self._slot("sum")[run] = group["initial_accumulator_value"]

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr/(1 + (t − 1)·η) and ε."""
        return group["lr"] / (1 + (past["step"] - 1) * group["lr_decay"]), group["eps"]

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        lr, eps = self.numbers(*self.scalars(group, past))
        for p, g, s, a in parts:
            # s ← s + g²
            s += xp.multiply(g, g, out=a)
            # p ← p − lr·g/(√s + ε)
            xp.sqrt(s, out=a)
            a += eps
            xp.divide(g, a, out=a)
            a *= lr
            p -= a


class RMSprop(Optimizer):
    """Divide every step by the root mean square of the recent gradients.

    Letters: p parameter, g gradient, s mean square, m mean, v velocity, α how much of the old means is kept,
    μ momentum, λ weight decay.

        g ← g + λ·p
        s ← α·s + (1 − α)·g²
        q = s                               (centered: m ← α·m + (1 − α)·g;  q = s − m², the variance)
        d = g/(√q + ε)
        v ← μ·v + d;  p ← p − lr·v          (without momentum: p ← p − lr·d)

    s starts at 0 and nothing corrects for that, so the first steps are up to 1/√(1 − α) times as large (10 for
    the default); Adam is RMSprop with momentum on g and that correction.  ε stands outside the root, as in
    PyTorch; TensorFlow and Graves put it inside.  Rounding can make the variance of a nearly constant gradient
    slightly negative; it is taken as 0 then, where PyTorch's root yields NaN.

    State: s, and m if centered, and v with momentum: one number each per parameter.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        alpha: α.
        eps: ε.
        weight_decay: λ.
        momentum: μ.
        centered: divide by the standard deviation instead of the root mean square.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Tieleman & Hinton 2012, Coursera "Neural Networks for Machine Learning", lecture 6.5; Graves 2013,
    "Generating sequences with recurrent neural networks", eq. 38-41 (centered).

    >>> import numpy as np
    >>> from tinycnn import Parameter
    >>> p = Parameter(np.array([1.0, 1.0]))
    >>> p.grad[:] = 3, -300
    >>> RMSprop([p], lr=0.1, alpha=0.75).step()
    >>> p.data.round(6)  # s = g²/4: twice lr
    array([0.8, 1.2])
    """

    slots = ("square_avg", "grad_avg", "velocity")
    kernel = "rmsprop"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "alpha": alpha,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum": momentum,
                "centered": centered,
            },
        )

    def slots_of(self, group: Group) -> tuple[str, ...]:
        """Return the mean square, the mean if centered, the velocity if there is momentum."""
        wanted = {"square_avg": True, "grad_avg": group["centered"], "velocity": group["momentum"] > 0}
        return tuple(slot for slot in self.slots if wanted[slot])

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr, ε, μ, α, 1 − α, and whether to centre."""
        return group["lr"], group["eps"], group["momentum"], group["alpha"], 1 - group["alpha"], group["centered"]

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp, centered, momentum = array_module(self.flat.data), group["centered"], group["momentum"] != 0
        lr, eps, mu, keep, share, _ = self.numbers(*self.scalars(group, past))
        for p, g, s, *means, a in parts:
            add_square(s, g, keep, share, a)
            if centered:
                # q = s − m²
                m = means[0]
                lerp(m, g, share, a)
                xp.multiply(m, m, out=a)
                xp.subtract(s, a, out=a)
                xp.maximum(a, 0, out=a)
                xp.sqrt(a, out=a)
            else:
                xp.sqrt(s, out=a)
            # d = g/(√q + ε)
            a += eps
            xp.divide(g, a, out=a)
            if momentum:
                # v ← μ·v + d; p ← p − lr·v
                v = means[-1]
                v *= mu
                v += a
                xp.multiply(v, lr, out=a)
            else:
                # p ← p − lr·d
                a *= lr
            p -= a


class Adadelta(Optimizer):
    """Scale every step by the size of recent steps over the size of recent gradients: no learning rate to tune.

    Letters: p parameter, g gradient, s mean square gradient, u mean square step, ρ how much of the old means is
    kept, λ weight decay; RMS[x] = √(x + ε).

        g ← g + λ·p
        s ← ρ·s + (1 − ρ)·g²
        d = RMS[u]/RMS[s] · g
        u ← ρ·u + (1 − ρ)·d²
        p ← p − lr·d

    d has the unit of p (a step over a gradient, times a gradient), which that of plain gradient descent has not.
    Progress starts from ε alone: u is 0 at first.  Zeiler has no lr, that is 1, the default; Keras has 0.001.

    State: s and u, two numbers per parameter.

    Args:
        params: parameters in an order, or groups.
        lr: factor on every step.
        rho: ρ.
        eps: ε, inside the roots.
        weight_decay: λ.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Zeiler 2012, "ADADELTA: an adaptive learning rate method", algorithm 1 and eq. 14.

    >>> import numpy as np
    >>> from tinycnn import Parameter
    >>> p = Parameter(np.array([1.0, 1.0]))
    >>> p.grad[:] = 4
    >>> Adadelta([p], rho=0.5, eps=1.0).step()
    >>> p.data.round(6)  # 1 − 4·√(1/9)
    array([-0.333333, -0.333333])
    """

    slots = ("square_avg", "acc_delta")
    kernel = "adadelta"
    work = ("a", "d")

    def __init__(
        self, params: Any, lr: float = 1.0, rho: float = 0.9, eps: float = 1e-6, weight_decay: float = 0
    ) -> None:
        super().__init__(params, {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay})

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr, ε, ρ and 1 − ρ."""
        return group["lr"], group["eps"], group["rho"], 1 - group["rho"]

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        lr, eps, keep, share = self.numbers(*self.scalars(group, past))
        for p, g, s, u, a, d in parts:
            add_square(s, g, keep, share, a)
            # d = √((u + ε)/(s + ε))·g
            xp.add(u, eps, out=d)
            xp.add(s, eps, out=a)
            d /= a
            xp.sqrt(d, out=d)
            d *= g
            add_square(u, d, keep, share, a)
            # p ← p − lr·d
            d *= lr
            p -= d
