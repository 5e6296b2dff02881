import numpy as np

from tinycnn.optim.vectors import add_square, decayed, lerp, memory_order, work
from tinycnn.parameter import Parameter


def test_lerp_and_add_square_by_hand():
    average, x = np.array([1.0, 2.0]), np.array([3.0, -2.0])
    lerp(average, x, 0.25, work(average, "a"))
    np.testing.assert_array_equal(average, [1.5, 1.0])
    add_square(average, x, 0.5, work(average, "a"))
    np.testing.assert_array_equal(average, [0.75 + 4.5, 0.5 + 2.0])


def test_decay_by_hand():
    p, g = np.array([2.0, -4.0]), np.array([1.0, 1.0])
    assert decayed(p, g, {"weight_decay": 0}) is g
    np.testing.assert_array_equal(decayed(p, g, {"weight_decay": 0.5}), [2.0, -1.0])
    np.testing.assert_array_equal(p, [2.0, -4.0])
    assert decayed(p, g, {"weight_decay": 0.5, "decoupled_weight_decay": True, "lr": 0.5}) is g
    np.testing.assert_array_equal(p, [1.5, -3.0])
    np.testing.assert_array_equal(g, [1.0, 1.0])


def test_memory_order_is_a_view_in_the_order_of_memory():
    for shape in [(2, 3, 4, 5), (6, 7), (5,)]:
        x = Parameter(np.arange(float(np.prod(shape))).reshape(shape)).data
        flat = memory_order(x)
        assert np.shares_memory(flat, x)
        assert flat.flags.c_contiguous
        np.testing.assert_array_equal(np.sort(flat), np.sort(x, axis=None))
