"""Convolutions by filters that are kept, with what follows, against PyTorch; however the work is cut."""

import numpy as np
import pytest
import torch
from helpers import poisoned, relative_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinycnn import parallel
from tinycnn.kernels.conv import fixed, plan
from tinycnn.kernels.conv.fixed import FixedFilters
from tinycnn.kernels.window import Window

SAME = Window((3, 3), padding=((1, 1), (1, 1)))
# (N, H, W, C, OC), window, groups: images in bands, weights cut in blocks of 64, and what falls in between.
CASES = [
    ((1, 33, 20, 5, 6), SAME, 1),
    ((3, 14, 15, 8, 70), SAME, 1),
    ((1, 7, 7, 130, 192), SAME, 1),
    ((2, 6, 5, 160, 100), SAME, 1),
    ((1, 9, 9, 66, 128), Window((3, 3), (2, 2), ((1, 1), (1, 1))), 1),
    ((2, 41, 30, 3, 8), Window((7, 7), (2, 2), ((3, 3), (3, 3))), 1),
    ((1, 20, 17, 6, 9), Window((2, 3), (1, 2), ((0, 3), (2, 0)), (3, 1)), 3),
    ((4, 12, 12, 10, 20), Window((1, 1)), 1),
    ((1, 12, 12, 10, 20), Window((1, 1), (2, 2)), 1),
]


def draw(shape, window, G, seed=0, dtype=np.float64):
    """Return x (N, H, W, C), w (OC, C/G, KH, KW) on channels-last memory, b (OC,) and a shortcut."""
    N, H, W, C, OC = shape
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((N, H, W, C)), rng.standard_normal((OC, *window.kernel, C // G))
    s = rng.standard_normal((N, *window.out_size(H, W), OC))
    x, w, b, s = (v.astype(dtype) for v in (x, w, rng.standard_normal(OC), s))
    return x, w.transpose(0, 3, 1, 2), b, s


def pytorchs(x, w, b, s, relu, window, G):
    x, w = (torch.from_numpy(np.ascontiguousarray(v)).double() for v in (x.transpose(0, 3, 1, 2), w))
    (top, bottom), (left, right) = window.padding
    x = torch.nn.functional.pad(x, (left, right, top, bottom))
    bias = None if b is None else torch.from_numpy(b).double()
    y = torch.nn.functional.conv2d(x, w, bias, window.stride, dilation=window.dilation, groups=G)
    y = y.permute(0, 2, 3, 1).numpy() + (0 if s is None else s)
    return np.maximum(y, 0) if relu else y


@pytest.mark.parametrize("algorithm", plan.ALGORITHMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0])))
def test_output_is_pytorchs_however_the_work_is_cut(case, algorithm, monkeypatch):
    x, w, b, s = draw(*case)
    for bias, shortcut, relu in ((b, s, True), (None, None, False), (b, None, True), (None, s, False)):
        wanted = pytorchs(x, w, bias, shortcut, relu, *case[1:])
        filters = FixedFilters(w, bias, *case[1:], algorithm)
        for nbytes in (parallel.SLICE_BYTES, 1 << 14, 1):
            with monkeypatch.context() as patch:
                patch.setattr(parallel, "SERIAL_BYTES", min(nbytes, parallel.SERIAL_BYTES))
                patch.setattr(parallel, "SLICE_BYTES", nbytes)
                with poisoned(monkeypatch):
                    y = filters.convolve(x, shortcut, relu)
            assert relative_error(y, wanted) < 1e-12


@settings(max_examples=60)
@given(
    st.tuples(*map(st.integers, (1,) * 5, (3, 19, 13, 5, 6))),
    st.builds(Window, *[st.tuples(st.integers(1, 3), st.integers(1, 3))] * 2),
    st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * 2),
    st.sampled_from(plan.ALGORITHMS),
    st.integers(0, 99),
)
def test_output_is_pytorchs_at_any_size(shape, window, pads, algorithm, seed):
    window = Window(window.kernel, window.stride, pads)
    assume(min(window.out_size(*shape[1:3])) > 0)
    x, w, b, s = draw(shape, window, 1, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "SERIAL_BYTES", 1)
        patch.setattr(parallel, "SLICE_BYTES", 1 << 9)
        y = FixedFilters(w, b, window, 1, algorithm).convolve(x, s, True)
    assert relative_error(y + 1, pytorchs(x, w, b, s, True, window, 1) + 1) < 1e-12


@pytest.mark.parametrize("algorithm", plan.ALGORITHMS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0])))
def test_threads_do_not_change_a_bit(case, algorithm, monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1 << 12)
    x, w, b, s = draw(*case, dtype=np.float32)
    results = []
    for threads in (1, 2, 5):
        parallel.set_num_threads(threads)
        results.append(FixedFilters(w, b, *case[1:], algorithm).convolve(x, s, True))
    assert results[0].dtype == np.float32
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_one_image_is_shared_by_the_threads(monkeypatch):
    """Of a single image, pieces are as many as two threads need at least, whatever the algorithm."""
    pieces = []
    run = parallel._run
    monkeypatch.setattr(parallel, "_run", lambda tasks: (pieces.append(len(tasks)), run(tasks)))
    sizes = [((1, 112, 112, 32, 32), "im2col"), ((1, 56, 56, 64, 64), "winograd4"), ((1, 7, 7, 512, 512), "winograd2")]
    for shape, algorithm in [*sizes, ((1, 7, 7, 512, 512), "im2col")]:
        x, w, b, _ = draw(shape, SAME, 1, dtype=np.float32)
        filters = FixedFilters(w, b, SAME, 1, algorithm)
        filters.convolve(x)
        pieces.clear()
        filters.convolve(x)
        assert max(pieces) >= 2, (shape, algorithm)


def test_what_is_made_is_made_once_and_its_memory_told():
    x, w, b, _ = draw((2, 12, 12, 64, 128), SAME, 1, dtype=np.float32)
    for algorithm, share in (("im2col", 1), ("winograd2", 16 / 9), ("winograd4", 4)):
        filters = FixedFilters(w, b, SAME, 1, algorithm)
        assert filters.nbytes == 0
        y = filters.convolve(x)
        made = dict(filters._made)
        assert filters.nbytes == share * w.nbytes
        np.testing.assert_array_equal(filters.convolve(x[:1])[0], y[0])
        assert all(filters._made[name] is made[name] for name in filters._made)


def test_no_image_has_no_output():
    _, w, b, _ = draw((1, 8, 8, 4, 6), SAME, 1)
    assert FixedFilters(w, b, SAME).convolve(np.zeros((0, 8, 8, 4))).shape == (0, 8, 8, 6)


def test_few_pixels_and_large_filters_take_less_memory_to_read():
    assert fixed.fastest(plan.Problem((16, 7, 7, 512), 512, SAME)) == "winograd4"
    assert fixed.fastest(plan.Problem((1, 7, 7, 512), 512, SAME)) == "winograd2"
    assert fixed.fastest(plan.Problem((1, 56, 56, 64), 64, SAME)) == "winograd4"
    assert fixed.fastest(plan.Problem((1, 224, 224, 3), 64, SAME)) in ("im2col", "strips")


def test_float64_is_exact_and_a_preference_is_heeded(monkeypatch):
    monkeypatch.setattr(plan, "_preferred", None)
    x, w, b, _ = draw((1, 28, 28, 64, 64), SAME, 1)
    filters = FixedFilters(w, b, SAME)
    filters.convolve(x)
    with plan.prefer("winograd4"):
        filters.convolve(x)
    assert list(filters._made) == [1, "winograd4"]
