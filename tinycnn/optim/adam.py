"""Adam and its relatives: momentum on the gradient, divided by the root of a mean of its squares.

Letters, in all of them: p parameter, g gradient, m first moment (a running mean of g), v second moment (of g²),
β1 and β2 how much of each is kept, t update (from 1), λ weight decay.

m and v start at 0 and after t updates hold only 1 − β^t of what they should: dividing by that corrects them.
Losing t when training resumes would correct them once more, with steps many times too large or too small; it is
therefore part of the state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ..backend import array_module
from .base import Optimizer, Past, Scalars
from .groups import Group
from .vectors import Stretch, add_square, lerp

Betas = tuple[float, float]


class Adam(Optimizer):
    """Adaptive moment estimation: every parameter moves by about lr per step, whatever the scale of its gradient.

        g ← g + λ·p                         (decoupled_weight_decay: p ← p·(1 − lr·λ) instead)
        m ← β1·m + (1 − β1)·g
        v ← β2·v + (1 − β2)·g²
        p ← p − lr · m/(1 − β1^t) / (√v/√(1 − β2^t) + ε)

    The last line is computed as lr'·m/(√v + ε'), with lr' = lr·√(1 − β2^t)/(1 − β1^t) and ε' = ε·√(1 − β2^t): the
    same number with one division fewer per parameter (the paper's own remark below algorithm 1, with ε kept
    where algorithm 1 has it; TensorFlow does not rescale ε).  With ``amsgrad`` the largest v so far takes
    v's place; like PyTorch's it is the largest before the correction, which the paper leaves out.

    Weight decay here is the gradient of λ/2·‖p‖²; it goes through m and v, so that parameters with large gradients
    hardly decay.  `AdamW` keeps it apart.

    State: m and v, two numbers per parameter (amsgrad: three), and t.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        betas: β1 and β2.
        eps: ε, outside the root.
        weight_decay: λ.
        amsgrad: never let the denominator shrink.
        decoupled_weight_decay: `AdamW`'s decay.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Kingma & Ba 2015, "Adam: a method for stochastic optimization", algorithm 1; Reddi et al. 2018, "On the
    convergence of Adam and beyond", algorithm 2 (AMSGrad).

    >>> import numpy as np
    >>> from tinycnn import Parameter
    >>> p = Parameter(np.array([1.0, 1.0]))
    >>> p.grad[:] = 0.001, 1000
    >>> Adam([p], lr=0.1).step()
    >>> p.data.round(4)  # the first step is lr, whatever the gradient
    array([0.9, 0.9])
    """

    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
    kernel = "adam"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "amsgrad": amsgrad,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    def slots_of(self, group: Group) -> tuple[str, ...]:
        """Return m and v, and the largest v with amsgrad."""
        return self.slots if group["amsgrad"] else self.slots[:2]

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr', ε', 1 − β1, β2, 1 − β2, and whether the largest v is kept."""
        beta1, beta2 = group["betas"]
        root = math.sqrt(1 - beta2 ** past["step"])
        lr = group["lr"] * root / (1 - beta1 ** past["step"])
        return lr, group["eps"] * root, 1 - beta1, beta2, 1 - beta2, group["amsgrad"]

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp, amsgrad = array_module(self.flat.data), group["amsgrad"]
        lr, eps, of_m, keep_v, of_v, _ = self.numbers(*self.scalars(group, past))
        for p, g, m, v, *largest, a in parts:
            lerp(m, g, of_m, a)
            add_square(v, g, keep_v, of_v, a)
            if amsgrad:
                v = xp.maximum(largest[0], v, out=largest[0])
            # p ← p − lr'·m/(√v + ε')
            xp.sqrt(v, out=a)
            a += eps
            xp.divide(m, a, out=a)
            a *= lr
            p -= a


class AdamW(Adam):
    """Adam with weight decay kept apart from the gradient: p ← p·(1 − lr·λ), then Adam's step without λ.

    Every parameter then decays at the same rate, whatever its gradients, and lr and λ can be tuned more nearly
    independently.  The decay is multiplied by lr, as in PyTorch: it shrinks with the schedule.  The paper has
    λ·η_t instead, with a schedule η_t but no lr, so that its λ is 1/lr times smaller for the same decay.

    Args:
        params, lr, betas, eps, amsgrad: as for `Adam`.
        weight_decay: λ.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Loshchilov & Hutter 2019, "Decoupled weight decay regularization", algorithm 2.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=True)


class Adamax(Optimizer):
    """Adam with the largest recent gradient in place of the root mean square.

        g ← g + λ·p
        m ← β1·m + (1 − β1)·g
        u ← max(β2·u, |g| + ε)
        p ← p − lr/(1 − β1^t) · m/u

    u needs no correction for its start: a maximum is right from the first gradient on.  The paper has no ε.

    State: m and u, two numbers per parameter, and t.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        betas: β1 and β2.
        eps: ε, which keeps u off 0.
        weight_decay: λ.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Kingma & Ba 2015, algorithm 2.
    """

    slots = ("exp_avg", "exp_inf")
    kernel = "adamax"

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return lr/(1 − β1^t), ε, 1 − β1 and β2."""
        beta1, beta2 = group["betas"]
        return group["lr"] / (1 - beta1 ** past["step"]), group["eps"], 1 - beta1, beta2

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        lr, eps, of_m, keep_u = self.numbers(*self.scalars(group, past))
        for p, g, m, u, a in parts:
            lerp(m, g, of_m, a)
            # u ← max(β2·u, |g| + ε)
            xp.absolute(g, out=a)
            a += eps
            u *= keep_u
            xp.maximum(u, a, out=u)
            # p ← p − lr/(1 − β1^t)·m/u
            xp.divide(m, u, out=a)
            a *= lr
            p -= a


class NAdam(Optimizer):
    """Adam with Nesterov's look ahead: the step uses the momentum of the *next* update.

        g ← g + λ·p                         (decoupled_weight_decay: p ← p·(1 − lr·λ) instead)
        μ_t = β1·(1 − ½·0.96^(t·ψ))         (momentum_decay ψ: a momentum that warms up from β1/2 to β1)
        Π_t = μ_1·…·μ_t
        m ← β1·m + (1 − β1)·g
        v ← β2·v + (1 − β2)·g²
        p ← p − lr·[(1 − μ_t)/(1 − Π_t)·g + μ_{t+1}/(1 − Π_{t+1})·m] / (√(v/(1 − β2^t)) + ε)

    The paper lets m itself decay by μ_t; PyTorch, and so this, by β1.

    State: m and v, two numbers per parameter, t and Π_t.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        betas: β1 and β2.
        eps: ε.
        weight_decay: λ.
        momentum_decay: ψ.
        decoupled_weight_decay: `AdamW`'s decay.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Dozat 2016, "Incorporating Nesterov momentum into Adam", algorithm 2.
    """

    slots = ("exp_avg", "exp_avg_sq")
    kernel = "nadam"
    work = ("a", "b")
    new_past: ClassVar[Mapping[str, Any]] = {"step": 0, "mu_product": 1.0}

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "momentum_decay": momentum_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    @staticmethod
    def _mu(group: Group, t: int) -> float:
        return group["betas"][0] * (1 - 0.5 * 0.96 ** (t * group["momentum_decay"]))

    def advance(self, group: Group, past: Past) -> None:
        """Count the update, and multiply μ_t into Π."""
        past["step"] += 1
        past["mu_product"] *= self._mu(group, past["step"])

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return the factors of g and of m in the step, ε', 1 − β1, β2 and 1 − β2."""
        t, (beta1, beta2), lr = past["step"], group["betas"], group["lr"]
        mu, next_mu, product = self._mu(group, t), self._mu(group, t + 1), past["mu_product"]
        root = math.sqrt(1 - beta2**t)
        now, ahead = lr * root * (1 - mu) / (1 - product), lr * root * next_mu / (1 - product * next_mu)
        return now, ahead, group["eps"] * root, 1 - beta1, beta2, 1 - beta2

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        now, ahead, eps, of_m, keep_v, of_v = self.numbers(*self.scalars(group, past))
        for p, g, m, v, a, b in parts:
            lerp(m, g, of_m, a)
            add_square(v, g, keep_v, of_v, a)
            # a = lr'·[(1 − μ_t)/(1 − Π_t)·g + μ_{t+1}/(1 − Π_{t+1})·m]
            xp.multiply(g, now, out=a)
            xp.multiply(m, ahead, out=b)
            a += b
            # p ← p − a/(√v + ε')
            xp.sqrt(v, out=b)
            b += eps
            a /= b
            p -= a


class RAdam(Optimizer):
    """Adam that starts as momentum and divides by √v only once v can be trusted: a warm-up with a reason.

    After few updates v is an average of few squares, and 1/√v varies wildly.  ρ_t counts how many it is worth,
    r_t shrinks the step by what the variance calls for.

        g ← g + λ·p                         (decoupled_weight_decay: p ← p·(1 − lr·λ) instead)
        m ← β1·m + (1 − β1)·g
        v ← β2·v + (1 − β2)·g²
        ρ_∞ = 2/(1 − β2) − 1
        ρ_t = ρ_∞ − 2t·β2^t/(1 − β2^t)
        r_t = √[(ρ_t − 4)(ρ_t − 2)ρ_∞ / ((ρ_∞ − 4)(ρ_∞ − 2)ρ_t)]
        p ← p − lr·m/(1 − β1^t) · r_t·√(1 − β2^t)/(√v + ε)      if ρ_t > 5
        p ← p − lr·m/(1 − β1^t)                                 otherwise

    The paper's bound is 4, where r_t is 0; 5, as in PyTorch, is its authors' code.  With β2 = 0.999 the
    first five steps are the plain ones, and as long as the gradients, not as lr.

    State: m and v, two numbers per parameter, and t.

    Args:
        params: parameters in an order, or groups.
        lr: learning rate.
        betas: β1 and β2.
        eps: ε, added to √v before its correction, unlike Adam's.
        weight_decay: λ.
        decoupled_weight_decay: `AdamW`'s decay.

    Raises:
        ValueError: a hyper-parameter out of range.

    Sources: Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2.
    """

    slots = ("exp_avg", "exp_avg_sq")
    kernel = "radam"

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: Betas = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )

    @staticmethod
    def _rectification(beta2: float, t: int) -> float | None:
        """Return r_t, or None while v cannot be trusted."""
        rho_inf = 2 / (1 - beta2) - 1
        rho = rho_inf - 2 * t * beta2**t / (1 - beta2**t)
        if rho <= 5:
            return None
        return math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))

    def scalars(self, group: Group, past: Past) -> Scalars:
        """Return all that stands before m in the step, ε, 1 − β1, β2, 1 − β2, and whether to divide by √v."""
        t, (beta1, beta2) = past["step"], group["betas"]
        lr, r = group["lr"] / (1 - beta1**t), self._rectification(beta2, t)
        if r is not None:
            lr *= r * math.sqrt(1 - beta2**t)
        return lr, group["eps"], 1 - beta1, beta2, 1 - beta2, r is not None

    def update(self, parts: Iterator[Stretch], group: Group, past: Past) -> None:
        """Apply the equations of the class."""
        xp = array_module(self.flat.data)
        *values, rectified = self.scalars(group, past)
        lr, eps, of_m, keep_v, of_v = self.numbers(*values)
        for p, g, m, v, a in parts:
            lerp(m, g, of_m, a)
            add_square(v, g, keep_v, of_v, a)
            if rectified:
                xp.sqrt(v, out=a)
                a += eps
                xp.divide(m, a, out=a)
                a *= lr
            else:
                xp.multiply(m, lr, out=a)
            p -= a
