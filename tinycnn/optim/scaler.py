"""Loss scaling: what float16 gradients need so as not to vanish."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backend import Array, array_module, to_numpy
from .base import Optimizer
from .clip import grad_factor


class GradScaler:
    """Scale the loss up before backward, and the gradients down as the optimizer reads them.

    A float16 number below 6·10⁻⁸ is 0, and gradients are often smaller.  The gradient of S·L is S times that of L, so a
    factor S on dL/dlogits carries all that backward computes into range.  Too large an S and something overflows: then
    the update is left out and S halved; after ``growth_interval`` updates without that S is doubled.  bfloat16 reaches
    as far as float32 and needs none of it.

        S ← S · backoff_factor, and no update,   if a gradient is infinite or not a number
        S ← S · growth_factor                    after every growth_interval updates in a row

    All of it happens on the GPU, so that it can be part of a captured step::

        optimizer.prepare()
        logits = model(x)
        loss, dlogits = loss_fn(logits.astype(np.float32), y)
        model.zero_grad()
        model.backward(scaler.scale(dlogits).astype(logits.dtype))
        scaler.unscale(max_norm=1.0)  # measures the gradients; the optimizer divides them by S, and clips
        optimizer.apply()
        scaler.update()

    Args:
        optimizer: over float32 parameters on a GPU.
        init_scale: S at first.
        growth_factor, backoff_factor, growth_interval: see above.

    Raises:
        ValueError: a number out of range, or an optimizer that has no `Optimizer.guard`.

    Sources: Micikevicius et al. 2018, "Mixed precision training", section 3.2; names and defaults are PyTorch's.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
    ) -> None:
        for ok, words in (
            (0 < init_scale < math.inf, f"init_scale must be greater than 0, got {init_scale!r}"),
            (growth_factor > 1, f"growth_factor must be greater than 1, got {growth_factor!r}"),
            (0 < backoff_factor < 1, f"backoff_factor must lie between 0 and 1, got {backoff_factor!r}"),
            (growth_interval >= 1, f"growth_interval must be at least 1, got {growth_interval!r}"),
        ):
            if not ok:
                raise ValueError(f"GradScaler: {words}")
        self.optimizer = optimizer
        self.growth_factor, self.backoff_factor, self.growth_interval = growth_factor, backoff_factor, growth_interval
        xp, dtype = array_module(optimizer.flat.data), optimizer.flat.data.dtype
        self._scale, self._inverse = xp.full(1, init_scale, dtype), xp.full(1, 1 / init_scale, dtype)
        self._factor = xp.full(1, 1 / init_scale, dtype)
        self._found_inf, self._good = xp.zeros(1, np.int32), xp.zeros(1, np.int32)
        optimizer.guard(self._factor, self._found_inf)

    def get_scale(self) -> float:
        """Return S; waits for the GPU."""
        return float(to_numpy(self._scale)[0])

    def scale(self, dlogits: Array) -> Array:
        """Return S·dlogits."""
        return dlogits * self._scale

    def unscale(self, max_norm: float = math.inf) -> Array:
        """Look at the gradients: what the optimizer will multiply them by, and whether it will update at all.

        Returns:
            The norm of the gradients without S, on the GPU.
        """
        return grad_factor(
            self.optimizer.flat, self._factor, self._found_inf, max_norm=max_norm, inv_scale=self._inverse
        )

    def update(self) -> None:
        """Move S, as the last `unscale` has it."""
        xp = array_module(self._scale)
        overflow = self._found_inf != 0
        good = xp.where(overflow, 0, self._good + 1)
        grows = good == self.growth_interval
        self._scale *= xp.where(overflow, self.backoff_factor, xp.where(grows, self.growth_factor, 1.0))
        self._good[...] = xp.where(grows, 0, good)
        self._inverse[...] = 1 / self._scale

    def state_dict(self) -> dict[str, Any]:
        """Return what it takes to go on with the same S."""
        return {"scale": self.get_scale(), "good": int(to_numpy(self._good)[0])}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a saved one stood."""
        self._scale[...], self._good[...] = state["scale"], state["good"]
        self._inverse[...] = 1 / self._scale
