"""Cross-entropy: the surprise at what is true, given what the network believes.

=======  ===========================================================================================
N, C     items, classes;  M = N, or N·H·W for images with a label per pixel
x        logits: (N, C), or (N, C, H, W) with any number of further axes
y        labels (N,) or (N, H, W), integers 0 … C−1;  or soft targets t, probabilities of x's shape
p        softmax(x), over the classes
=======  ===========================================================================================

−log p_y is the surprise at seeing class y.  With the targets as weights q over the classes
(one-hot, to begin with), log p_c = x_c − log Σ_k exp x_k gives, item by item::

    loss = −Σ_c q_c·log p_c                                                             (1)

Differentiating the log-sum-exp returns the softmax, ∂(log p_c)/∂x_j = [c = j] − p_j, so that::

    ∂loss/∂x_j = −Σ_c q_c·([c = j] − p_j) = p_j·Σ_c q_c − q_j                           (2)

which for a one-hot q is **p − y**: what the network believes minus what is true.  The exponentials have
cancelled, so the gradient is bounded by 1 however wrong the logits are.

Every option is another q, and (1) and (2) stay as they are.  Class weights w multiply q_c by w_c.  Label
smoothing ε moves a share of the belief to all classes, (1 − ε)·q + ε/C.  An ignored label has q = 0.  Soft
targets are q.  The mean divides by Σ w_y over the labels that are not ignored (a weighted mean), and for soft
targets by M, as PyTorch does.

**Numbers.**  Subtracting the row's maximum before exp changes nothing in (1) and keeps every exponential
within [0, 1] and their sum within [1, C]: no overflow, no log 0, at logits of ±10⁴ and beyond.

Sources: Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs" (softmax with
cross-entropy); Szegedy et al. 2016, "Rethinking the Inception architecture", section 7 (label smoothing).
"""

from __future__ import annotations

import numpy as np

from ..backend import Array, array_module, is_device_array
from ..kernels.loss import Reduction, cross_entropy
from .base import Loss

NONE_OUTSIDE = 2**63 - 1
"""Where labels out of range are noted, if there is none."""


class CrossEntropyLoss(Loss):
    """Softmax and cross-entropy in one; the module docstring derives its gradient, p − y.

    Args:
        weight: (C,), how much each class counts; by default all the same.
        ignore_index: labels of this value count for nothing: no loss, no gradient, no share in the mean.
        reduction: ``'mean'`` (weighted, see the module docstring), ``'sum'`` or ``'none'``.
        label_smoothing: ε, between 0 and 1.
        check_labels: look at every label before using it.  A GPU, for which Python does not wait, notes those out of
            range for `check`; they make the loss nan.  Without it, on a CPU they give wrong numbers and no error.

    Shape:
        logits (N, C, …); targets (N, …) of an integer dtype, or (N, C, …) of a floating-point dtype;
        loss () or (N, …) for ``'none'``; dlogits (N, C, …).

    A mean over nothing, every label ignored, is nan, and its gradient 0.

    Raises:
        ValueError: options out of range; shapes or dtypes that do not belong together; a label that is neither
            a class nor ``ignore_index``.

    >>> loss, dlogits = CrossEntropyLoss()(np.array([[0.0, 0.0], [9.0, 9.0]]), np.array([0, 1]))
    >>> round(float(loss), 4), dlogits.tolist()
    (0.6931, [[-0.25, 0.25], [0.25, -0.25]])
    """

    def __init__(
        self,
        weight: Array | None = None,
        ignore_index: int = -100,
        reduction: Reduction = "mean",
        label_smoothing: float = 0.0,
        *,
        check_labels: bool = True,
    ) -> None:
        super().__init__(reduction)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing must be between 0 and 1, got {label_smoothing}")
        self.weight = weight
        self.ignore_index = ignore_index
        self.label_smoothing = float(label_smoothing)
        self.check_labels = check_labels
        self._outside: Array | None = None

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits), equations (1) and (2)."""
        soft = self._check(logits, targets)
        xp = array_module(logits)
        # (N, C, H, W) -> (N, H, W, C), a view; on channels-last memory the rows (M, C) are one too
        moved = xp.moveaxis(logits, 1, -1)
        x = moved.reshape(-1, logits.shape[1])
        # (N, C, H, W) -> (N, H, W, C) -> (M, C), or (N, H, W) -> (M,)
        t = xp.moveaxis(targets, 1, -1).reshape(x.shape) if soft else targets.reshape(-1)
        options = self.ignore_index, self.label_smoothing, self.reduction, self.grad_scale
        loss, dx = cross_entropy(x, t, self._class_weights(x), *options, self._outside)
        if self.reduction == "none":
            loss = loss.reshape(moved.shape[:-1])
        # (M, C) -> (N, H, W, C) -> (N, C, H, W)
        return loss, xp.moveaxis(dx.reshape(moved.shape), -1, 1)

    def check(self) -> None:
        """Look whether a GPU has met a label out of range since the last check, which means to wait for it.

        Raises:
            ValueError: it has.
        """
        if self._outside is None or (found := int(self._outside[0])) == NONE_OUTSIDE:
            return
        self._outside[0] = NONE_OUTSIDE
        label = (found & 0xFFFFFFFF ^ 0x80000000) - 0x80000000  # the lower half, with its sign
        raise ValueError(
            f"CrossEntropyLoss: label {label} at position {found >> 32} of a batch since the last check is no class, "
            f"nor is it ignore_index={self.ignore_index}: the loss was nan"
        )

    def _class_weights(self, x: Array) -> Array | None:
        """(C,), in the dtype and on the device of the logits."""
        if self.weight is None:
            return None
        w, C = self.option("weight", x), x.shape[1]
        if w.shape != (C,):
            raise ValueError(f"CrossEntropyLoss: weight has shape {tuple(w.shape)}, the logits have {C} classes")
        return w

    def _check(self, logits: Array, targets: Array) -> bool:
        """Return whether the targets are soft, after checking that everything fits."""
        self.check_logits(logits)
        if logits.ndim < 2 or logits.shape[1] == 0:
            raise ValueError(f"CrossEntropyLoss: logits must have shape (N, C, …), C ≥ 1, got {tuple(logits.shape)}")
        kind = getattr(getattr(targets, "dtype", None), "kind", "")
        if kind not in ("i", "u", "f"):
            got = getattr(targets, "dtype", type(targets).__name__)
            raise ValueError(f"CrossEntropyLoss: targets must be an array of integers or of floats, got {got}")
        self.check_device(logits, targets)
        if kind == "f":
            self._check_soft(logits, targets)
            return True
        wanted = (logits.shape[0], *logits.shape[2:])
        if targets.shape != wanted:
            raise ValueError(
                f"CrossEntropyLoss: logits {tuple(logits.shape)} need labels of shape {wanted}, got {targets.shape}"
            )
        if self.check_labels and is_device_array(targets):
            self._note_range(targets)
        elif self.check_labels:
            self._check_range(targets, logits.shape[1])
        return False

    def _check_soft(self, logits: Array, targets: Array) -> None:
        if targets.shape != logits.shape:
            raise ValueError(
                f"CrossEntropyLoss: floating-point targets are probabilities of the logits' shape "
                f"{tuple(logits.shape)}, got {tuple(targets.shape)}: class labels must be integers"
            )
        if self.ignore_index >= 0:
            raise ValueError(
                f"CrossEntropyLoss: ignore_index={self.ignore_index} means nothing for soft targets: "
                "leave it out, or pass class labels"
            )

    def _note_range(self, y: Array) -> None:
        """Have the GPU note labels out of range: to look at them here would be to wait for them."""
        if self._outside is None:
            self._outside = array_module(y).full(1, NONE_OUTSIDE, np.uint64)

    def _check_range(self, y: Array, C: int) -> None:
        # how far outside 0 … C−1, in integers wide enough for any label
        wide = y.astype(np.int64, copy=False)
        excess = np.where(wide == self.ignore_index, 0, np.maximum(-wide, wide - (C - 1)))
        worst = int(excess.argmax()) if excess.size else 0
        if excess.size and int(excess.ravel()[worst]) > 0:
            place = tuple(int(i) for i in np.unravel_index(worst, y.shape))
            raise ValueError(
                f"CrossEntropyLoss: label {int(y[place])} at position {place if len(place) > 1 else place[0]} is "
                f"no class: with {C} classes labels run from 0 to {C - 1} (or are ignore_index={self.ignore_index})"
            )

    def __repr__(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        weights = ", weight=…" if self.weight is not None else ""
        return f"CrossEntropyLoss(reduction={self.reduction!r}{smoothing}{weights})"
