import numpy as np
import pytest

from tinycnn.optim.state import first_difference, join_state, split_state


def test_splitting_and_joining_are_inverse():
    state = {"optimizer": "Adam", "state": {"m": {"a/b": np.arange(2), "c": np.zeros(1)}, "v": {"c": np.ones(1)}}}
    arrays, rest = split_state(state)
    assert list(arrays) == ["m/a/b", "m/c", "v/c"]
    assert rest == {"optimizer": "Adam"}
    assert join_state(arrays, rest) == state


@pytest.mark.parametrize(
    ("mine", "saved", "message"),
    [
        (["a", "b"], ["a", "c"], "it has 'c' where this optimizer has 'b'"),
        (["a", "b"], ["a"], "it has 1 parameters, this optimizer 2"),
    ],
)
def test_the_first_difference_is_named(mine, saved, message):
    assert first_difference(mine, saved) == message
