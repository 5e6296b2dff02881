"""The learning-rate range test: which learning rates a network can be trained with, found in a hundred steps.

lr grows by the same factor from step to step, over many powers of ten, while the loss is looked at.  At first it hardly
moves: the steps are too small to matter.  Then it falls, ever faster; then it rises, and the training diverges.  Rates
worth trying are those where it falls fastest, and up to about a third of the one where it is least.

==========  ================================================================================
i = 0 … T   steps;  lr_i = lowest·(highest/lowest)^(i/T)
L_i         loss of batch i, before its update
β           smoothing
==========  ================================================================================

Losses of single batches scatter, so their running mean is looked at, with the correction for its start that Adam has::

    m_i = β·m_{i−1} + (1 − β)·L_i,   m_{−1} = 0        s_i = m_i / (1 − β^{i+1})

The test ends when s_i is more than a few times the least so far, or not finite.  The suggestion is where s falls
fastest over log lr, before its minimum.  It is a hint, for this batch size, optimizer and state of the network: look at
the plot.

Cost: that many training steps.  Afterwards the network, the optimizer and all random streams are what they were.

Sources: Smith 2017, "Cyclical learning rates for training neural networks", section 3.3 (there in a straight line).
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..backend import Array
from ..files import write_bytes
from ..layers.base import Layer
from ..layers.watch import restored
from ..optim import Optimizer
from .batches import AnyBatches, Batch, Batches, as_batches
from .captured import CapturedStep
from .step import Loss

SKIPPED = 5
"""Points at the beginning in which a running mean is still of few losses, and nothing is suggested."""


@dataclass(frozen=True)
class LRRange:
    """What a range test has found.

    Attributes:
        lrs: learning rate of each step.
        losses: of its batch.
        smoothed: their running means.
        suggestion: the rate at which the loss fell fastest; None if it never fell.
        diverged: whether the test ended early.
    """

    lrs: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None
    diverged: bool

    def plot(self, path: str | Path) -> None:
        """Draw loss against learning rate to a PNG file.

        Raises:
            ImportError: matplotlib, the ``plot`` extra, is not there.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 3.6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(self.lrs, self.losses, color="#c0c0c0", linewidth=0.8, label="batches")
        axes.plot(self.lrs, self.smoothed, color="#1f5fa8", label="running mean")
        if self.suggestion is not None:
            axes.axvline(self.suggestion, color="#8a8a8a", linestyle=":", label=f"falls fastest: {self.suggestion:.1e}")
        finite = [value for value in (*self.losses, *self.smoothed) if math.isfinite(value)]
        if finite:
            low, high = min(finite), min(max(finite), 2 * max(self.smoothed[0], self.losses[0]))
            axes.set_ylim(low - 0.05 * abs(high - low) - 1e-12, high + 0.05 * abs(high - low) + 1e-12)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        axes.set_ylabel("loss")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=150)
        write_bytes(Path(path), picture.getvalue())


def lr_range_test(
    model: Layer,
    optimizer: Optimizer,
    loss_fn: Loss,
    loader: AnyBatches,
    lowest: float = 1e-6,
    highest: float = 10.0,
    steps: int = 100,
    *,
    smoothing: float = 0.9,
    divergence: float = 4.0,
    clip_norm: float | None = None,
    precision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LRRange:
    """Train a few steps with a growing learning rate, and put everything back.

    Args:
        model, optimizer, loss_fn: what is to be trained; several groups keep the ratios of their rates.
        loader: of the training batches; its epochs are taken one after the other.
        lowest, highest: learning rates of the first group.
        steps: how many, at most.
        smoothing: β.
        divergence: end when the running mean is more than so many times the least.
        clip_norm, precision: as in training.
        progress: called with (steps done, steps at most) after each.

    Returns:
        See `LRRange`.

    Raises:
        ValueError: an argument out of range, or no batches.

    >>> from tinycnn import CrossEntropyLoss, Linear, optim
    >>> rng = np.random.default_rng(0)
    >>> batch = rng.normal(size=(8, 4)).astype(np.float32), rng.integers(0, 3, 8)
    >>> model = Linear(4, 3, rng=rng)
    >>> found = lr_range_test(model, optim.SGD(model.parameters()), CrossEntropyLoss(), [batch], highest=1000, steps=60)
    >>> found.lrs[0], 1 < found.suggestion < 20, found.diverged
    (1e-06, True, True)
    """
    for ok, words in (
        (0 < lowest < highest < math.inf, f"lowest must lie between 0 and highest, got {lowest} and {highest}"),
        (steps >= 2, f"steps must be at least 2, got {steps}"),
        (0 <= smoothing < 1, f"smoothing must be at least 0 and less than 1, got {smoothing}"),
        (divergence > 1, f"divergence must be greater than 1, got {divergence}"),
    ):
        if not ok:
            raise ValueError(f"lr_range_test: {words}")
    lrs = [lowest * (highest / lowest) ** (i / (steps - 1)) for i in range(steps)]
    losses: list[float] = []
    smoothed: list[float] = []
    with _put_back(model, optimizer):
        step = CapturedStep(model, optimizer, loss_fn, clip_norm=clip_norm, graph=False, precision=precision)
        rates = [group["lr"] for group in optimizer.param_groups]
        model.train()
        for lr, (x, y) in zip(lrs, _forever(as_batches(loader)), strict=False):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * (rate / rates[0])
            losses.append(float(step.run(x, y)[0]))
            smoothed = running_means(losses, smoothing)
            if progress is not None:
                progress(len(losses), steps)
            if not math.isfinite(losses[-1]) or smoothed[-1] > divergence * min(smoothed):
                break
    if not losses:
        raise ValueError("lr_range_test: the loader has no batches")
    lrs, diverged = lrs[: len(losses)], len(losses) < steps or not math.isfinite(losses[-1])
    return LRRange(tuple(lrs), tuple(losses), tuple(smoothed), suggest(lrs, smoothed), diverged)


def running_means(losses: list[float], beta: float) -> list[float]:
    """Return s of the module docstring, for every loss.

    >>> running_means([3.0, 3.0, 6.0], 0.5)
    [3.0, 3.0, 4.714285714285714]
    """
    means, m = [], 0.0
    for i, loss in enumerate(losses, start=1):
        m = beta * m + (1 - beta) * loss
        means.append(m / (1 - beta**i))
    return means


def suggest(lrs: list[float], smoothed: list[float]) -> float | None:
    """Return where the running mean falls fastest over log lr, before its minimum; None if it never falls."""
    finite = np.array([value for value in smoothed if math.isfinite(value)])
    least = int(finite.argmin()) if len(finite) else 0
    first = min(SKIPPED, least // 2)
    if least - first < 2:
        return None
    slopes = np.gradient(finite[first : least + 1], np.log(lrs[first : least + 1]))
    return float(lrs[first + int(slopes.argmin())]) if slopes.min() < 0 else None


def _forever(loader: Batches) -> Iterator[Batch]:
    """Yield the batches of one epoch after the other."""
    epoch = 0
    while len(loader) > 0:
        yield from loader.epoch(epoch)
        epoch += 1


@contextlib.contextmanager
def _put_back(model: Layer, optimizer: Optimizer) -> Iterator[None]:
    """Bring parameters, gradients, buffers, modes, random streams and the optimizer back in the end."""
    parameters = list({id(p): p for p in (*model.parameters(), *optimizer.flat.parameters)}.values())
    values: list[Array] = [p.data.copy() for p in parameters]
    gradients: list[Array | None] = [None if p.is_clear else p.grad.copy() for p in parameters]
    state, saved = optimizer.state_dict(), [(layer, layer._saved) for layer in model.layers()]
    quiet = np.errstate(over="ignore", invalid="ignore", divide="ignore")
    try:
        with restored(model), quiet:
            yield
    finally:
        for p, value, gradient in zip(parameters, values, gradients, strict=True):
            p.data[...] = value
            if gradient is None:
                p.zero_grad()
            else:
                p.grad[...] = gradient
        optimizer.load_state_dict(state)
        for layer, arrays in saved:
            layer._saved = arrays
