"""What is known of an epoch while it runs: the sum of its losses, and how many labels were right."""

from __future__ import annotations

import numpy as np

from ..backend import Array
from .cuda import twin


@twin("metrics")
def count_batch(logits: Array, targets: Array, loss: Array, total: Array, correct: Array) -> None:
    """Add a batch to running sums, where they are: nobody waits for a GPU.

    A label is right if it is that of the largest logit, the first of them if there are several; nan counts as largest.

    Args:
        logits: (N, C, …).
        targets: labels (N, …), of which right ones are counted, or anything that is not of an integer dtype.
        loss: (), the mean over the batch.
        total: (1,), float64; N·loss is added.
        correct: (1,), int64.
    """
    total += loss.astype(np.float64) * len(logits)
    if targets.dtype.kind in "iu":
        correct += (logits.argmax(axis=1) == targets).sum()
