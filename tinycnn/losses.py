"""Loss functions: how wrong the network is, and which way its outputs should move.

    loss, dlogits = loss_fn(logits, targets)

A loss is where backpropagation begins, so it returns its value and its gradient together; there is nothing to
keep for later.  ``dlogits`` is the gradient of exactly the number returned: with ``reduction='mean'`` it has
been divided by N, once, and nothing after it divides again.  ``loss`` is a scalar of the logits' dtype on
their device (``float(loss)`` reads it, and on a GPU waits for it; no loss function does); with
``reduction='none'`` it is an array and ``dlogits`` the gradient of its sum.  The formulas are in
`tinycnn.kernels.loss`; on a GPU one kernel does each.

=======  ===========================================================================================
N, C     items, classes;  M = N, or N·H·W for images with a label per pixel
x        logits: (N, C), or (N, C, H, W) with any number of further axes
y        labels (N,) or (N, H, W), integers 0 … C−1;  or soft targets t, probabilities of x's shape
p        softmax(x), over the classes
=======  ===========================================================================================

**Cross-entropy.**  −log p_y, the surprise at seeing class y.  With the targets as weights q over the classes
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

from .backend import Array, array_module, is_device_array
from .kernels.loss import Reduction, binary_cross_entropy, cross_entropy, squared_error

FLOATS = ("float32", "float64")
NONE_OUTSIDE = 2**63 - 1
"""Where labels out of range are noted, if there is none."""
HALVES = ("float16", "bfloat16")
"""What logits may be on a GPU.  The loss, targets and weights are float32 then."""


def softmax(x: Array, axis: int = 1) -> Array:
    """Return p_c = exp x_c / Σ_k exp x_k along ``axis``, stable for any finite x."""
    xp = array_module(x)
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax(x: Array, axis: int = 1) -> Array:
    """Return log p_c = x_c − log Σ_k exp x_k along ``axis``, stable for any finite x."""
    xp = array_module(x)
    z = x - x.max(axis=axis, keepdims=True)
    return z - xp.log(xp.exp(z).sum(axis=axis, keepdims=True))


class Loss:
    """Base of the losses: the reduction, and the checks that all share.

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Attributes:
        grad_scale: (), multiplies dlogits and not the loss, if given.  Gradients in float16 need it: small ones would
            round to 0.

    Raises:
        ValueError: another reduction.
    """

    grad_scale: Array | None = None

    def __init__(self, reduction: Reduction = "mean") -> None:
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"{type(self).__name__}: reduction must be 'mean', 'sum' or 'none', got {reduction!r}")
        self.reduction: Reduction = reduction
        self._moved: dict[tuple[object, ...], tuple[Array, Array]] = {}

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        raise TypeError(f"{type(self).__name__} must define __call__")

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"

    def option(self, name: str, like: Array) -> Array:
        """Return the array given for the option ``name``, in the dtype and on the device of ``like``.

        A copy on a GPU is made once: while a step is captured as a graph nothing can be copied there.
        """
        value = getattr(self, name)
        if not is_device_array(like):
            return np.asarray(value, like.dtype)
        dtype = _precise(like.dtype)
        source, moved = self._moved.get((name, dtype), (None, None))
        if source is not value:
            moved = array_module(like).asarray(value, dtype)
            self._moved[name, dtype] = value, moved
        return moved

    def check_logits(self, logits: Array) -> None:
        """Make sure of a floating-point array.

        Raises:
            ValueError: it is something else.
        """
        name = getattr(getattr(logits, "dtype", None), "name", "")
        if name not in FLOATS and not (name in HALVES and is_device_array(logits)):
            got = getattr(logits, "dtype", type(logits).__name__)
            raise ValueError(f"{type(self).__name__}: logits must be a float32 or float64 array, got {got}")

    def check_device(self, logits: Array, targets: Array) -> None:
        """Make sure that both arrays live on one device.

        Raises:
            ValueError: they do not.
        """
        if array_module(logits) is not array_module(targets):
            raise ValueError(f"{type(self).__name__}: logits and targets live on different devices: move one of them")

    def same_shape(self, logits: Array, targets: Array) -> Array:
        """Return real-valued targets in the logits' dtype.

        Raises:
            ValueError: another shape or device.
        """
        self.check_logits(logits)
        xp = array_module(logits)
        targets = targets if hasattr(targets, "dtype") else xp.asarray(targets)
        self.check_device(logits, targets)
        if targets.shape != logits.shape:
            raise ValueError(
                f"{type(self).__name__}: targets must have the shape of the logits, {tuple(logits.shape)}, "
                f"got {tuple(targets.shape)}"
            )
        return targets.astype(_precise(logits.dtype), copy=False)


def _precise(dtype: np.dtype) -> np.dtype:
    """Return what goes with logits of ``dtype``: float32 for 16 bits."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


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


class MSELoss(Loss):
    """Squared error (x − t)² of every element; the mean is over all elements, not over the items.

        ∂(x − t)²/∂x = 2·(x − t)

    Args:
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.

    Shape:
        logits and targets alike, any shape.

    Raises:
        ValueError: shapes differ.

    >>> MSELoss()(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    (np.float64(2.0), array([0., 2.]))
    """

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        return squared_error(logits, self.same_shape(logits, targets), self.reduction, self.grad_scale)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of independent yes/no questions, each logit x with its target t in [0, 1].

    With σ(x) = 1/(1 + exp(−x)), the probability of yes, and softplus(x) = log(1 + exp x) = −log σ(−x)::

        loss = −[r·t·log σ(x) + (1 − t)·log(1 − σ(x))] = (1 − t)·softplus(x) + r·t·softplus(−x)
        ∂loss/∂x = (1 − t)·σ(x) − r·t·σ(−x)                 (as softplus' = σ)

    where r is ``pos_weight``.  For r = 1 the gradient is σ(x) − t: again **p − y**.  Stable, because
    softplus(x) = max(x, 0) + log1p(exp(−|x|)) never meets a large exponential, and because no two large terms
    are subtracted from each other.

    Args:
        weight: multiplies the loss of every element; broadcast to the logits.
        reduction: ``'mean'`` (over all elements, whatever their weights), ``'sum'`` or ``'none'``.
        pos_weight: r, how much a yes counts; broadcast to the logits, so (C,) for logits (N, C).

    Shape:
        logits and targets alike, any shape.

    Raises:
        ValueError: shapes that do not fit.
    """

    def __init__(
        self, weight: Array | None = None, reduction: Reduction = "mean", pos_weight: Array | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight, self.pos_weight = weight, pos_weight

    def __call__(self, logits: Array, targets: Array) -> tuple[Array, Array]:
        """Return (loss, dlogits)."""
        t, x = self.same_shape(logits, targets), logits
        weights = self._broadcast("weight", x), self._broadcast("pos_weight", x)
        return binary_cross_entropy(x, t, *weights, self.reduction, self.grad_scale)

    def _broadcast(self, name: str, x: Array) -> Array | None:
        """The option ``name`` in the dtype and on the device of x."""
        if getattr(self, name) is None:
            return None
        value = self.option(name, x)
        shape, axes = tuple(value.shape), min(value.ndim, x.ndim)
        fits = value.ndim <= x.ndim and all(a in (1, b) for a, b in zip(shape, x.shape[x.ndim - axes :], strict=True))
        if not fits:
            raise ValueError(f"BCEWithLogitsLoss: {name} {shape} does not broadcast to logits {tuple(x.shape)}")
        return value
