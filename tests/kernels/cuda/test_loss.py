"""Losses and their gradients on a GPU against their specification: one launch, nothing waited for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import BCEWithLogitsLoss, CrossEntropyLoss, MSELoss
from tinycnn.kernels import loss as formulas
from tinycnn.kernels.cuda import loss as twins

TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "float16": 2**-10, "bfloat16": 2**-7}
"""Relative to 1 and to the largest entry; gradients of 16 bits are rounded to 11 and to 8 bits, losses are not."""
REDUCTIONS = st.sampled_from(["mean", "sum", "none"])
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE)
ORDERS = pytest.mark.parametrize("backwards", ["0", "1"])


def dtype_of(name):
    return np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if name == "bfloat16" else name)


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels launched."""
    from tinycnn.kernels.cuda import module

    names, call = [], module.Kernel.__call__

    def noted(kernel, *args, **kwargs):
        names.append(kernel.name)
        call(kernel, *args, **kwargs)

    monkeypatch.setattr(module.Kernel, "__call__", noted)
    return names


@pytest.fixture
def dirty(gpu, monkeypatch):
    """All memory that is handed out has something in it that nobody may read."""
    empty = gpu.empty

    def poisoned(shape, dtype=np.float64):
        x = empty(shape, dtype)
        x.fill(np.nan if x.dtype.kind != "u" else 77)
        return x

    monkeypatch.setattr(gpu, "empty", poisoned)


def agree(ours, theirs, dtype, sizes=1):
    """Loss and gradient; ``sizes`` losses of about 1 have been added."""
    bounds = TOLERANCE["float32" if dtype in ("float16", "bfloat16") else dtype], TOLERANCE[dtype]
    for own, wanted, bound in zip(ours, theirs, bounds, strict=True):
        own, wanted = own.get().astype(np.float64), np.asarray(wanted, np.float64)
        assert own.shape == wanted.shape
        scale = bound * max(np.abs(wanted[np.isfinite(wanted)]).max(initial=0), 1e-30)
        np.testing.assert_allclose(own, wanted, rtol=bound, atol=scale)


@st.composite
def problems(draw):
    """(logits, targets, options) of cross-entropy, in float64."""
    M, C = draw(st.sampled_from([1, 2, 5, 9, 33])), draw(st.sampled_from([1, 2, 10, 31, 32, 33, 100]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    x = rng.normal(size=(M, C)) * draw(st.sampled_from([1, 300]))  # exp(300) has no float32
    soft, ignored = draw(st.booleans()), draw(st.sampled_from([-100, 0, 255]))
    y = rng.integers(0, C, M)
    y[rng.uniform(size=M) < 0.3] = ignored
    return (
        x,
        rng.dirichlet(np.ones(C), M) if soft else y,
        draw(st.sampled_from([None, rng.uniform(0.1, 2, C)])),
        -100 if soft else ignored,
        draw(st.sampled_from([0.0, 0.1, 1.0])),
        draw(REDUCTIONS),
        draw(st.sampled_from([None, 64.0])),
    )


def run(gpu, problem, dtype, exact):
    x, t, w, ignored, smoothing, reduction, scale = problem
    t = t.astype(exact) if t.dtype.kind == "f" else t
    arrays = gpu.asarray(x.astype(dtype)), gpu.asarray(t), None if w is None else gpu.asarray(w.astype(exact))
    scale = None if scale is None else gpu.asarray(np.array(scale, exact))
    return formulas.cross_entropy(*arrays, ignored, smoothing, reduction, scale, None)


@ORDERS
@DTYPES
@pytest.mark.parametrize("paths", ["usual", "many-labels", "many-classes"])
def test_cross_entropy_is_its_specification(gpu, dirty, monkeypatch, launched, backwards, dtype, paths):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    monkeypatch.setattr(twins, "FEW_LABELS", 0 if paths == "many-labels" else 4096)
    monkeypatch.setattr(twins, "FEW_CLASSES", 8 if paths == "many-classes" else 1024)
    kind = dtype_of(dtype)
    exact = np.float64 if dtype == "float64" else np.float32

    @settings(max_examples=10 if paths == "usual" else 5)
    @given(problems())
    def check(problem):
        x, t, w, *options, scale = problem
        x = x.astype(kind).astype(np.float64)
        t = t.astype(exact).astype(np.float64) if t.dtype.kind == "f" else t
        with np.errstate(invalid="ignore"):
            wanted = formulas.cross_entropy(x, t, w, *options, scale, None)
        launched.clear()
        agree(run(gpu, (x, *problem[1:]), kind, exact), wanted, dtype)
        counts_first = paths == "many-labels" and options[2] == "mean" and t.dtype.kind != "f"
        assert len(launched) == 1 + counts_first

    check()


@ORDERS
@pytest.mark.parametrize("blocks", [None, 1])
def test_a_thousand_classes_and_more_than_a_block_of_rows(gpu, monkeypatch, backwards, blocks):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    if blocks:
        monkeypatch.setattr(twins, "blocks_for", lambda n, threads=256: blocks)
    rng = np.random.default_rng(0)
    for M, C in ((150, 10), (3, 1000), (4, 1500)):
        x, y = 1000 * rng.normal(size=(M, C)), rng.integers(0, C, M)  # exp(1000) is no float64
        x[:, 250:256] += 5000  # these are up to the last warp of a block
        ours = formulas.cross_entropy(gpu.asarray(x), gpu.asarray(y), None, -100, 0.1, "mean", None, None)
        agree(ours, formulas.cross_entropy(x, y, None, -100, 0.1, "mean", None, None), "float64")


@ORDERS
def test_more_rows_than_the_grid_has_warps(gpu, monkeypatch, backwards):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    monkeypatch.setattr(twins, "blocks_for", lambda n, threads=256: 3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(800, 3)), rng.integers(0, 3, 800)
    for classes, labels in ((1024, 4096), (2, 4096), (1024, 5)):
        monkeypatch.setattr(twins, "FEW_CLASSES", classes)
        monkeypatch.setattr(twins, "FEW_LABELS", labels)
        some = slice(0, 100 if classes == 2 else 800)
        ours = formulas.cross_entropy(gpu.asarray(x[some]), gpu.asarray(y[some]), None, 1, 0.0, "mean", None, None)
        agree(ours, formulas.cross_entropy(x[some], y[some], None, 1, 0.0, "mean", None, None), "float64")
    ours = formulas.squared_error(gpu.asarray(x), gpu.asarray(2 * x), "mean", None)
    agree(ours, formulas.squared_error(x, 2 * x, "mean", None), "float64")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes(gpu, dtype):
    x = np.array([[1e4, -1e4, 0], [-1e30, 1e30, 0], [0, -np.inf, 1], [-1e4, -1e4, -1e4]], dtype)
    for y, smoothing in ((np.array([0, 0, 2, 1]), 0.0), (np.array([1, 1, 0, -100]), 0.0)):
        wanted = formulas.cross_entropy(x, y, None, -100, smoothing, "none", None, None)
        ours = formulas.cross_entropy(gpu.asarray(x), gpu.asarray(y), None, -100, smoothing, "none", None, None)
        for a, b in zip(ours, wanted, strict=True):
            np.testing.assert_allclose(a.get(), b, rtol=1e-6, atol=1e-7)
    nan = np.array([[0, np.nan, 1], [0, 1, 2]], dtype)
    loss, dx = CrossEntropyLoss(reduction="none")(gpu.asarray(nan), gpu.asarray(np.array([0, 0])))
    assert np.isnan(loss.get()).tolist() == [True, False]
    assert np.isnan(dx.get()).all(axis=1).tolist() == [True, False]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("make", [CrossEntropyLoss, MSELoss, BCEWithLogitsLoss])
def test_nothing_counts_or_there_is_nothing(gpu, make, reduction):
    x = np.zeros((0, 5))
    loss, dx = make(reduction=reduction)(gpu.asarray(x), gpu.asarray(x))
    wanted, _ = make(reduction=reduction)(x, x)
    np.testing.assert_array_equal(loss.get(), wanted)
    assert dx.shape == (0, 5)
    if make is CrossEntropyLoss:
        x, y = np.ones((3, 5)), np.full(3, -100)
        loss, dx = make(reduction=reduction)(gpu.asarray(x), gpu.asarray(y))
        np.testing.assert_array_equal(loss.get(), make(reduction=reduction)(x, y)[0])
        np.testing.assert_array_equal(dx.get(), 0)


@ORDERS
@DTYPES
@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4, 2), (3, 400)])
def test_losses_element_by_element_are_their_specification(gpu, dirty, monkeypatch, backwards, dtype, shape):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
    kind = dtype_of(dtype)
    exact = np.float64 if dtype == "float64" else np.float32
    rng = np.random.default_rng(0)
    x = (4 * rng.normal(size=shape)).astype(kind).astype(np.float64)
    t = rng.uniform(size=shape).astype(exact).astype(np.float64)
    w, r = (rng.uniform(0.1, 2, shape[-1]) for _ in range(2))
    for make in (
        MSELoss,
        BCEWithLogitsLoss,
        lambda reduction: BCEWithLogitsLoss(w, reduction, r),
        lambda reduction: BCEWithLogitsLoss(None, reduction, rng.uniform(0.1, 2, shape)),
    ):
        for reduction in ("mean", "sum", "none"):
            loss_fn = make(reduction=reduction)
            wanted = loss_fn(x, t)
            ours = loss_fn(gpu.asarray(x.astype(kind)), gpu.asarray(t.astype(exact)))
            assert ours[0].dtype == exact
            assert ours[1].dtype == kind
            agree(ours, wanted, dtype)


def test_bce_keeps_the_digits_of_tiny_losses(gpu):
    x, t = np.array([40.0, -40.0, 0.0, 1e4, -1e4, np.nan]), np.array([1.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    wanted = BCEWithLogitsLoss(reduction="none")(x, t)
    for own, theirs in zip(BCEWithLogitsLoss(reduction="none")(gpu.asarray(x), gpu.asarray(t)), wanted, strict=True):
        np.testing.assert_allclose(own.get(), theirs, rtol=1e-14)


def test_images_with_a_label_per_pixel(gpu):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5)).astype(np.uint8)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for logits in (x, last):
        for reduction in ("mean", "none"):
            loss_fn = CrossEntropyLoss([0.5, 1, 2], reduction=reduction)
            ours = loss_fn(gpu.asarray(logits), gpu.asarray(y))
            agree(ours, loss_fn(x, y), "float64")
            assert ours[1].transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("weight", [None, np.arange(1.0, 6)], ids=["plain", "weighted"])
def test_a_label_out_of_range_is_noted_and_makes_the_loss_nan(gpu, weight):
    x = gpu.asarray(np.zeros((6, 5), np.float32))
    loss_fn = CrossEntropyLoss(weight)
    loss, _ = loss_fn(x, gpu.asarray(np.array([0, 1, 2, 3, 4, -100])))
    assert np.isfinite(loss.get())
    loss_fn.check()
    _, wanted = CrossEntropyLoss(weight)(x.get(), np.array([0, 1, -100, -100, 4, -100]))
    for label in (7, 5, -1, -(2**40)):
        y = gpu.asarray(np.array([0, 1, -100, label, 4, 99]))
        loss, dx = loss_fn(x, y)
        assert np.isnan(loss.get())
        wanted[[3, 5]] = np.nan
        np.testing.assert_allclose(dx.get(), wanted, rtol=1e-6)
        shown = max(label, -(2**31))
        with pytest.raises(ValueError, match=f"label {shown} at position 3 of a batch since the last check"):
            loss_fn.check()
        loss_fn.check()
    unchecked = CrossEntropyLoss(check_labels=False)
    assert np.isnan(unchecked(x, y)[0].get())
    unchecked.check()
    CrossEntropyLoss().check()


@pytest.mark.parametrize(
    "loss_fn",
    [
        CrossEntropyLoss(),
        CrossEntropyLoss([1.0, 2.0, 3.0], label_smoothing=0.1),
        MSELoss(),
        BCEWithLogitsLoss(np.ones(3), "mean", [2.0, 1.0, 3.0]),
    ],
    ids=str,
)
def test_it_can_be_captured(gpu, loss_fn):
    rng = np.random.default_rng(0)
    labels = isinstance(loss_fn, CrossEntropyLoss)
    x, t = (
        gpu.asarray(rng.normal(size=(4, 3))),
        gpu.asarray(rng.integers(0, 3, 4) if labels else rng.uniform(size=(4, 3))),
    )
    pool, stream = gpu.cuda.MemoryPool(), gpu.cuda.Stream(non_blocking=True)
    with stream, gpu.cuda.using_allocator(pool.malloc):
        loss_fn(x, t)
        stream.begin_capture()
        loss, dx = loss_fn(x, t)
        graph = stream.end_capture()
    for _ in range(3):
        fresh = rng.normal(size=(4, 3))
        x[...] = gpu.asarray(fresh)
        graph.launch(stream)
        stream.synchronize()
        agree((loss, dx), loss_fn(fresh, t.get()), "float64")


def test_the_gradient_of_float16_is_scaled_before_it_is_rounded(gpu):
    x = np.array([[0, 20.0], [20.0, 0]], np.float16)
    loss_fn = CrossEntropyLoss()
    _, plain = loss_fn(gpu.asarray(x), gpu.asarray(np.array([1, 0])))
    loss_fn.grad_scale = gpu.full((), 2.0**16, np.float32)
    loss, scaled = loss_fn(gpu.asarray(x), gpu.asarray(np.array([1, 0])))
    wanted, dx = CrossEntropyLoss()(x.astype(np.float32), np.array([1, 0]))
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss.get(), wanted, rtol=1e-5)
    assert not plain.get().any()
    assert dx.any()
    np.testing.assert_allclose(scaled.get(), dx * 2**16, rtol=1e-3)
