"""Loss functions: how wrong the network is, and which way its outputs should move.

    loss, dlogits = loss_fn(logits, targets)

A loss is where backpropagation begins, so it returns its value and its gradient together; there is nothing to
keep for later.  ``dlogits`` is the gradient of exactly the number returned: with ``reduction='mean'`` it has
been divided by N, once, and nothing after it divides again.  ``loss`` is a scalar of the logits' dtype on
their device (``float(loss)`` reads it, and on a GPU waits for it; no loss function does); with
``reduction='none'`` it is an array and ``dlogits`` the gradient of its sum.  The formulas are in
`tinycnn.kernels.loss`; on a GPU one kernel does each.

`cross_entropy` derives the one that classifiers are trained with; `auxiliary` adds up those of several outputs.
"""

from .auxiliary import AuxiliaryLoss
from .base import Loss, log_softmax, softmax
from .cross_entropy import CrossEntropyLoss
from .elementwise import BCEWithLogitsLoss, MSELoss

__all__ = ["AuxiliaryLoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "Loss", "MSELoss", "log_softmax", "softmax"]
