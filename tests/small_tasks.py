"""Tasks for the threads of a loader, and whether these have ended."""

import threading
import time
from functools import partial

LONG = 20
"""Seconds after which a test gives up waiting for what should happen at once."""


class Damaged(OSError):
    pass


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("tinycnn-loader")}


def still_alive(some):
    deadline = time.monotonic() + LONG  # for all of them
    for thread in some:
        thread.join(max(0, deadline - time.monotonic()))
    return [thread.name for thread in some if thread.is_alive()]


class Gate:
    """Tasks that note when they begin, and end when they may."""

    def __init__(self, count):
        self.begun = [threading.Event() for _ in range(count)]
        self.may_end = [threading.Event() for _ in range(count)]
        self.tasks = iter([partial(self.task, i) for i in range(count)])

    def task(self, i):
        self.begun[i].set()
        assert self.may_end[i].wait(LONG)
        return i

    def open(self, *numbers):
        for i in numbers:
            self.may_end[i].set()

    def numbers(self):
        return [i for i, event in enumerate(self.begun) if event.is_set()]
