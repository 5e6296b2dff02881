"""Random numbers by address, against the published answers and NumPy's generator; and the masks made of them."""

import math

import numpy as np
import pytest

from tinycnn import parallel
from tinycnn.kernels.dropout import dropout, dropout_backward, keep_mask, philox, random_words, threshold

# counter, key and result of "philox4x64 10" in the file kat_vectors of Random123
PUBLISHED = """
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000
16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b
ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff
87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0
243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89 452821e638d01377 be5466cf34e90c6c
a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6
"""


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_philox_gives_the_published_answers():
    numbers = np.array([int(word, 16) for word in PUBLISHED.split()], np.uint64).reshape(3, 10)
    for row in numbers:
        np.testing.assert_array_equal(philox(row[:4], row[4:6]), row[6:])


def test_philox_is_numpys():
    key, counter = np.array([2**63 + 5, 77], np.uint64), np.zeros((100, 4), np.uint64)
    counter[:, 0] = np.arange(100) + 12
    wanted = np.random.Philox(key=key, counter=[11, 0, 0, 0]).random_raw(400)
    np.testing.assert_array_equal(philox(counter, key).ravel(), wanted)
    np.testing.assert_array_equal(random_words(2**63 + 5, 77, 44, 444), wanted)


def test_random_words_are_the_same_however_they_are_cut():
    whole = random_words(12, 3, 0, 1000)
    assert len(np.unique(whole)) == 1000
    for start, stop in [(0, 1), (1, 3), (3, 9), (4, 8), (5, 1000), (999, 1000), (7, 7)]:
        np.testing.assert_array_equal(random_words(12, 3, start, stop), whole[start:stop])
    philox = np.random.Philox(key=np.array([12, 3], np.uint64), counter=0)
    np.testing.assert_array_equal(whole, philox.random_raw(1000))


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_neighbours_know_nothing_of_each_other(p):
    m = keep_mask(3, 0, p, (1 << 18,)).astype(float) - (1 - p)
    for lag in [1, 2, 3, 4, 7, 8, 16, 32, 64, 1024]:
        assert abs((m[lag:] * m[:-lag]).mean()) < 5 * p * (1 - p) / math.sqrt(m.size - lag)
    other = keep_mask(3, 1, p, (1 << 18,)).astype(float) - (1 - p)
    assert abs((m * other).mean()) < 5 * p * (1 - p) / math.sqrt(m.size)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_the_mask_does_not_depend_on_slices_or_threads(p, monkeypatch):
    masks = []
    for threads, slice_bytes in [(1, 1 << 20), (2, 1 << 20), (2, 12_345), (1, 1 << 40)]:
        monkeypatch.setattr(parallel, "SLICE_BYTES", slice_bytes)
        parallel.set_num_threads(threads)
        masks.append(keep_mask(13, 0, p, (499, 601)))
    for m in masks[1:]:
        np.testing.assert_array_equal(m, masks[0])


@pytest.mark.parametrize(("p", "dtype", "kept"), [(0.5, "u1", 128), (1.0, "u1", 0), (0.3, "u4", 3006477107)])
def test_numbers_below_the_threshold_are_kept(p, dtype, kept):
    assert threshold(p) == (np.dtype(dtype), kept)


@pytest.mark.parametrize("parts", [(6, 4, 5, 3), (6, 1, 1, 3), (6, 1, 1, 1), (1, 1, 1, 1)])
def test_what_is_kept_is_scaled_and_the_place_moves_on(parts):
    x, place = np.random.default_rng(0).uniform(1, 2, (6, 4, 5, 3)), np.array([5, 7], np.uint64)
    y, mask = dropout(x, place, 0.25, parts)
    wanted = np.broadcast_to(keep_mask(5, 7, 0.25, parts), x.shape)
    np.testing.assert_array_equal(y, np.where(wanted, x * (1 / 0.75), 0))
    np.testing.assert_array_equal(dropout_backward(x, mask, 0.25, parts), y)
    assert place.tolist() == [5, 8]
