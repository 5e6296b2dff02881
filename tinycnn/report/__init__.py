"""Telling what a run came to: ``report.html``, several runs in one picture, and TensorBoard.

report.write("runs/NAME")  # runs/NAME/report.html

Trainer(..., callbacks=[report.TensorBoard("runs/NAME/tensorboard")])
"""

from .page import write
from .tensorboard import TensorBoard

__all__ = ["TensorBoard", "write"]
