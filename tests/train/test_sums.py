"""Sums over an epoch, against means over all of it."""

import numpy as np
import pytest

from tinycnn.backend import to_device
from tinycnn.train import Sums


def batches():
    rng = np.random.default_rng(0)
    for n in (7, 7, 3):
        yield np.float32(rng.uniform()), rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 4, n)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_means_are_over_all_examples(device, request):
    if device == "cuda":
        request.getfixturevalue("gpu")
    sums = Sums(to_device(np.zeros(1, np.float32), device))
    for loss, logits, targets in batches():
        sums.add(*(to_device(np.asarray(a), device) for a in (loss, logits, targets)))
    losses, right, n = zip(
        *((float(a) * len(t), (x.argmax(1) == t).sum(), len(t)) for a, x, t in batches()), strict=True
    )
    assert sums.means() == {"loss": pytest.approx(sum(losses) / 17, rel=1e-12), "accuracy": sum(right) / 17}
    assert sums.state() == [pytest.approx(sum(losses)), sum(right), 17, sum(n)]


def test_targets_that_are_no_labels_have_no_accuracy():
    sums = Sums(np.zeros(1, np.float32))
    sums.add(np.float32(2), np.zeros((3, 4), np.float32), np.zeros((3, 4), np.float32))
    assert sums.means() == {"loss": 2.0}


def test_a_state_is_gone_on_with():
    whole, first = Sums(np.zeros(1)), Sums(np.zeros(1))
    for i, batch in enumerate(batches()):
        whole.add(*batch)
        if i < 2:
            first.add(*batch)
    rest = Sums(np.zeros(1), first.state())
    rest.add(*list(batches())[2])
    assert rest.state() == whole.state()
    assert Sums(np.zeros(1)).means() == {"loss": 0.0}
