"""A training step: how the network answers, how wrong that is, which way every weight should move, and the move.

**Accumulation.**  A batch too large for the memory goes through in k parts.  The loss of a part is a mean over its nᵢ
examples, that of the whole a mean over all N = Σ nᵢ, and so::

    L = Σᵢ nᵢ/N · Lᵢ        ∂L/∂w = n₁/N · Σᵢ nᵢ/n₁ · ∂Lᵢ/∂w

Backward adds to the gradients anyway: each part adds nᵢ/n₁ times its own, 1 for all but an odd one, and before the
update the sum is multiplied by n₁/N, when N is known.  That is the gradient of the one large batch, to rounding, where
the examples of a batch do not see each other: batch normalisation takes its statistics of each part, and dropout draws
for each.  Clipping, loss scaling, averages and schedules have to do with updates, not with parts.

Source: Goyal et al. 2017, "Accurate, large minibatch SGD", section 3 (which means, of what).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ..backend import CPU, Array, array_module, device_of, half_dtype, to_numpy
from ..kernels import precision as products
from ..layers.base import Layer
from ..losses.auxiliary import each_output, scores_of
from ..optim import EMA, GradScaler, Optimizer, clip_grad_norm_
from ..parameter import Parameter

Loss: TypeAlias = Callable[[Array, Array], tuple[Array, Array]]
"""``loss, dlogits = loss_fn(logits, targets)``, the loss being a mean over the batch.  With auxiliary heads logits and
dlogits are tuples in training: see `tinycnn.AuxiliaryLoss`."""
Results: TypeAlias = tuple[Array, Array]
"""(loss, logits), without those of auxiliary heads."""

PRECISIONS = ("float32", "tf32", "bf16", "fp16")
HALVES = {"bf16": "bfloat16", "fp16": "float16"}
"""Types of activations, by precision."""


def check_precision(name: str | None, like: Array) -> str | None:
    """Return ``name`` after checking that parameters like ``like`` can be trained in that precision.

    Raises:
        ValueError: they cannot.
    """
    if name is not None and name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r} (known: {', '.join(PRECISIONS)})")
    if name is not None and like.dtype != np.float32:
        raise ValueError(f"precision {name!r} is for float32 parameters, these are {like.dtype}")
    if name not in (None, "float32") and device_of(like) == CPU:
        raise ValueError(f"precision {name!r} is for networks on a GPU: move the model first, or use float32")
    return name


class Step:
    """The mathematics of a training step; `CapturedStep` is one, and says what the arguments are.

    Attributes:
        waiting: batches whose gradients wait for an update.
    """

    def __init__(
        self,
        model: Layer,
        optimizer: Optimizer,
        loss_fn: Loss,
        *,
        clip_norm: float | None = None,
        accumulate: int = 1,
        ema: EMA | None = None,
        then: Callable[[Array, Array, Array], None] | None = None,
        precision: str | None = None,
    ) -> None:
        if not accumulate >= 1:
            raise ValueError(f"accumulate must be at least 1, got {accumulate!r}")
        self.model, self.optimizer, self.loss_fn, self.clip_norm, self.then = model, optimizer, loss_fn, clip_norm, then
        self.accumulate, self.ema = int(accumulate), ema
        self.precision = check_precision(precision, optimizer.flat.data)
        self.scaler = GradScaler(optimizer) if precision == "fp16" else None
        self.waiting, self._examples, self._first = 0, 0, 0

    # ---- one batch -----------------------------------------------------------------------------------------

    def _learn(self, x: Array, y: Array, share: float, look: Callable[[Array], None] | None = None) -> Results:
        """Go forward and backward; the gradients, multiplied by ``share``, are added to those there are.

        Args:
            x, y: the batch.
            share: of this batch in its group, relative to the first.
            look: called with the loss, before backward.
        """
        half = self._half
        with self._products():
            outputs = self.model.forward(x if half is None else x.astype(half, copy=False))
            wide = outputs if half is None else each_output(lambda y: y.astype(np.float32), outputs)
            loss, gradients = self.loss_fn(wide, y)
            if look is not None:
                look(loss)
            if self.accumulate == 1:
                self._clear()
            if share != 1:
                gradients = each_output(lambda dy: dy * dy.dtype.type(share), gradients)
            if self.scaler is not None:
                gradients = each_output(self.scaler.scale, gradients)
            logits, dtype = scores_of(wide), scores_of(outputs).dtype
            self.model.backward(each_output(lambda dy: dy.astype(dtype, copy=False), gradients))
        return loss, logits

    def _finish(self, apply: Callable[[], None]) -> None:
        """Make the update of the gradients there are: ``apply`` is the optimizer's part of it, and the averages'."""
        if self.accumulate > 1:
            self._divide()
        if self.scaler is not None:
            self.scaler.unscale(math.inf if self.clip_norm is None else self.clip_norm)
        elif self.clip_norm is not None:
            clip_grad_norm_(self.model, self.clip_norm)
        apply()
        if self.scaler is not None:
            self.scaler.update()

    def _clear(self) -> None:
        self.model.zero_grad()
        self.optimizer.zero_grad()

    def _prepare(self) -> None:
        """Do the host's part of an update."""
        self.optimizer.prepare()
        if self.ema is not None:
            self.ema.prepare()

    def _apply(self) -> None:
        """Do the device's part of it."""
        self.optimizer.apply()
        if self.ema is not None:
            self.ema.apply()

    def _update(self) -> None:
        """Do both."""
        self.optimizer.step()  # which may be the optimizer's own
        if self.ema is not None:
            self.ema.update()

    def _products(self) -> contextlib.AbstractContextManager[None]:
        """Have products taken as the precision says."""
        name = "tf32" if self.precision == "tf32" else "float32" if self.precision else products.get_precision()
        return products.precision(name)

    @property
    def _half(self) -> np.dtype | None:
        """The type of activations in mixed precision."""
        name = HALVES.get(self.precision or "")
        return None if name is None else half_dtype(name)

    # ---- groups of batches ---------------------------------------------------------------------------------

    def _begin(self, examples: int) -> float:
        """Count a batch of so many examples; returns its share, and clears the gradients if it is a group's first."""
        if self.waiting == 0:
            self._first, self._examples = examples, 0
            self._clear()
            self.optimizer.flat.grad_memory.fill(0)  # now: a captured step adds to what there is
            for p in self.optimizer.flat.parameters:
                p.written()
            for p in self._others():
                p.write_zeros()
        self.waiting += 1
        self._examples += examples
        return examples / self._first

    def _divide(self) -> None:
        """Make the mean over all examples of the sum."""
        if (factor := self._first / self._examples) != 1:
            flat = self.optimizer.flat
            grad = flat.grad
            grad *= grad.dtype.type(factor)
            for p in self._others():
                p.grad *= p.dtype.type(factor)

    def _others(self) -> list[Parameter]:
        """Return the network's parameters that the optimizer has not."""
        own = {id(p) for p in self.optimizer.flat.parameters}
        return [p for p in self.model.parameters() if id(p) not in own]

    def state_dict(self) -> dict[str, Any] | None:
        """Return the gradients that wait for an update, as C-ordered NumPy copies, and what they are of; or None."""
        if self.waiting == 0:
            return None
        gradients = {name: np.array(to_numpy(p.grad), order="C") for name, p in self.model.named_parameters()}
        return {"waiting": self.waiting, "examples": self._examples, "first": self._first, "gradients": gradients}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on in the middle of a group, or at the beginning of one.

        Raises:
            ValueError: the state is of larger groups.
        """
        if state is None:
            self.waiting = 0
            return
        if state["waiting"] >= self.accumulate:
            raise ValueError(
                f"the gradients of {state['waiting']} batches wait for an update in this state, and accumulate is "
                f"{self.accumulate}: make the trainer with the accumulate that it was saved with"
            )
        for name, p in self.model.named_parameters():
            p.grad[...] = array_module(p.data).asarray(state["gradients"][name])
        self.waiting, self._examples, self._first = state["waiting"], state["examples"], state["first"]
