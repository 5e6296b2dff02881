"""What a network believes of labelled images, and how good that is.

=======  ============================================================================================
N, K     images, classes
p        (N, K), probabilities: every row sums to 1
y        (N,), the labels;  ŷ = argmax p, the class believed in, the first of several
=======  ============================================================================================

Everything that is reported follows from p and y::

    accuracy        share of images with ŷ = y
    top-k           share of images whose label is among the k most probable classes
    loss            −mean log p[i, y_i], the surprise at what is true: cross-entropy
    Brier score     mean Σ_k (p[i, k] − [k = y_i])², between 0 and 2
    precision       of the images said to be of class k, the share that is:    C[k, k] / Σ_j C[j, k]
    recall          of the images of class k, the share said to be:            C[k, k] / Σ_j C[k, j]
    F1              their harmonic mean, 2·C[k, k] / (Σ_j C[j, k] + Σ_j C[k, j])

with the confusion matrix C[j, k], the number of images of class j said to be of class k.

**An interval around an accuracy.**  a = r/N right answers on N images say that the accuracy on all images of the kind
is about a, give or take √(a·(1 − a)/N).  Near 0 and 1 that is too narrow, and at 1 nothing at all.  Wilson asks instead
which accuracies q would make the a seen a deviation of at most z standard deviations, (a − q)² ≤ z²·q·(1 − q)/N, and
solves for q::

    (a + z²/2N ± z·√(a·(1 − a)/N + z²/4N²)) / (1 + z²/N),       z = 1.96 for 95 %

Two networks whose intervals overlap may still differ: they saw the same images.

**Ensembles.**  The mean of the probabilities of several networks is nearly always better than the best one of them, as
long as their mistakes differ: `average`.

Sources: Wilson 1927, "Probable inference, the law of succession, and statistical inference"; Brier 1950, "Verification
of forecasts expressed in terms of probability"; Krizhevsky, Sutskever & Hinton 2012, section 6.1 (averaged CNNs).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .calibration import Calibration, reliability, sharpened

Z95 = 1.959963984540054
"""A normal variable stays within so many standard deviations in 95 of 100 cases."""
TOP = 5
"""Classes of the top-k accuracy that reports show where there are more of them."""


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Probabilities of the classes for labelled images; the module docstring defines what is measured.

    Attributes:
        probabilities: float64 (N, K); given otherwise, they are converted.
        labels: int64 (N,).
        classes: name of every class; by default their numbers.

    Raises:
        ValueError: shapes, labels and classes do not fit together; there is no image; rows that are no probabilities.

    >>> p = Predictions([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.3, 0.6, 0.1]], [0, 1, 0], ("ant", "bee", "fly"))
    >>> p
    Predictions(3 images, 3 classes, accuracy 66.67 %)
    >>> p.top(2), p.confusion().tolist(), p.most_wrong(5).tolist()
    (1.0, [[1, 1, 0], [0, 1, 0], [0, 0, 0]], [2])
    """

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        p, y = np.asarray(self.probabilities, np.float64), np.asarray(self.labels)
        if p.ndim != 2 or p.size == 0 or y.shape != p.shape[:1] or y.dtype.kind not in "iu":
            raise ValueError(
                f"Predictions need probabilities (N, K), at least one, and N integer labels: got {tuple(p.shape)} and "
                f"labels {y.dtype} {tuple(y.shape)}"
            )
        K = p.shape[1]
        if not 0 <= int(y.min()) <= int(y.max()) < K:
            raise ValueError(f"labels of {K} classes must lie in 0..{K - 1}, got {int(y.min())}..{int(y.max())}")
        if len(self.classes) not in (0, K):
            raise ValueError(f"{K} probabilities for each image need as many classes, got {len(self.classes)}")
        wrong = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) < 1e-3))  # nan is wrong, too
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(f"the probabilities of image {i} must be at least 0 and sum to 1, got {p[i]}")
        object.__setattr__(self, "probabilities", p)
        object.__setattr__(self, "labels", y.astype(np.int64))
        object.__setattr__(self, "classes", tuple(self.classes) or tuple(map(str, range(K))))

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Predictions({len(self):,} images, {len(self.classes)} classes, accuracy {100 * self.accuracy:.2f} %)"

    # ---- in one number -------------------------------------------------------------------------------------

    @property
    def predicted(self) -> np.ndarray:
        """The most probable class of every image, (N,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def correct(self) -> np.ndarray:
        """Which images are told right, bool (N,)."""
        return self.predicted == self.labels

    @property
    def true_probabilities(self) -> np.ndarray:
        """The probability given to what is true, (N,)."""
        return self.probabilities[np.arange(len(self)), self.labels]

    @property
    def accuracy(self) -> float:
        """Share of the images told right."""
        return float(self.correct.mean())

    def interval(self, z: float = Z95) -> tuple[float, float]:
        """Return Wilson's interval around `accuracy`, by default for 95 %."""
        return wilson(int(self.correct.sum()), len(self), z)

    def top(self, k: int) -> float:
        """Return the share of images whose label is among the k most probable classes: 1 if there are no more than k.

        Of equally probable classes the first counts as more probable, as in `predicted`.

        Raises:
            ValueError: k is below 1.
        """
        if k < 1:
            raise ValueError(f"top({k}): at least one class must be looked at")
        p, true = self.probabilities, self.true_probabilities[:, None]
        before = np.arange(p.shape[1]) < self.labels[:, None]
        better = (p > true) | ((p == true) & before)
        return float((better.sum(axis=1) < k).mean())

    @property
    def loss(self) -> float:
        """Cross-entropy: mean of −log of the probability of what is true; infinite if one of these is 0."""
        with np.errstate(divide="ignore"):
            return float(-np.log(self.true_probabilities).mean())

    @property
    def brier(self) -> float:
        """Mean squared distance between the probabilities and the truth, between 0 and 2."""
        # Σ_k (p_k − [k = y])² = Σ_k p_k² − 2·p_y + 1
        return float(((self.probabilities**2).sum(axis=1) - 2 * self.true_probabilities + 1).mean())

    # ---- class by class ------------------------------------------------------------------------------------

    def confusion(self) -> np.ndarray:
        """Return int64 (K, K): how many images of the row's class are said to be of the column's."""
        K = len(self.classes)
        # (N,) -> (K·K,) -> (K, K)
        return np.bincount(self.labels * K + self.predicted, minlength=K * K).reshape(K, K)

    def per_class(self) -> list[dict[str, Any]]:
        """Return, for each class, its ``class`` (name), numbers of ``images`` and ``predicted`` ones, and scores.

        ``precision``, ``recall`` and ``f1`` are None where they would be 0/0.
        """
        C = self.confusion()
        rows = zip(self.classes, C.diagonal().tolist(), C.sum(axis=1).tolist(), C.sum(axis=0).tolist(), strict=True)
        return [
            {
                "class": name,
                "images": n,
                "predicted": said,
                "precision": _ratio(right, said),
                "recall": _ratio(right, n),
                "f1": _ratio(2 * right, said + n),
            }
            for name, right, n, said in rows
        ]

    def most_wrong(self, n: int) -> np.ndarray:
        """Return the indices of the n images told wrong whose truth was thought least probable, worst first.

        There are fewer if fewer are wrong.  Index i is the i-th image that the loader gave.
        """
        wrong = np.flatnonzero(~self.correct)
        return wrong[np.argsort(self.true_probabilities[wrong], kind="stable")][:n]

    # ---- are they probabilities? ---------------------------------------------------------------------------

    def calibration(self, bins: int = 15) -> Calibration:
        """Return how often the network is right when it is so sure: `tinycnn.evaluation.calibration`."""
        return reliability(self.probabilities.max(axis=1), self.correct, bins)

    def at_temperature(self, T: float) -> Predictions:
        """Return the predictions with logits divided by T, see `tinycnn.evaluation.calibration`.

        Raises:
            ValueError: T is not positive and finite.
        """
        if not 0 < T < np.inf:
            raise ValueError(f"a temperature must be positive and finite, got {T}")
        return Predictions(sharpened(self.probabilities, 1 / T), self.labels, self.classes)

    # ---- in words ------------------------------------------------------------------------------------------

    def to_dict(self, bins: int = 15) -> dict[str, Any]:
        """Return all that is measured, as JSON can say it."""
        calibration = self.calibration(bins)
        low, high = self.interval()
        return {
            "images": len(self),
            "accuracy": self.accuracy,
            "interval": [low, high],
            "top5": self.top(TOP) if len(self.classes) > TOP else None,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "brier": self.brier,
            "calibration_error": calibration.error,
            "classes": list(self.classes),
            "per_class": self.per_class(),
            "confusion": self.confusion().tolist(),
            "calibration": calibration.to_dict(),
        }


def _ratio(a: int, b: int) -> float | None:
    return a / b if b else None


def wilson(right: int, N: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's interval for the share that ``right`` of N were drawn from.

    Raises:
        ValueError: N is below 1, or ``right`` outside 0..N.

    >>> [round(v, 4) for v in wilson(90, 100)]
    [0.8256, 0.9448]
    """
    if not 0 <= right <= N or N < 1:
        raise ValueError(f"right must be from 0 to N, and N at least 1: got {right} of {N}")
    a, zz = right / N, z * z / N
    half = z * math.sqrt(a * (1 - a) / N + zz / (4 * N))
    low, high = (a + zz / 2 - half) / (1 + zz), (a + zz / 2 + half) / (1 + zz)
    # at 0 and N the ends are 0 and 1, which rounding may miss
    return low if right else 0.0, high if right < N else 1.0


def average(predictions: Sequence[Predictions]) -> Predictions:
    """Return the mean of several networks' probabilities for the same images: an ensemble.

    Args:
        predictions: one or more, of the same images in the same order.

    Raises:
        ValueError: there are none, or their labels or classes differ.

    >>> a, b = (Predictions([[x, 1 - x]], [0]) for x in (0.3, 0.8))
    >>> average([a, b]).probabilities.round(3).tolist()
    [[0.55, 0.45]]
    """
    if not predictions:
        raise ValueError("average needs the predictions of one network or more, got none")
    first = predictions[0]
    for i, other in enumerate(predictions):
        if other.classes != first.classes:
            raise ValueError(f"an ensemble needs the same classes: network {i + 1} has others")
        if not np.array_equal(other.labels, first.labels):
            raise ValueError(f"an ensemble needs the same images in one order: network {i + 1} had other labels")
    total = sum((other.probabilities for other in predictions[1:]), first.probabilities)
    return Predictions(total / len(predictions), first.labels, first.classes)
