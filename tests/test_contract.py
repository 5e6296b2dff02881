"""Every row of the contract table, held to the whole contract."""

import numpy as np
import pytest
import strict_cupy
from helpers import devices, is_channels_last, poisoned

from tinycnn import backend, parallel
from tinycnn.contract import CASES
from tinycnn.gradcheck import gradcheck
from tinycnn.layers import base
from tinycnn.parameter import channels_last

ROWS = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def run(case, dtype=np.float64, layout="C", device="cpu"):
    """One forward and backward, always of the same numbers: layer, x, y, dy, dx."""
    rng = np.random.default_rng(5)
    layer = case.build(rng, dtype).to(device)
    x = case.input(rng, dtype)
    if layout == "channels_last":
        x = channels_last(x)
    x = backend.to_device(x, device)
    y = layer(x)
    dy = backend.to_device(np.random.default_rng(6).uniform(-1, 1, y.shape).astype(dtype), device)
    return layer, x, y, dy, layer.backward(dy)


def gradients(layer):
    return {name: backend.to_numpy(p.grad).copy() for name, p in layer.named_parameters()}


@ROWS
def test_gradients_are_right(case):
    rng = np.random.default_rng(1)
    layer = case.build(rng)
    report = gradcheck(layer, case.input(rng))
    assert report.ok, str(report)


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_in_is_dtype_out(case, dtype):
    layer, _, y, _, dx = run(case, dtype)
    assert y.dtype == dtype
    assert dx.dtype == dtype
    assert all(p.grad.dtype == dtype for p in layer.parameters())


@ROWS
def test_float32_is_float64_to_its_precision(case):
    single, double = run(case, np.float32), run(case, np.float64)
    for a, b in [(single[2], double[2]), (single[4], double[4])]:
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * max(np.abs(b).max(), 1))
    wanted = gradients(double[0])
    for name, grad in gradients(single[0]).items():
        np.testing.assert_allclose(grad, wanted[name], rtol=0, atol=1e-4 * max(np.abs(wanted[name]).max(), 1))


@ROWS
def test_memory_is_channels_last_and_input_layout_does_not_matter(case):
    contiguous, last = run(case), run(case, layout="channels_last")
    for result in (contiguous, last):
        assert is_channels_last(result[2])
        assert is_channels_last(result[4])
    np.testing.assert_array_equal(contiguous[2], last[2])
    np.testing.assert_array_equal(contiguous[4], last[4])


@ROWS
def test_output_shape_is_told_beforehand(case):
    layer, x, y, *_ = run(case)
    assert layer.output_shape(x.shape) == y.shape


@ROWS
@pytest.mark.parametrize("layout", ["C", "channels_last"])
def test_inputs_are_not_touched(case, layout):
    rng = np.random.default_rng(5)
    layer = case.build(rng)
    x = case.input(rng)
    x = channels_last(x) if layout == "channels_last" else x
    x_before = x.copy()
    y = layer(x)
    y_before = y.copy()
    dy = rng.uniform(-1, 1, y.shape)
    dy = channels_last(dy) if layout == "channels_last" else dy
    dy_before = dy.copy()
    layer.backward(dy)
    np.testing.assert_array_equal(x, x_before)
    np.testing.assert_array_equal(y, y_before)
    np.testing.assert_array_equal(dy, dy_before)


@ROWS
def test_gradients_accumulate_and_are_cleared(case):
    layer, x, _, dy, _ = run(case)
    once = gradients(layer)
    rng = np.random.default_rng(5)
    again = case.build(rng)
    for _ in range(2):
        state = again.random_state()
        again(x)
        again.backward(dy)
        again.set_random_state(state)
    for name, grad in gradients(again).items():
        np.testing.assert_allclose(grad, 2 * once[name], rtol=1e-12, atol=1e-12)
    again.zero_grad()
    assert all((p.grad == 0).all() for p in again.parameters())


@ROWS
def test_what_is_saved_is_released_and_used_once(case):
    layer, _, _, dy, _ = run(case)
    assert all(part._saved is None for part in layer.layers())
    with pytest.raises(RuntimeError, match="once per forward"):
        layer.backward(dy)


@ROWS
def test_backward_without_forward_says_so(case):
    layer = case.build(np.random.default_rng(5))
    with pytest.raises(RuntimeError, match="call forward first"):
        layer.backward(np.ones(layer.output_shape(case.shape)))


@ROWS
def test_eval_saves_nothing(case):
    rng = np.random.default_rng(5)
    layer = case.build(rng).eval()
    y = layer(case.input(rng))
    assert all(part._saved is None for part in layer.layers())
    with pytest.raises(RuntimeError, match="eval mode"):
        layer.backward(np.ones_like(y))


@ROWS
def test_nothing_reads_uninitialised_memory(case, monkeypatch):
    clean = run(case)
    with poisoned(monkeypatch):
        dirty = run(case)
    np.testing.assert_array_equal(clean[2], dirty[2])
    np.testing.assert_array_equal(clean[4], dirty[4])
    wanted = gradients(clean[0])
    for name, grad in gradients(dirty[0]).items():
        np.testing.assert_array_equal(grad, wanted[name])


@ROWS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_a_bit(case, dtype, monkeypatch):
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1)
    results = []
    for threads in (1, 2, 5):
        parallel.set_num_threads(threads)
        results.append(run(case, dtype))
    for other in results[1:]:
        np.testing.assert_array_equal(results[0][2], other[2])
        np.testing.assert_array_equal(results[0][4], other[4])
        wanted = gradients(results[0][0])
        for name, grad in gradients(other[0]).items():
            np.testing.assert_array_equal(grad, wanted[name])


@ROWS
def test_cutting_the_batch_changes_rounding_only(case, monkeypatch):
    whole = run(case)
    monkeypatch.setattr(parallel, "SERIAL_BYTES", 1)
    monkeypatch.setattr(parallel, "SLICE_BYTES", 1)
    cut = run(case)
    np.testing.assert_allclose(cut[2], whole[2], rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(cut[4], whole[4], rtol=1e-12, atol=1e-13)


@ROWS
def test_a_frozen_layer_does_no_gradient_work(case):
    rng = np.random.default_rng(5)
    layer = case.build(rng)
    for p in layer.parameters():
        p.requires_grad = False
    layer.require_dx(True)
    x = case.input(rng)
    dy = np.random.default_rng(6).uniform(-1, 1, layer.output_shape(x.shape))
    layer(x)
    dx = layer.backward(dy)
    np.testing.assert_array_equal(dx, run(case)[4])
    assert all((p.grad == 0).all() for p in layer.parameters())
    assert layer.require_dx(False) is False
    layer(x)
    assert all(part._saved is None for part in layer.layers())


@ROWS
def test_a_first_layer_gives_the_same_parameter_gradients(case):
    rng = np.random.default_rng(5)
    layer = case.build(rng)
    if not list(layer.parameters()):
        return
    layer.require_dx(False)
    x = case.input(rng)
    layer(x)
    layer.backward(np.random.default_rng(6).uniform(-1, 1, layer.output_shape(x.shape)))
    wanted = gradients(run(case)[0])
    for name, grad in gradients(layer).items():  # without dx another order of summation may be quicker
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-12, atol=1e-12)


@ROWS
def test_state_dict_round_trip(case):
    layer, other = case.build(np.random.default_rng(5)), case.build(np.random.default_rng(99))
    x = case.input(np.random.default_rng(5))
    state = layer.state_dict()
    assert all(value.flags.c_contiguous for value in state.values())
    other.load_state_dict(state)
    other.set_random_state(layer.random_state())
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
    np.testing.assert_array_equal(other(x), layer(x))


@ROWS
def test_batch_of_one(case):
    rng = np.random.default_rng(5)
    layer = case.build(rng)
    x = case.input(rng)[:1]
    y = layer(x)
    assert y.shape == layer.output_shape(x.shape)
    assert layer.backward(np.ones_like(y)).shape == x.shape


@ROWS
def test_an_empty_batch_passes_or_is_refused(case):
    layer = case.build(np.random.default_rng(5))
    x = np.ones((0, *case.shape[1:]))
    try:
        y = layer(x)
    except base.LayerError as error:
        assert "input is empty" in str(error)  # noqa: PT017 (either way is right)
        return
    assert y.shape == layer.output_shape(x.shape)
    assert layer.backward(y).shape == x.shape


@ROWS
@pytest.mark.parametrize("bad", [np.float16, np.int64])
def test_other_types_are_refused(case, bad):
    layer = case.build(np.random.default_rng(5))
    with pytest.raises(base.LayerError, match="float32 or float64"):
        layer(np.ones(case.shape, bad))


@ROWS
def test_a_gradient_of_another_shape_is_refused(case):
    rng = np.random.default_rng(5)
    layer = case.build(rng)
    y = layer(case.input(rng))
    with pytest.raises(base.LayerError, match="dL/dy of the output's shape"):
        layer.backward(np.ones((*y.shape[:-1], y.shape[-1] + 1)))


@ROWS
@pytest.mark.parametrize("device", ["stand-in", *devices()[1:]])
def test_devices_agree(case, device, monkeypatch):
    here = run(case)
    if device == "stand-in":
        strict_cupy.install(monkeypatch)
    there = run(case, device="cuda")
    assert backend.is_device_array(there[2])
    assert backend.is_device_array(there[4])
    for i in (2, 4):
        np.testing.assert_allclose(backend.to_numpy(there[i]), here[i], rtol=1e-10, atol=1e-12)
    wanted = gradients(here[0])
    for name, grad in gradients(there[0]).items():
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-10, atol=1e-12)


def test_every_layer_has_a_row():
    from tinycnn import layers

    exported = {getattr(layers, name) for name in layers.__all__} - {base.Layer, base.LayerError}
    assert exported <= {type(case.make(np.random.default_rng(0))) for case in CASES.values()}


@ROWS
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision(case, dtype, gpu):
    """Activations of 16 bits, parameters and their gradients of 32."""
    half = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    rng = np.random.default_rng(5)
    layer, x = case.build(rng, np.float32).to("cuda"), case.input(rng, np.float32).astype(half)
    if not layer.mixed:
        with pytest.raises(base.LayerError, match="use float32 or tf32"):
            layer(backend.to_device(x, "cuda"))
        return
    y = layer(backend.to_device(x, "cuda"))
    dy = np.random.default_rng(6).uniform(-1, 1, y.shape).astype(half)
    dx = layer.backward(backend.to_device(dy, "cuda"))
    assert (y.dtype, dx.dtype) == (half, half)
    same = case.build(np.random.default_rng(5), np.float64)
    wanted_y = same(x.astype(np.float64))
    wanted_dx = same.backward(dy.astype(np.float64))
    pairs = {"y": (y, wanted_y), "dx": (dx, wanted_dx)}
    pairs |= {n: (p.grad, q.grad) for (n, p), q in zip(layer.named_parameters(), same.parameters(), strict=True)}
    for name, (own, wanted) in pairs.items():
        # where the true gradient is 0, of a bias before a normalisation, what dy rounds to remains
        size = max(np.linalg.norm(wanted), 0.1 * np.linalg.norm(dy.astype(np.float64)) * (name.endswith("bias")))
        error = np.linalg.norm(backend.to_numpy(own).astype(np.float64) - wanted)
        assert error <= (0.04 if dtype == "bfloat16" else 0.005) * size, name
    assert all(p.grad.dtype == np.float32 for p in layer.parameters())
