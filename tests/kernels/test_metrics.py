"""Running sums of an epoch."""

import numpy as np
import pytest

from tinycnn.kernels.metrics import count_batch


def sums():
    return np.zeros(1), np.zeros(1, np.int64)


def test_two_batches():
    total, correct = sums()
    count_batch(np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]]), np.array([1, 1, 0]), np.array(0.5), total, correct)
    count_batch(np.array([[1.0, 2.0]]), np.array([0]), np.array(2.0), total, correct)
    assert total.tolist() == [3.5]
    assert correct.tolist() == [2]


def test_pixels_have_labels_of_their_own():
    total, correct = sums()
    logits = np.zeros((2, 3, 1, 2), np.float32)
    logits[0, 2, 0, 1] = logits[1, 1, 0, 0] = 1
    count_batch(logits, np.array([[[0, 2]], [[1, 1]]]), np.array(1, np.float32), total, correct)
    assert (total.tolist(), correct.tolist()) == ([2.0], [3])


@pytest.mark.parametrize("targets", [np.zeros((2, 3)), np.zeros((2, 3), np.float32)])
def test_targets_that_are_no_labels(targets):
    total, correct = sums()
    count_batch(np.zeros((2, 3)), targets, np.array(1.5), total, correct)
    assert (total.tolist(), correct.tolist()) == ([3.0], [0])
