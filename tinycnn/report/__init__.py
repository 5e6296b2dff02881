"""Telling what a run came to: ``report.html``, and several runs in one picture.

report.write("runs/NAME")  # runs/NAME/report.html
"""

from .page import write

__all__ = ["write"]
