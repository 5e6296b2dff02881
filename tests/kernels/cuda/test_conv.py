"""Convolution on a GPU against its specification, in float64 on the CPU."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.kernels.conv import plan
from tinycnn.kernels.cuda import conv, gemm
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
    results = plan.forward(x, w, b, window, G, "implicit"), *plan.backward(dy, x, w, window, G, "implicit")
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


@pytest.mark.parametrize(("tile", "which"), [(tile, i % 3) for i, tile in enumerate(gemm.TILES)], ids=str)
def test_every_tile(gpu, monkeypatch, tile, which):
    """More rows and columns than a tile has, on tensor cores."""
    case = (2, 9, 9, 64), 72, Window((1, 2)), 1
    monkeypatch.setattr(conv, "plan", lambda *args: gemm.Launch(tile, 1))
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


def test_more_images_than_a_kernel_can_index_go_a_few_at_a_time(gpu, monkeypatch):
    case = (5, 4, 5, 4), 6, SAME, 1
    wanted = on_gpu(gpu, *arrays(*case), *case[2:])
    monkeypatch.setattr(conv, "MOST", 2 * 4 * 5 * 6)
    for own, right in zip(on_gpu(gpu, *arrays(*case), *case[2:]), wanted, strict=True):
        np.testing.assert_allclose(own, right, rtol=1e-12, atol=1e-12)
    monkeypatch.setattr(conv, "MOST", 4 * 5 * 6 - 1)
    with pytest.raises(ValueError, match="images and filters of a convolution have at most 119 elements"):
        on_gpu(gpu, *arrays(*case), *case[2:])


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("add", [False, True])
def test_the_gradient_of_filters_may_have_the_type_of_sums(gpu, monkeypatch, splits, add):
    """As in mixed precision: activations of 16 bits, and no rounding of dw to them."""
    _, OC, window, G = WIDE
    x, w, _, dy = arrays(*WIDE, np.float16)
    chosen = conv.plan
    monkeypatch.setattr(conv, "plan", lambda *args: chosen(*args)._replace(splits=splits))
    out = gpu.full(w.shape, 100 if add else np.nan, np.float32)
    assert conv.backward_weight(gpu.asarray(dy), gpu.asarray(x), w.shape, window, G, out, add) is out
    dw = specification(x, w, np.zeros(OC), dy, window, G)[2] + 100 * add
    np.testing.assert_allclose(out.get(), dw, rtol=0, atol=1e-5 * abs(dw).max())
