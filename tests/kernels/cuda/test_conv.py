"""Convolution on a GPU against its specification, in float64 on the CPU."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.conv import plan
from tinycnn.kernels.cuda import conv
from tinycnn.kernels.precision import precision
from tinycnn.kernels.window import Window

SAME = Window((3, 3), padding=((1, 1), (1, 1)))
small = st.integers(1, 3)


@st.composite
def cases(draw):
    """(shape of x, OC, window, G) with at least one position; channels odd and even, often more than one BK deep."""
    kernel, stride = (tuple(draw(st.tuples(small, small))) for _ in range(2))
    dilation = tuple(draw(st.tuples(st.integers(1, 2), st.integers(1, 2))))
    padding = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in kernel)
    window = Window(kernel, stride, padding, dilation)
    H, W = (
        draw(st.integers(max(1, d * (k - 1) + 1 - sum(p)), 9))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    G = draw(st.sampled_from((1, 1, 2, 3)))
    C, OC = (G * draw(st.sampled_from((1, 2, 3, 4, 10))) for _ in range(2))
    return (draw(small), H, W, C), OC, window, G


def arrays(shape, OC, window, G, dtype=np.float64, seed=0):
    """x, w, b, dy."""
    rng = np.random.default_rng(seed)
    sizes = shape, (OC, *window.kernel, shape[3] // G), OC, (shape[0], *window.out_size(*shape[1:3]), OC)
    return [rng.standard_normal(size).astype(dtype) for size in sizes]


def specification(x, w, b, dy, window, G):
    """y, dx, dw in float64."""
    x, w, b, dy = (v.astype(np.float64) for v in (x, w, b, dy))
    return (plan.forward(x, w, b, window, G, "im2col"), *plan.backward(dy, x, w, window, G, "im2col"))


def on_gpu(gpu, x, w, b, dy, window, G):
    """The same, in memory that was full of NaN."""
    x, w, b, dy = map(gpu.asarray, (x, w, b, dy))
    results = plan.forward(x, w, b, window, G), *plan.backward(dy, x, w, window, G)
    return [r.get() for r in results]


@pytest.fixture(autouse=True)
def _memory_is_poisoned(gpu, monkeypatch):
    monkeypatch.setattr(gpu, "empty", lambda shape, dtype: gpu.full(shape, np.nan, dtype))


@pytest.mark.parametrize("backwards", ["0", "1"])
def test_float64_agrees_to_the_last_digits(gpu, monkeypatch, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @hypothesis.settings(max_examples=25)
    @given(cases())
    def check(case):
        own = arrays(*case), case[2:]
        for got, wanted in zip(on_gpu(gpu, *own[0], *own[1]), specification(*own[0], *own[1]), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)

    check()


WIDE = (2, 7, 6, 16), 24, SAME, 1
ODD = (1, 6, 5, 3), 5, Window((3, 2), (2, 1), ((1, 0), (0, 1))), 1


def factors(x, kind):
    """What the tensor cores make of ``x``."""
    if kind != "tf32":
        return x
    return ((x.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.mark.parametrize(
    ("kind", "case"),
    [("float32", WIDE), ("tf32", WIDE), ("float16", WIDE), ("float16", ODD), ("bfloat16", WIDE)],
    ids=["float32", "tf32", "float16", "float16-odd", "bfloat16"],
)
def test_sums_are_as_exact_as_float32(gpu, monkeypatch, kind, case):
    """Against float64 on the rounded factors: K additions in float32, and one rounding of the result."""
    dtype = {"tf32": "float32"}.get(kind, kind)
    if kind == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    own = arrays(*case, dtype)
    x, w, dy = (factors(own[i], kind) for i in (0, 1, 3))
    wanted = specification(x, w, own[2], dy, *case[2:])
    size = specification(*(abs(v) for v in (x, w, own[2], dy)), *case[2:])
    shape, OC, window, _ = case
    depth = np.prod(window.kernel) * shape[3], np.prod(window.kernel) * OC, dy[..., 0].size
    last = {"float16": 2.0**-11, "bfloat16": 2.0**-8}.get(kind, 2.0**-24)
    results = []
    for backwards in "01":
        monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
        with precision("tf32" if kind == "tf32" else "float32"):
            results.append(on_gpu(gpu, *own, *case[2:]))
    for got, again, y, s, K in zip(*results, wanted, size, depth, strict=True):
        np.testing.assert_array_equal(got, again)
        assert (abs(got.astype(np.float64) - y) <= (K + 1) * 2.0**-24 * s + 1.001 * last * abs(y)).all()


@pytest.mark.parametrize("splits", [2, 5])
def test_parts_along_the_depth_are_added_in_order(gpu, monkeypatch, splits):
    whole = on_gpu(gpu, *arrays(*WIDE, np.float32), *WIDE[2:])
    chosen = conv.plan
    monkeypatch.setattr(conv, "plan", lambda *args: chosen(*args)._replace(splits=splits))
    own = [on_gpu(gpu, *arrays(*WIDE, np.float32), *WIDE[2:]) for _ in range(2)]
    for a, b, c in zip(*own, whole, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, c, rtol=0, atol=1e-5 * abs(c).max())


@pytest.mark.parametrize(("tile", "which"), [(tile, i % 3) for i, tile in enumerate(conv.TILES)], ids=str)
def test_every_tile(gpu, monkeypatch, tile, which):
    """More rows and columns than a tile has, on tensor cores."""
    case = (2, 9, 9, 64), 72, Window((1, 2)), 1
    monkeypatch.setattr(conv, "plan", lambda *args: conv.Launch(tile, 1))
    x, w, b, dy = arrays(*case, np.float32)
    wanted = specification(x, w, b, dy, *case[2:])[which]
    x, w, b, dy = map(gpu.asarray, (x, w, b, dy))
    with precision("tf32"):
        if which == conv.FORWARD:
            got = conv.forward(x, w, b, *case[2:])
        elif which == conv.DGRAD:
            got = conv.backward_input(dy, x.shape, w, *case[2:])
        else:
            got = conv.backward_weight(dy, x, w.shape, *case[2:])
    np.testing.assert_allclose(got.get(), wanted, rtol=0, atol=2e-3 * abs(wanted).max())


def test_what_is_not_wanted_is_not_computed_and_dw_may_have_its_place(gpu):
    x, w, _, dy = map(gpu.asarray, arrays(*ODD))
    dx, dw = plan.backward(dy, x, w, *ODD[2:])
    assert plan.backward(dy, x, w, *ODD[2:], need_dx=False, need_dw=False) == (None, None)
    for out in (gpu.full(w.shape, np.nan), gpu.full(w.shape[::-1], np.nan).transpose()):
        own_dx, own_dw = plan.backward(dy, x, w, *ODD[2:], need_dx=False, out=out)
        assert own_dx is None
        assert own_dw is out
        np.testing.assert_array_equal(out.get(), dw.get())
    own_dx, own_dw = plan.backward(dy, x, w, *ODD[2:], need_dw=False)
    assert own_dw is None
    np.testing.assert_array_equal(own_dx.get(), dx.get())


def test_memory_in_any_order_and_at_any_address(gpu):
    x, w, b, _ = map(gpu.asarray, arrays((3, 3, 3, 2), 2, SAME, 1))
    wanted = plan.forward(x, w, b, SAME).get()
    askew = gpu.empty(x.size + 1, np.float64)[1:].reshape(x.shape)
    askew[...] = x
    turned = gpu.asarray(x.get().transpose(3, 2, 1, 0).copy()).transpose(3, 2, 1, 0)
    for own in (askew, turned):
        np.testing.assert_array_equal(plan.forward(own, w, b, SAME).get(), wanted)


def test_no_images(gpu):
    x, w, b, dy = map(gpu.asarray, arrays((0, 5, 5, 4), 6, SAME, 1))
    assert plan.forward(x, w, b, SAME).shape == (0, 5, 5, 6)
    dx, dw = plan.backward(dy, x, w, SAME)
    assert dx.shape == x.shape
    assert not dw.get().any()


def test_plans_are_functions_of_the_shape_with_kernels_for_all():
    """Every plan is one of the variants that are compiled, and fills an H100 where there is enough to do."""
    rng = np.random.default_rng(0)
    known = {(which, tile) for _, _, m in conv.VARIANTS for which, tile in [(m["PASS"], (m["BM"], m["BN"]))]}
    for _ in range(200):
        rows, columns, depth = (int(2 ** rng.uniform(0, 20)) for _ in range(3))
        found = conv.plan(conv.Product(1, rows, columns, depth, 4, 4), np.dtype(np.float32), True)
        assert all((which, (found.tile.BM, found.tile.BN)) in known for which in range(3))
        blocks = -(-rows // found.tile.BM) * -(-columns // found.tile.BN) * found.splits
        assert 1 <= found.splits <= max(1, depth // 32)
        assert blocks >= conv.SMS or rows * columns * depth < 1e9
