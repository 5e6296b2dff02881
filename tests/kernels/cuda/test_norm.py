"""How matrices are divided among blocks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.cuda import module, norm

DTYPES = st.sampled_from([np.float16, np.float32, np.float64]).map(np.dtype)


@given(st.integers(1, 10**7), st.integers(1, 5000), DTYPES, st.sampled_from([1, 7, 1024]), st.booleans())
def test_every_row_and_column_has_its_thread(M, C, dtype, blocks, narrow):
    grid, V = norm.divide(M, C, dtype, blocks, 1 if narrow else None), 1 if narrow else norm.vector_width(C, dtype)
    assert (grid.runs - 1) * grid.R < M <= grid.runs * grid.R
    assert (grid.tiles - 1) * grid.TX * V < C <= grid.tiles * grid.TX * V
    assert grid.TX * grid.TY <= norm.THREADS
    assert -(-grid.TY // 2) * grid.TX <= norm.THREADS * 2 // 3 + 6
    assert grid.TX <= norm.TILE_VECTORS
    assert grid.R % (norm.UNROLL * grid.TY) == 0
    assert grid.runs == 1 or grid.tiles * (grid.runs - 1) <= blocks
    assert grid.runs <= 65535


def test_numbers_are_those_of_the_header():
    text = (module.HERE / "norm.cuh").read_text()
    for name in ("THREADS", "UNROLL", "TICKETS"):
        assert f"#define {name} {getattr(norm, name)}" in text


def test_launches_that_follow_each_other_have_tickets_of_their_own():
    first = [norm.tickets() for _ in range(norm.TICKETS // 64)]
    assert len(set(first)) == len(first)
    assert norm.tickets() == first[0]


def test_an_array_that_begins_between_loads_is_copied(gpu):
    x = gpu.zeros(9, np.float32)
    assert norm.loadable(x) is x
    assert norm.loadable(x[1:]).data.ptr % 16 == 0
    assert norm.loadable(x.reshape(3, 3).T).flags.c_contiguous
