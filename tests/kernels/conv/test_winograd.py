"""Winograd's convolution against plain loops, PyTorch in float64, and its own adjoints."""

import numpy as np
import pytest
import strict_cupy
import torch
from helpers import poisoned, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.kernels.conv import points, winograd
from tinycnn.kernels.window import Window

TILES = pytest.mark.parametrize("m", [2, 4])
# (N, H, W, C, OC): the weights are cut in the first three, the batch in the others; some in many slices and bands.
SHAPES = [
    (1, 3, 3, 130, 140),
    (2, 9, 3, 40, 300),
    (5, 2, 2, 90, 40),
    (1, 1, 1, 1, 1),
    (9, 40, 37, 40, 20),
    (3, 13, 11, 2, 5),
]
PADS = st.tuples(*[st.tuples(st.integers(0, 4), st.integers(0, 4))] * 2)


def window(pads=((1, 1), (1, 1))):
    return Window((3, 3), (1, 1), pads)


def draw(shape, pads=((1, 1), (1, 1)), dtype=np.float64, seed=0, integers=False):
    """Return x, w, b, dy and the window."""
    N, H, W, C, OC = shape
    rng = np.random.default_rng(seed)
    OH, OW = H + sum(pads[0]) - 2, W + sum(pads[1]) - 2
    fill = (lambda *size: rng.integers(-4, 5, size)) if integers else (lambda *size: rng.standard_normal(size))
    x, w, b, dy = fill(N, H, W, C), fill(OC, 3, 3, C), fill(OC), fill(N, OH, OW, OC)
    return *(v.astype(dtype) for v in (x, w, b, dy)), window(pads)


def seven_loops(x, w, b, pads):
    N, H, W, C = x.shape
    (top, bottom), (left, right) = pads
    y = np.zeros((N, H + top + bottom - 2, W + left + right - 2, len(w)))
    for n, oh, ow, o in np.ndindex(y.shape):
        total = b[o]
        for kh, kw, c in np.ndindex(3, 3, C):
            h, v = oh + kh - top, ow + kw - left
            if 0 <= h < H and 0 <= v < W:
                total += x[n, h, v, c] * w[o, kh, kw, c]
        y[n, oh, ow, o] = total
    return y


def torch_step(x, w, b, dy, window):
    """Return y, dx and dw of PyTorch in float64."""
    x, w, b, dy = (torch.from_numpy(v.astype(np.float64)) for v in (x, w, b, dy))
    x, w = x.permute(0, 3, 1, 2).requires_grad_(), w.permute(0, 3, 1, 2).requires_grad_()
    (top, bottom), (left, right) = window.padding
    y = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (left, right, top, bottom)), w, b)
    y.backward(dy.permute(0, 3, 1, 2))
    return [v.detach().permute(0, 2, 3, 1).numpy() for v in (y, x.grad, w.grad)]


def step(x, w, b, dy, window, m):
    return winograd.forward(x, w, b, window, m), *winograd.backward(dy, x, w, window, m)


@settings(max_examples=25)
@given(st.tuples(*map(st.integers, (1,) * 5, (2, 13, 11, 2, 3))), PADS, st.sampled_from([2, 4]), st.integers(0, 99))
def test_forward_is_the_seven_loops(shape, pads, m, seed):
    if shape[1] + sum(pads[0]) < 3 or shape[2] + sum(pads[1]) < 3:
        return
    x, w, b, _, window = draw(shape, pads, seed=seed)
    assert relative_error(winograd.forward(x, w, b, window, m), seven_loops(x, w, b, pads)) < 1e-12


@settings(max_examples=50)
@given(st.tuples(*map(st.integers, (1,) * 5, (3, 13, 11, 5, 6))), PADS, st.sampled_from([2, 4]), st.integers(0, 99))
def test_output_and_gradients_are_pytorchs_at_any_size_and_padding(shape, pads, m, seed):
    if shape[1] + sum(pads[0]) < 3 or shape[2] + sum(pads[1]) < 3:
        return
    arrays = draw(shape, pads, seed=seed)
    for ours, theirs in zip(step(*arrays, m), torch_step(*arrays), strict=True):
        assert relative_error(ours, theirs) < 1e-12


@TILES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_pytorchs_however_the_work_is_cut(shape, m, monkeypatch):
    arrays = draw(shape)
    wanted = torch_step(*arrays)
    for nbytes in (parallel.SLICE_BYTES, 1 << 14, 1):
        monkeypatch.setattr(parallel, "SERIAL_BYTES", min(nbytes, parallel.SERIAL_BYTES))
        monkeypatch.setattr(parallel, "SLICE_BYTES", nbytes)
        monkeypatch.setattr(points, "BAND_BYTES", max(nbytes // 4, 1))
        for ours, theirs in zip(step(*arrays, m), wanted, strict=True):
            assert relative_error(ours, theirs) < 1e-12


@TILES
def test_only_what_is_asked_for(m):
    for shape in SHAPES:
        x, w, _, dy, window = draw(shape)
        dx, dw = winograd.backward(dy, x, w, window, m)
        only_dx, nothing = winograd.backward(dy, x, w, window, m, need_dw=False)
        np.testing.assert_array_equal(only_dx, dx)
        assert nothing is None
        nothing, only_dw = winograd.backward(dy, x, w, window, m, need_dx=False)
        np.testing.assert_array_equal(only_dw, dw)
        assert nothing is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_2x2_tiles_are_exact_on_small_integers(shape, dtype):
    arrays = draw(shape, dtype=dtype, integers=True)
    for ours, theirs in zip(step(*arrays, 2), torch_step(*arrays), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs)


@TILES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_adjoints(shape, m):
    x, w, _, dy, window = draw(shape)
    y, dx, dw = step(x, w, None, dy, window, m)
    wanted = (y * dy).sum()
    scale = np.linalg.norm(y) * np.linalg.norm(dy)
    assert abs((x * dx).sum() - wanted) < 1e-13 * scale
    assert abs((w * dw).sum() - wanted) < 1e-13 * scale


@pytest.mark.parametrize(("m", "bound"), [(2, 6e-7), (4, 1.6e-6)])
@pytest.mark.parametrize("C", [16, 64, 256])
def test_float32_error_relative_to_the_norm(m, bound, C):
    """Root mean square of the error over that of the result; im2col has 2e-7 to 3e-7."""
    x, w, b, dy, window = draw((2, 16, 16, C, 64), dtype=np.float32)
    x = np.maximum(x, 0)
    plan = points.make_plan(x, window, m)
    assert {plan.A.dtype, plan.B.dtype, plan.GG.dtype} == {np.dtype(np.float32)}
    for ours, theirs in zip(step(x, w, b, dy, window, m), torch_step(x, w, b, dy, window), strict=True):
        assert ours.dtype == np.float32
        assert np.linalg.norm(ours - theirs) < bound * np.linalg.norm(theirs)


@TILES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_do_not_change_a_bit(shape, m, monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1 << 14)
    arrays = draw(shape, dtype=np.float32)
    results = []
    for threads in (1, 2, 5):
        parallel.set_num_threads(threads)
        results.append(step(*arrays, m))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@TILES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_nothing_reads_uninitialised_memory_or_writes_to_its_input(shape, m, monkeypatch):
    arrays = draw(shape)
    before = [v.copy() for v in arrays[:4]]
    clean = step(*arrays, m)
    with poisoned(monkeypatch):
        dirty = step(*arrays, m)
    for a, b in zip([*clean, *before], [*dirty, *arrays], strict=False):
        np.testing.assert_array_equal(a, b)


@TILES
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_on_a_device(shape, m, monkeypatch):
    cupy = strict_cupy.install(monkeypatch)
    *arrays, window = draw(shape)
    there = step(*map(cupy.asarray, arrays), window, m)
    for ours, theirs in zip(step(*arrays, window, m), there, strict=True):
        assert isinstance(theirs, cupy.ndarray)
        assert relative_error(theirs.get(), ours) < 1e-13


def test_memory_stays_that_of_slices():
    parallel.release_scratch()
    parallel.set_num_threads(1)
    x, w, _, dy, window = draw((64, 32, 32, 32, 32), dtype=np.float32)
    step(x, w, None, dy, window, 4)
    scratch = sum(buffer.nbytes for buffer in parallel._local.scratch.values())
    assert scratch < 2 * x.nbytes
