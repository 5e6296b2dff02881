"""Tables of addresses."""

import numpy as np
import pytest

from tinycnn.kernels.cuda import places as module
from tinycnn.kernels.cuda.places import is_dense, places


def covered(table, column, x):
    """How often the table's tiles cover each element of ``x``."""
    counts = np.zeros(x.size, int)
    for row in table.table.get():
        first = (row[column] - x.data.ptr) // x.itemsize
        if 0 <= first < x.size:
            counts[first : first + row[-1]] += 1
    return counts


@pytest.mark.parametrize("sizes", [[1], [5, 0, 1024, 1025], [3000, 17], [2_200_000, 3]])
def test_every_element_is_in_one_tile_of_each_column(gpu, sizes):
    columns = [[gpu.zeros(size, np.float32) for size in sizes] for _ in range(2)]
    table = places(*columns)
    assert table.table.shape == (table.tiles, 3)
    limit = 4096 if sum(sizes) > 2_000_000 else 1024
    assert (table.table.get()[:, -1] <= limit).all()
    for i, column in enumerate(columns):
        for x in column:
            assert (covered(table, i, x) == 1).all()


def test_columns_advance_together(gpu):
    x, y = gpu.zeros(3000), gpu.zeros(3000)
    steps = places([x], [y]).table.get()[:, :2] - [x.data.ptr, y.data.ptr]
    np.testing.assert_array_equal(steps[:, 0], steps[:, 1])
    np.testing.assert_array_equal(steps[:, 0], [0, 8 * 1024, 8 * 2048])


def test_a_table_is_kept_while_the_arrays_stay(gpu):
    x = gpu.zeros(10)
    table = places([x])
    assert places([x]) is table
    assert places([x[1:]]) is not table
    assert places([x.reshape(2, 5)]) is not table
    others = [gpu.zeros(3) for _ in range(module.KEPT)]
    for other in others:
        places([other])
    assert places([x]) is not table
    assert len(module._tables) == module.KEPT


def test_dense_means_without_gaps_in_any_order_of_axes(gpu):
    x = gpu.zeros((4, 3, 5, 2))
    assert is_dense(x)
    assert is_dense(x.transpose(0, 3, 1, 2))
    assert is_dense(x[1:3])
    assert is_dense(gpu.zeros((0, 3)))
    assert not is_dense(x[:, 1:])
    assert not is_dense(x[::2])
    assert not is_dense(x[::-1])


def test_arrays_with_gaps_or_in_other_orders_are_refused(gpu):
    x = gpu.zeros((4, 3))
    for columns in ([[x[:, 1:]]], [[x], [gpu.zeros((3, 4)).transpose(1, 0)]], [[x], [gpu.zeros((3, 4))]]):
        with pytest.raises(ValueError, match="gaps in memory, or do not lie in it alike"):
            places(*columns)
