"""What stops a training; test_train.py has whole commands that are stopped."""

import os
import signal
import types

import pytest

from tinycnn.cli import stopping
from tinycnn.cli.errors import CommandError
from tinycnn.cli.stopping import Interruption, failures, interrupted, stop_on_signal


def run(epoch=1, batch=0):
    trainer = types.SimpleNamespace(epoch=epoch, batch=batch, stopped=0)
    trainer.stop = lambda: setattr(trainer, "stopped", trainer.stopped + 1)
    return types.SimpleNamespace(trainer=trainer, folder="a dir", settings=types.SimpleNamespace(lr=0.1))


def test_the_first_signal_asks(monkeypatch):
    one = run()
    with stop_on_signal(one.trainer) as received:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # an echo of the first
    assert one.trainer.stopped == 1
    assert received == [signal.SIGTERM, signal.SIGTERM]


def test_the_second_stops_at_once(monkeypatch):
    monkeypatch.setattr(stopping, "ECHO", 0)

    def twice():
        with stop_on_signal(run().trainer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        twice()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_words_of_an_interruption():
    with pytest.raises(Interruption, match=r"stopped after epoch 1; saved; .* --resume 'a dir'") as caught:
        interrupted(run(), [signal.SIGTERM])
    assert caught.value.code == 143
    with pytest.raises(Interruption, match="stopped in epoch 2, after batch 5"):
        interrupted(run(batch=5), [])


@pytest.mark.parametrize(
    ("error", "words"), [(MemoryError(), "out of memory"), (OSError(28, "No space left", "f"), "f: No space left")]
)
def test_words_of_failures(error, words):
    with pytest.raises(CommandError, match=words), failures(run()):
        raise error
