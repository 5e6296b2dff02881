"""Numbers sent to the device: which ones, when, and from which memory."""

import numpy as np

from tinycnn.kernels.cuda.mailbox import ROWS, Mailbox


def test_the_device_has_the_last_numbers_in_its_own_type(gpu):
    box = Mailbox(gpu.zeros(3, np.float32), (2, 3))
    assert box.device.shape == (2, 3)
    assert not box.device.get().any()
    for step in range(3 * ROWS):
        box.send([(step, 0.1, -step), (1e-30, 1 / 3, True)])
        expected = np.array([(step, 0.1, -step), (1e-30, 1 / 3, 1)]).astype(np.float32)
        np.testing.assert_array_equal(box.device.get(), expected)


def test_the_same_numbers_are_not_sent_again(gpu):
    box = Mailbox(gpu.zeros(1), (1,))
    box.send([2.0])
    box.device.fill(5)
    box.send([2.0])
    assert box.device.get() == [5]
    box.send([2.5])
    assert box.device.get() == [2.5]


def test_memory_is_written_again_only_after_its_copy_is_over(gpu, monkeypatch):
    """A stand-in for the events: copies are over when somebody waits for their event, and not before."""
    log = []

    class Event:
        def __init__(self, **kwargs):
            self.index = len([e for e in log if e[0] == "new"])
            log.append(("new", self.index))

        def record(self, stream=None):
            log.append(("record", self.index))

        def synchronize(self):
            log.append(("wait", self.index))

    monkeypatch.setattr(gpu.cuda, "Event", Event)
    box = Mailbox(gpu.zeros(1), (1,))
    for step in range(2 * ROWS + 1):
        box.send([step + 1.0])
    used = [entry for entry in log if entry[0] != "new"]
    turns = [i % ROWS for i in range(2 * ROWS + 1)]
    assert used == [(what, i) for i in turns for what in ("wait", "record")]
    np.testing.assert_array_equal(np.sort(box._host[:, 0]), np.sort([2 * ROWS + 1, *range(ROWS + 2, 2 * ROWS + 1)]))
