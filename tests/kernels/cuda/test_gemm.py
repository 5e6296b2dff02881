"""How products are cut: the choices, whatever their speed, must be possible."""

import numpy as np
import pytest

from tinycnn.kernels.cuda import conv
from tinycnn.kernels.cuda.gemm import (
    DGRAD,
    FORWARD,
    KINDS,
    NARROW,
    PASSES,
    SMS,
    STAGES,
    TILES,
    WGRAD,
    Kind,
    Product,
    loads,
    macros,
    plan,
    predicted_cycles,
    shared_bytes,
)

TF32 = KINDS["float32"][1]


def resnet20(C, H, which=FORWARD, N=128):
    """A 3×3 convolution of ResNet-20, from C to C channels."""
    rows, depth = N * H * H, 9 * C
    sizes = (depth, C, rows) if which == WGRAD else (rows, C, depth)
    return Product(which, 1, *sizes, 4, 4)


def test_every_plan_is_one_of_the_variants():
    rng = np.random.default_rng(0)
    known = {dtype: [m for _, d, m in conv.VARIANTS if d == dtype] for dtype in KINDS}
    for dtype, kinds in KINDS.items():
        for kind in kinds:
            for _ in range(30):
                rows, columns, depth = (int(2 ** rng.uniform(0, 16)) for _ in range(3))
                which, a, b = int(rng.integers(3)), *(bool(v) for v in rng.integers(2, size=2))
                V = loads(which, kind, a, b)
                tile, splits = plan(Product(which, 1, rows, columns, depth, *V), kind)
                assert macros(which, kind, tile, *V) in known[dtype]
                assert splits == 1 or splits <= depth // kind.BK


def test_loads_are_as_long_as_the_arrays_allow():
    for which in PASSES:
        assert loads(which, TF32, True, True) == (4, 4)
        assert loads(which, TF32, False, False) == (1, 1)
    assert loads(FORWARD, TF32, True, False) == loads(DGRAD, TF32, False, True) == (1, 1)
    assert loads(DGRAD, KINDS["float16"][0], True, False) == (8, 1)
    assert loads(WGRAD, KINDS["float64"][0], False, True) == (1, 2)


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize(("C", "H"), [(16, 32), (32, 16), (64, 8)])
def test_most_multiprocessors_have_work(which, C, H):
    product = resnet20(C, H, which)
    tile, splits = plan(product, TF32)
    assert -(-product.rows // tile.BM) * -(-product.columns // tile.BN) * splits >= 0.8 * SMS


def test_little_work_is_not_cut():
    assert plan(Product(FORWARD, 1, 128, 16, 64, 4, 4), TF32).splits == 1


def test_the_plan_is_the_best_that_is_predicted():
    product = resnet20(32, 16)
    best = plan(product, TF32)
    for tile in TILES:
        assert predicted_cycles(product, TF32, best) <= predicted_cycles(product, TF32, plan(product, TF32, tile))


def test_a_gpu_with_less_shared_memory_takes_smaller_tiles():
    product = Product(FORWARD, 1, 1 << 20, 512, 4608, 4, 4)
    assert plan(product, TF32).tile == TILES[0]
    small = plan(product, TF32, limit=99 << 10).tile
    assert small != TILES[0]
    assert shared_bytes(FORWARD, TF32, small) <= 95 << 10
    assert plan(product, TF32, TILES[0], limit=48 << 10).tile == NARROW


def test_shared_memory_is_what_the_layouts_need():
    float32 = KINDS["float32"][0]
    assert float32 == Kind(4, False)
    rows, columns, BK, pad = 64, 32, 16, 4
    assert shared_bytes(FORWARD, float32, NARROW) == 4 * STAGES * (rows + columns) * (BK + pad)
    assert shared_bytes(DGRAD, float32, NARROW) == 4 * STAGES * (rows * (BK + pad) + BK * (columns + 8))
    assert shared_bytes(WGRAD, float32, NARROW) == 4 * STAGES * BK * (rows + columns + 16)
