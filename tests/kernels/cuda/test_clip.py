"""Norms, clipping and finiteness on a GPU against their specifications."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import optim
from tinycnn.backend import device_of, to_numpy
from tinycnn.kernels.cuda import clip as twins
from tinycnn.kernels.cuda import module
from tinycnn.kernels.finite import all_finite
from tinycnn.optim import clip
from tinycnn.parameter import FlatParameters, Parameter

NORMS = [1, 1.5, 2, 3, math.inf]
shapes = st.one_of(
    st.tuples(st.sampled_from([0, 1, 3, 4, 31, 1023, 1024, 1025, 5000])),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3)),
)


def arrays(drawn, dtype, seed=0):
    rng = np.random.default_rng(seed)
    parameters = [Parameter(rng.normal(size=shape).astype("float64")) for shape in drawn]
    return [p.data.astype(dtype) for p in parameters]


def on_device(gpu, xs):
    """The same arrays there, in the same order of memory, some at addresses that are no multiple of 16 bytes."""
    result = []
    for i, x in enumerate(xs):
        if x.ndim == 1 and i % 2:
            place = gpu.empty(x.size + 1, x.dtype)[1:]
        else:
            place = gpu.empty_like(gpu.asarray(np.ascontiguousarray(x)))
            place = place if x.ndim != 4 else gpu.empty(x.transpose(0, 2, 3, 1).shape, x.dtype).transpose(0, 3, 1, 2)
        place[...] = gpu.asarray(np.ascontiguousarray(x))
        result.append(place)
    return result


def norm_of(xs, q):
    """Another way to the norm."""
    x = np.concatenate([x.astype("float64").ravel() for x in xs])
    return np.linalg.norm(x, q) if x.size else 0.0


@pytest.mark.parametrize("backwards", ["0", "1"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("q", NORMS)
def test_norms_and_clipping_are_their_specification(gpu, monkeypatch, backwards, dtype, q):
    monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)

    @settings(max_examples=8)
    @given(st.lists(shapes, min_size=1, max_size=5), st.sampled_from([0.0, 0.3, 1e9, math.inf]))
    def check(drawn, max_norm):
        xs = arrays(drawn, dtype)
        own = on_device(gpu, xs)
        norm = clip.gradient_norm(*own, norm_type=float(q))
        assert norm.shape == ()
        assert norm.dtype == np.float64
        np.testing.assert_allclose(float(norm.get()), norm_of(xs, q), rtol=1e-12)
        again = clip.clip_norm(*own, max_norm=max_norm, norm_type=float(q), error_if_nonfinite=True)
        assert again.get() == norm.get()
        if dtype == "float16":
            return
        clip.clip_norm(*xs, max_norm=max_norm, norm_type=float(q), error_if_nonfinite=True)
        for x, y in zip(xs, own, strict=True):
            np.testing.assert_allclose(y.get(), x, rtol={"float32": 2e-7, "float64": 1e-13}[dtype])

    check()


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_half_precision_is_measured_and_scaled_in_float32(gpu, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    (x,) = arrays([(2000,)], "float32")
    x = x.astype(dtype)
    own = gpu.asarray(x)
    norm = clip.clip_norm(own, max_norm=0.5, norm_type=2.0, error_if_nonfinite=False)
    np.testing.assert_allclose(norm.get(), norm_of([x], 2), rtol=1e-12)
    factor = (0.5 / (norm.get() + 1e-6)).astype("float64" if x.dtype == np.float64 else "float32")
    np.testing.assert_array_equal(own.get(), (x.astype(factor.dtype) * factor).astype(x.dtype))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("q", [2.0, 1.0, math.inf])
def test_what_is_not_finite_is_clipped_as_on_a_cpu(gpu, bad, q):
    xs = arrays([(4,), (2000,)], "float32")
    xs[1][1500] = bad
    own = on_device(gpu, xs)
    with pytest.raises(RuntimeError, match=f"norm of the gradients is {bad}: the loss or a layer has overflowed"):
        clip.clip_norm(*own, max_norm=1.0, norm_type=q, error_if_nonfinite=True)
    norms = [clip.clip_norm(*x, max_norm=1.0, norm_type=q, error_if_nonfinite=False) for x in (xs, own)]
    np.testing.assert_array_equal(norms[1].get(), norms[0])
    for x, y in zip(xs, own, strict=True):
        np.testing.assert_array_equal(y.get(), x)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("value", [0.0, 0.3, 100.0])
def test_values_are_limited(gpu, dtype, value):
    xs = arrays([(4,), (2001,), (3, 4, 2, 2), (7, 5)], dtype)
    xs[1][[0, 1000, 2000]] = np.nan, np.inf, -np.inf
    own = on_device(gpu, xs)
    clip.clip_values(*own, clip_value=value)
    for x, y in zip(xs, own, strict=True):
        np.testing.assert_array_equal(y.get(), np.clip(x, np.array(-value, dtype), np.array(value, dtype)))


def test_a_norm_is_the_same_bits_whatever_the_order_of_blocks(gpu, monkeypatch):
    monkeypatch.setattr(twins, "BLOCKS", 7)  # less than there are tiles
    (x,) = on_device(gpu, arrays([(20_001,)], "float32"))
    norms = []
    for backwards in "01":
        monkeypatch.setenv("TINYCNN_SHIM_BACKWARDS", backwards)
        norms += [float(clip.gradient_norm(x, norm_type=2.0).get()) for _ in range(2)]
    assert len(set(norms)) == 1
    np.testing.assert_allclose(norms[0], norm_of([x.get()], 2), rtol=1e-13)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_factor_for_a_guard(gpu, device):
    p = Parameter(np.zeros((30, 70), np.float32))
    g = arrays([p.shape], "float32")[0] * 1024
    p.to(device)
    xp = gpu if device == "cuda" else np
    p.grad[...] = xp.asarray(g)
    factor, found_inf, inv_scale = xp.empty(1, np.float32), xp.full(1, 7, np.int32), xp.full(1, 1 / 1024, np.float32)
    true = norm_of([g], 2) / 1024

    def measured(**kwargs):
        norm = optim.grad_factor([p], factor, found_inf, inv_scale=inv_scale, **kwargs)
        return [float(to_numpy(x)) for x in (norm, factor[0], found_inf[0])]

    np.testing.assert_allclose(measured(), [true, 1 / 1024, 0], rtol=1e-12)
    np.testing.assert_allclose(measured(max_norm=0.5), [true, 0.5 / (true + 1e-6) / 1024, 0], rtol=1e-7)
    p.grad[29, 69] = np.inf
    assert measured(max_norm=0.5)[::2] == [math.inf, 1]
    p.grad[29, 69] = np.nan
    np.testing.assert_array_equal(measured()[::2], [math.nan, 1])


def test_loss_scaling_and_clipping_within_the_update(gpu):
    """grad_factor and a guard against clipping in place, on a CPU."""
    rng, pairs = np.random.default_rng(0), []
    factor, found_inf, inv_scale = gpu.empty(1, np.float32), gpu.zeros(1, np.int32), gpu.full(1, 2**-10, np.float32)
    for device in ("cpu", "cuda"):
        parameters = [Parameter(np.ones(s, np.float32), str(i)) for i, s in enumerate([(3, 4), (7,)])]
        for p in parameters:
            p.to(device)
        pairs.append((optim.Adam(parameters), parameters))
    (theirs, a), (ours, b) = pairs
    ours.guard(factor, found_inf)
    for step in range(6):
        for p, q in zip(a, b, strict=True):
            p.grad[...] = rng.normal(size=p.shape)
            q.grad[...] = gpu.asarray(p.grad * 1024)
        if step == 3:
            b[0].grad[0, 0] = np.nan
        optim.grad_factor(ours.flat, factor, found_inf, max_norm=0.5, inv_scale=inv_scale)
        ours.step()
        if step != 3:
            optim.clip_grad_norm_(theirs.flat, 0.5)
            theirs.step()
    assert ours.state_dict()["past"] == theirs.state_dict()["past"]
    for p, q in zip(a, b, strict=True):
        np.testing.assert_allclose(q.data.get(), p.data, rtol=1e-6)


def test_launches_and_what_nobody_waits_for(gpu, monkeypatch):
    """One launch for the norm, one to clip, however many parameters; and no copy between host and device."""
    parameters = [Parameter(np.ones(n, np.float32)) for n in (3, 100, 5000)]
    for p in parameters:
        p.to("cuda")
    flat = FlatParameters(parameters)
    parameters[1].requires_grad = False
    optim.clip_grad_norm_(flat, 0.5)
    optim.clip_grad_value_(parameters, 0.5)
    launches = []
    call = module.Kernel.__call__
    monkeypatch.setattr(module.Kernel, "__call__", lambda k, *args: (launches.append(k.name), call(k, *args)))
    for p in parameters:
        p.grad[...] = 2.0
    norm = optim.clip_grad_norm_(flat, 0.5)
    optim.clip_grad_value_(parameters, 0.5)
    assert launches == ["gradient_norm", "scale", "limit"]
    assert device_of(norm) == "cuda"
    np.testing.assert_allclose(norm.get(), 2 * math.sqrt(5003))
    assert (parameters[1].grad.get() == 2).all()
    assert not flat.grad.get()[3:16].any()


def test_a_clipped_nan_leaves_the_gaps_of_a_flat_buffer_alone(gpu):
    for device in ("cpu", "cuda"):
        parameters = [Parameter(np.ones(n)) for n in (3, 5)]
        for p in parameters:
            p.to(device)
        flat = FlatParameters(parameters)
        parameters[0].grad[0] = np.nan
        assert math.isnan(float(optim.clip_grad_norm_(flat, 1.0)))
        for p in parameters:
            p.zero_grad()
        assert float(optim.grad_norm(flat)) == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 60000.0])
@pytest.mark.parametrize("place", [0, 2, 1023, 1024, 2600])
def test_finiteness(gpu, dtype, value, place):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    x = np.zeros(2601, np.float32)
    x[place] = value
    x = gpu.asarray(x.astype(dtype))
    assert bool(all_finite(x)) == math.isfinite(value)
    assert bool(all_finite(x[1:])) == (place == 0 or math.isfinite(value))


def test_finiteness_of_arrays_in_any_order(gpu):
    x = gpu.zeros((3, 4, 5, 6), np.float32)
    assert bool(all_finite(x.transpose(0, 3, 1, 2)))
    x[2, 3, 4, 5] = np.nan
    assert not bool(all_finite(x.transpose(0, 3, 1, 2)))
    assert bool(all_finite(x[:, :, :, :5]))
    assert not bool(all_finite(x[::2]))
    assert bool(all_finite(gpu.zeros((0, 3))))
    assert bool(all_finite(gpu.arange(4)))


def test_no_gradients():
    frozen = Parameter(np.zeros(3))
    frozen.requires_grad = False
    assert optim.clip_grad_norm_([frozen], 1.0) == optim.grad_norm([]) == 0.0
    with pytest.raises(ValueError, match="grad_factor: there are no gradients: every parameter is frozen"):
        optim.grad_factor([frozen], np.empty(1))


def test_every_norm_has_its_variant():
    assert {macros["NORM"] for _, _, macros in twins.VARIANTS} >= {*twins.KINDS.values(), 0}
