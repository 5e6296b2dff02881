"""How a training ends before its time: by a signal, or by what went wrong; and the words for both."""

from __future__ import annotations

import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from .errors import FAILED, INTERRUPTED, OUT_OF_MEMORY, CommandError, words_of

ECHO = 0.5
"""Seconds in which a signal that comes again is still the first: timeout(1) sends one to child and to group."""


class Interruption(CommandError):
    """Not an error: what was asked for."""


@contextmanager
def stop_on_signal(trainer: Any) -> Iterator[list[int]]:
    """Let Ctrl-C, SIGTERM and SIGHUP ask the trainer to stop after its batch; a second one stops at once.

    Yields:
        The signals received.
    """
    received: list[int] = []
    first = 0.0

    def stop(number: int, frame: object) -> None:
        nonlocal first
        now = time.monotonic()
        if not received:
            first = now
            trainer.stop()
        elif now - first >= ECHO:
            raise KeyboardInterrupt
        received.append(number)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup has it
        wanted.append(signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def failures(run: Any) -> Iterator[None]:
    """Give the words for what can go wrong in mid-training, with what is kept and what to do."""
    from ..data import DataError
    from ..train import CheckpointError, NonFiniteError, OutOfMemoryError

    command = f"tinycnn train --resume {shlex.quote(str(run.folder))}"
    try:
        yield
    except NonFiniteError as error:
        last, done = run.folder / "last.safetensors", run.trainer.epoch
        if done:
            with suppress(OSError):  # the curves are an extra
                run.draw()
        kept = f"the last good checkpoint is {last} (epoch {done})" if done else "no epoch was finished"
        raise CommandError(
            f"{error}; {kept}; try a lower learning rate (lr was {run.settings.lr:g})", FAILED
        ) from error
    except (CheckpointError, DataError) as error:
        raise CommandError(str(error), FAILED) from error
    except OutOfMemoryError as error:
        raise CommandError(f"{error}; what was saved before is whole: go on with {command}", FAILED) from error
    except MemoryError as error:
        raise CommandError(OUT_OF_MEMORY, FAILED) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        words = words_of(error)
        raise CommandError(f"{words}; what was saved before is whole: go on with {command}", FAILED) from error
    except KeyboardInterrupt:
        raise Interruption(f"stopped at once; go on from the state saved last with: {command}", INTERRUPTED) from None


def interrupted(run: Any, signals: list[int]) -> None:
    """End the command after a signal, saying how to go on."""
    trainer = run.trainer
    where = (
        f"in epoch {trainer.epoch + 1}, after batch {trainer.batch}"
        if trainer.batch
        else f"after epoch {trainer.epoch}"
    )
    command = f"tinycnn train --resume {shlex.quote(str(run.folder))}"
    raise Interruption(f"stopped {where}; saved; go on with: {command}", 128 + (signals or [signal.SIGINT])[0])
