"""Which kernels convolve on a GPU, and that all of them do the same."""

import numpy as np
import pytest

from tinycnn import Conv2d
from tinycnn.kernels.conv import plan
from tinycnn.kernels.conv.plan import Problem
from tinycnn.kernels.cuda import conv, gemm, routes
from tinycnn.kernels.precision import precision
from tinycnn.kernels.window import Window

SAME = Window((3, 3), padding=((1, 1), (1, 1)))
WIDE, GROUPS = Problem((2, 6, 5, 16), 24, SAME), Problem((2, 6, 5, 12), 12, SAME, 12)


@pytest.fixture(autouse=True)
def _nothing_is_preferred(monkeypatch):
    monkeypatch.setattr(plan, "_preferred", None)


def test_the_rule():
    assert routes.choose(WIDE) == ("implicit", "implicit", "implicit")
    assert routes.choose(GROUPS) == ("direct", "direct", "direct")
    for unknown in ("strips", "winograd3", "128x64 direct", ""):
        assert not routes.is_known(unknown)
        assert routes.choose(WIDE, unknown) == routes.choose(WIDE)


def test_one_name_or_three():
    assert routes.choose(WIDE, "im2col") == ("im2col",) * 3
    mixed = routes.choose(WIDE, "128x64 direct im2col")
    assert mixed == ("128x64", "implicit", "im2col"), "what cannot be done gives way to the rule"
    assert mixed.algorithm == "128x64 implicit im2col"
    assert routes.choose(GROUPS, "implicit").algorithm == "implicit"


def test_what_there_is_to_measure():
    every = ["128x128", "128x64", "64x64", "128x32", "64x32", "128x16"]
    float32, double = np.dtype(np.float32), np.dtype(np.float64)
    assert routes.candidates(WIDE, float32, "forward") == [*every, "im2col"]
    assert routes.candidates(GROUPS, float32, "dx") == ["64x32", "direct", "im2col"]
    assert routes.candidates(WIDE, double, "dw") == ["64x32", "im2col"]
    few = Problem((2, 6, 5, 16), 3, SAME)
    assert routes.candidates(few, float32, "forward") == [*every, "im2col"]
    assert routes.candidates(few, float32, "dw") == ["64x32", "im2col"]
    large = Problem((512, 56, 56, 256), 64, SAME)
    measured = routes.candidates(large, float32, "forward")
    assert "im2col" not in measured, "its patches would take 14 GB"
    assert measured[-2:] == ["winograd2", "winograd4"]
    with precision("tf32"):
        assert "winograd2" not in routes.candidates(large, float32, "forward")
    assert routes.candidates(Problem((2, 6, 5, 16), 24, Window((1, 1))), float32, "forward") == every


@pytest.mark.parametrize("problem", [WIDE, GROUPS])
def test_every_route_gives_the_same(gpu, problem):
    rng, dtype = np.random.default_rng(0), np.float64
    w_shape = problem.OC, 3, 3, problem.x_shape[3] // problem.G
    x, w, b, dy = (rng.standard_normal(s) for s in (problem.x_shape, w_shape, problem.OC, problem.y_shape))
    wanted = plan.forward(x, w, b, SAME, problem.G), *plan.backward(dy, x, w, SAME, problem.G)
    x, w, b, dy = map(gpu.asarray, (x, w, b, dy))
    for algorithm in ("auto", "implicit", "direct", "im2col", "winograd2", "winograd4 winograd4 winograd4"):
        dx, dw = plan.backward(dy, x, w, SAME, problem.G, algorithm)
        out = gpu.full(w_shape[::-1], np.nan, dtype).transpose()
        assert plan.backward(dy, x, w, SAME, problem.G, algorithm, need_dx=False, out=out) == (None, out)
        y = plan.forward(x, w, b, SAME, problem.G, algorithm)
        for own, right in zip((y, dx, dw, out), (*wanted, wanted[2]), strict=True):
            np.testing.assert_allclose(own.get(), right, rtol=1e-12, atol=1e-12)


def test_each_pass_takes_its_route(gpu, monkeypatch):
    called = []
    monkeypatch.setattr(conv, "plan", lambda *args: called.append(args[2]) or gemm.Launch(gemm.NARROW, 1))
    x, w = gpu.ones((1, 4, 4, 4), np.float32), gpu.ones((4, 1, 1, 4), np.float32)
    algorithm, window = "128x64 64x32 implicit", Window((1, 1))
    plan.forward(x, w, None, window, 1, algorithm)
    plan.backward(x, x, w, window, 1, algorithm)
    assert called == [routes.TILES["128x64"], routes.TILES["64x32"], None]


def test_a_tile_is_taken_where_there_is_a_kernel_with_it():
    float32, double = gemm.KINDS["float32"][0], gemm.KINDS["float64"][0]
    product = gemm.Product(gemm.FORWARD, 1, 10**6, 64, 576, 4, 4)
    for tile in gemm.TILES:
        assert gemm.plan(product, float32, tile).tile == tile
    assert gemm.plan(product._replace(VA=1, VB=1), float32, gemm.TILES[0]).tile == gemm.NARROW
    assert gemm.plan(product._replace(VA=2, VB=2), double, gemm.TILES[0]).tile == gemm.NARROW


def test_a_layer_says_what_it_takes(gpu):
    layer = Conv2d(16, 24, 3, padding=1, algorithm="128x64 im2col implicit")
    shape = (2, 16, 6, 5)
    assert layer.chosen_algorithm(shape) in plan.ALGORITHMS, "a GPU's algorithms are none of the CPU's"
    layer.to("cuda")
    assert layer.chosen_algorithm(shape) == "128x64 im2col implicit"
    layer.algorithm = "winograd4"
    assert layer.chosen_algorithm(shape) == "winograd4"
    with precision("tf32"):
        assert layer.chosen_algorithm(shape) == "implicit", "tensor cores are no help to it"
    layer.algorithm = "strips"
    assert layer.chosen_algorithm(shape) == "implicit"
    with plan.prefer("im2col"):
        assert layer.chosen_algorithm(shape) == "im2col"
        with precision("tf32"):
            assert layer(gpu.ones(shape, np.float32)).shape == (2, 24, 6, 5)
