"""Pickles and records of CIFAR: what is a batch, and what is refused."""

import pickle

import numpy as np
import pytest
from cifar_files import python2_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn.data import DataError
from tinycnn.data.cifar import CIFAR10, CIFAR100, parse_batch, parse_records

X = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": X},
        {b"labels": [1, 2]},
        {b"data": X, b"labels": [1, True]},
        {b"data": X, b"labels": [1, 10]},
        {b"data": X, b"labels": [1, -1]},
        {b"data": X, b"labels": [1, 2.0]},
        {b"data": X, b"labels": (1, 2)},
        {b"data": X.astype(np.float32), b"labels": [1, 2]},
        {b"data": X[:, :-1], b"labels": [1, 2]},
        {b"data": X.reshape(2, 3, 32, 32), b"labels": [1, 2]},
        {b"data": b"", b"labels": []},
        {b"data": X, b"fine_labels": [1, 2]},
        [X, [1, 2]],
        None,
    ],
)
def test_pickles_that_are_no_batch(batch):
    with pytest.raises(DataError, match=r"^f: not a batch of cifar10: expected"):
        parse_batch(pickle.dumps(batch, 4), "f", CIFAR10.labels["fine"], CIFAR10)


def test_labels_that_disagree_in_length():
    raw = pickle.dumps({b"data": X, b"labels": [1, 2, 3]}, 4)
    with pytest.raises(DataError, match=r"^f: 2 images and 3 labels: download .* again$"):
        parse_batch(raw, "f", CIFAR10.labels["fine"], CIFAR10)


@settings(max_examples=60)
@given(raw=st.binary(max_size=3 * 3074), records=st.integers(0, 3), family=st.sampled_from([CIFAR10, CIFAR100]))
def test_any_bytes_are_records_or_refused(raw, records, family):
    for labels in family.labels.values():
        try:
            x, y = parse_records(raw, "f", labels, family, records)
        except DataError:
            continue
        assert (x.shape, y.shape) == ((records, 3072), (records,))
        assert all(0 <= k < len(labels.classes) for k in y)


@pytest.mark.parametrize("change", [-1, 1, -3073, 3073])
def test_records_too_short_or_too_long(change):
    raw = bytes(2 * 3073 + max(change, 0))[: 2 * 3073 + change]
    with pytest.raises(DataError, match=r"^f: [0-9,]+ bytes, 2 records of 3,073 are 6,146: truncated, or another"):
        parse_records(raw, "f", CIFAR10.labels["fine"], CIFAR10, 2)


def test_records_with_labels_that_do_not_exist():
    raw = bytes([9]) + bytes(3072) + bytes([10]) + bytes(3072)
    with pytest.raises(DataError, match=r"^f: a label 10 among those of 0..9: not cifar10, or damaged"):
        parse_records(raw, "f", CIFAR10.labels["fine"], CIFAR10, 2)
    for pair, wrong in (((20, 3), 20), ((3, 100), 100)):
        with pytest.raises(DataError, match=rf"a label {wrong} among"):
            parse_records(bytes(pair) + bytes(3072), "f", CIFAR100.labels["fine"], CIFAR100, 1)


@settings(max_examples=60)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_pickle_with_one_bit_changed_is_a_batch_or_refused(place, bit):
    raw = bytearray(python2_batch(X, [1, 2]))
    raw[place % len(raw)] ^= 1 << bit
    try:
        x, y = parse_batch(bytes(raw), "f", CIFAR10.labels["fine"], CIFAR10)
    except DataError:
        return
    assert (x.shape[1], len(y)) == (3072, len(x))
