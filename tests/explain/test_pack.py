"""Numbers come back from text as they were, or as exactly as three bytes allow; each once."""

import numpy as np
import pytest

from tinycnn.explain.pack import Store, decode, encode

NUMBERS = np.concatenate(
    [
        np.float32([0, 1, -1, 3.4e38, -1e-38, 1e-45, 0.1]),
        np.random.default_rng(0).standard_normal(500).astype(np.float32),
    ]
)


def test_four_bytes_are_exact():
    np.testing.assert_array_equal(decode(encode(NUMBERS, 4), 4), NUMBERS)


def test_three_bytes_round_to_nearest():
    numbers = NUMBERS[np.abs(NUMBERS) > 1e-37]
    got = decode(encode(numbers, 3), 3)
    assert (np.abs(got - numbers) <= 2.0**-16 * np.abs(numbers)).all()
    assert (got.view(np.uint32) & 0xFF == 0).all()
    assert np.abs(((got - numbers) / numbers).mean()) < 1e-6, "cut off rather than rounded"


@pytest.mark.parametrize("kept", [3, 4])
def test_each_array_is_there_once(kept):
    store = Store(kept)
    a, b = np.ones((2, 3)), np.arange(4.0)
    first = store.add(a)
    assert store.add(a.reshape(3, 2)) == first  # the same numbers in another shape
    assert store.open_size == 6 * kept * 4 // 3
    assert store.close()
    again, second = store.add(a), store.add(b)
    assert store.close()
    assert (again, store.places) == (first, [(0, 0, 6), (1, 0, 4)])
    group, start, count = store.places[second]
    np.testing.assert_array_equal(decode(store.groups[group], kept)[start : start + count], b)


def test_what_does_not_fit_is_forgotten():
    store = Store()
    store.add(np.ones(3))
    assert store.close()
    size = store.size
    store.add(np.random.default_rng(0).standard_normal(1000))
    assert not store.close(limit=size + 100)
    assert store.size == size
    number = store.add(np.arange(5.0))
    assert store.close()
    assert store.places[number] == (1, 0, 5)


def test_nothing_is_nothing():
    assert Store().add(None) is None
