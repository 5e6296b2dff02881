"""The statistics of batch normalisation, taken exactly from a pass over the training images.

The running averages that training leaves behind are of the last few dozen batches, with weights that still moved.  For
a network that has come to rest they can be replaced by what they stand for: mean and variance of every channel over the
whole training set.

=============  ==========================================================================
b = 1 … B      batches of the pass
M_b            values of a channel in batch b: images times pixels;  M = Σ M_b
μ_b, v_b       mean and biased variance of the channel in batch b
μ, v           mean and biased variance over all of them
=============  ==========================================================================

A mean of batches' means is the mean of all, if each counts as much as it has values.  A mean of batches' variances is
not the variance of all: it lacks how the batches' means scatter.  Both together::

    μ = Σ M_b·μ_b / M
    v = Σ M_b·(v_b + (μ_b − μ)²) / M

Batch by batch, with n values seen so far and δ = μ_b − μ::

    μ ← μ + δ·M_b/(n + M_b)
    S ← S + M_b·v_b + δ²·n·M_b/(n + M_b)             v = S/M

in which nothing large is subtracted from anything large.  All in float64; the layer keeps μ and, as ever, the unbiased
variance v·M/(M − 1).

**What the layer sees** depends on how the layers before it normalise.  In this pass every one takes the statistics of
its batch, as it did in training; that is what He et al. averaged, and takes one pass.  (With the exact statistics of
the layers before, layer after layer, the numbers would differ by the scatter of batches' statistics, and it would take
as many passes as there are layers.)  Use batches of the size trained with, or larger.

All other layers work as in evaluation, which the statistics are for: dropout and stochastic depth drop nothing.  Frozen
layers keep their statistics.  So do those that an evaluation does not reach, in auxiliary heads.

Sources: Ioffe & Szegedy 2015, "Batch normalization", algorithm 2 (population statistics); He et al. 2016, "Deep
residual learning for image recognition" (whose released models have statistics computed on the training set, after
training); Chan, Golub & LeVeque 1979 (the update of S).
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module
from ..layers.base import Layer
from ..layers.batchnorm import BatchNorm2d, measure_channels
from ..layers.watch import restored, watched
from .batches import AnyBatches, as_batches


class Population:
    """Mean and variance of channels over everything that was added.

    Args:
        like: (C,), an array where the statistics are.
    """

    def __init__(self, like: Array) -> None:
        xp = array_module(like)
        self.count = 0
        self.mean, self._squares = xp.zeros(len(like), np.float64), xp.zeros(len(like), np.float64)

    def add(self, mean: Array, var: Array, count: int) -> None:
        """Add ``count`` values of each channel with this mean and biased variance."""
        off, total = mean - self.mean, self.count + count
        self.mean += off * (count / total)
        self._squares += var * count + off**2 * (self.count * count / total)
        self.count = total

    @property
    def unbiased(self) -> Array:
        """The unbiased variance."""
        return self._squares / max(self.count - 1, 1)


def recompute_statistics(model: Layer, loader: AnyBatches) -> None:
    """Replace the running statistics of every `BatchNorm2d` by those of the batches of an epoch.

        with ema.averaged():  # those of the averaged network
            recompute_statistics(model, loader)

    Modes, random streams and numbers of batches seen are left as they were.

    Args:
        model: the network.
        loader: of the training batches, augmented as in training; its epoch 0 is taken.

    Raises:
        ValueError: there is no batch, or a statistic is infinite or not a number.
        LayerError: a batch with a single value per channel.
    """
    layers = [
        layer
        for layer in model.layers()
        if isinstance(layer, BatchNorm2d) and layer.track_running_stats and not layer.frozen
    ]
    seen: dict[BatchNorm2d, Population] = {}

    def note(layer: Layer, x: Array, y: Array) -> None:
        if layer in layers:
            assert isinstance(layer, BatchNorm2d)
            _, (_, mean, var) = measure_channels(x)  # in float64; the running ones are rounded
            seen.setdefault(layer, Population(mean)).add(mean, var, x.size // len(mean))

    with restored(model), watched(model, note):
        model.eval()
        for layer in layers:
            layer.training = True
        for x, _ in as_batches(loader).epoch(0):
            model.forward(x)
    _put(seen, bool(layers))


def _put(seen: dict[BatchNorm2d, Population], wanted: bool) -> None:
    """Write the statistics, if all of them can be used."""
    if wanted and not seen:
        raise ValueError("recompute_statistics: there was no batch to take statistics of")
    for layer, found in seen.items():
        if not bool(array_module(found.mean).isfinite(found.mean + found.unbiased).all()):
            raise ValueError(
                f"recompute_statistics: the statistics of {layer} are not finite: look for where that begins"
            )
    for layer, found in seen.items():
        layer.running_mean[...], layer.running_var[...] = found.mean, found.unbiased
