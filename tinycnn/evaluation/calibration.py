"""Does a network that is 80 % sure tell 80 % of such images right?

**Reliability.**  Images are sorted into M bins by confidence, the probability c of the class believed in: bin m has
those with (m − 1)/M < c ≤ m/M.  In a bin of n_m images the mean confidence should be the accuracy.  How far they are
apart, on average over the images, is the *expected calibration error*::

    ECE = Σ_m n_m/N·|accuracy_m − confidence_m|

Modern networks are mostly too sure: trained to a loss of almost 0 on the training images, they say 99 % where 93 % are
right.  Where few images are in a bin its accuracy is luck, and ECE, a sum of absolute values, is above 0 by luck alone.

**Temperature.**  Dividing all logits by one number T > 0 changes how sure the network is, and never what it believes
in: p′ ∝ exp(z/T) ∝ p^(1/T), so probabilities are all it takes.  T is chosen for the least loss on images that neither
training nor the report has seen (the validation images).  With β = 1/T and z = log p, up to a constant::

    L(β)  = mean_i (log Σ_k exp(β·z_k) − β·z_y)
    L′(β) = mean_i (Σ_k q_k·z_k − z_y),     q = softmax(β·z)
    L″(β) = mean_i Var_q(z)  ≥ 0

L is convex, so L′ changes its sign once, and halving finds where.

Source: Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks", sections 2 and 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

COLDEST, HOTTEST = 0.01, 100.0
"""Temperatures beyond are no more than all or nothing."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Confidence and accuracy by bins of confidence; both are 0 in a bin without images.

    Attributes:
        edges: (M + 1,), of the bins.
        counts: int64 (M,), images in each.
        confidence, accuracy: (M,), means in each.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error."""
        return float(self.counts @ np.abs(self.accuracy - self.confidence) / self.counts.sum())

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        arrays = {name: getattr(self, name).tolist() for name in ("edges", "counts", "confidence", "accuracy")}
        return {"error": self.error, **arrays}


def reliability(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> Calibration:
    """Return how often answers are right, by how sure they were.

    Args:
        confidence: (N,), between 0 and 1.
        correct: bool (N,).
        bins: M, of equal width.

    Raises:
        ValueError: fewer than one bin.

    >>> reliability(np.array([0.9, 0.9, 0.9, 0.6]), np.array([True, True, False, True]), bins=2).counts.tolist()
    [0, 4]
    """
    if bins < 1:
        raise ValueError(f"calibration needs at least one bin, got {bins}")
    edges = np.linspace(0, 1, bins + 1)
    m = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts, sure, right = (np.bincount(m, w, bins) for w in (np.ones(len(m)), confidence, correct))
    n = np.maximum(counts, 1)
    return Calibration(edges, counts.astype(np.int64), sure / n, right / n)


def sharpened(probabilities: np.ndarray, beta: float) -> np.ndarray:
    """Return p^β, each row divided by its sum, for β > 0."""
    # the largest of a row becomes 1: no power overflows, and the sum is no 0
    powers = (probabilities / probabilities.max(axis=1, keepdims=True)) ** beta
    return powers / powers.sum(axis=1, keepdims=True)


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the T of least loss for `Predictions.at_temperature`, between `COLDEST` and `HOTTEST`.

    Args:
        probabilities: (N, K), of images that were not trained on.
        labels: (N,).

    >>> fit_temperature(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])) > 1  # 90 % sure, 75 % right
    True
    """
    with np.errstate(divide="ignore"):
        z = np.maximum(np.log(probabilities), -1e4)  # log 0: the network excludes it, at any temperature above 1
    true = z[np.arange(len(z)), labels]

    def slope(log_beta: float) -> float:
        q = sharpened(probabilities, float(np.exp(log_beta)))
        return float(((q * z).sum(axis=1) - true).mean())

    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(60):  # halvings of ln 10⁴: to the last bit
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return float(np.exp(-(low + high) / 2))
