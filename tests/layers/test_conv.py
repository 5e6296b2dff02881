"""Conv2d against seven loops and against PyTorch."""

import numpy as np
import pytest
import strict_cupy
import torch
from helpers import is_channels_last, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st

from tinycnn import Conv2d, layers, parallel
from tinycnn.kernels.conv import plan
from tinycnn.layers.base import LayerError


def seven_loops(x, w, b, stride, padding, dilation, groups):
    """The definition of a convolution, and nothing of tinycnn."""
    N, _, H, W = x.shape
    OC, CG, KH, KW = w.shape
    (SH, SW), (PH, PW), (DH, DW) = stride, padding, dilation
    OH, OW = (H + 2 * PH - DH * (KH - 1) - 1) // SH + 1, (W + 2 * PW - DW * (KW - 1) - 1) // SW + 1
    y = np.zeros((N, OC, OH, OW))
    for n in range(N):
        for o in range(OC):
            group = o // (OC // groups)
            for oh in range(OH):
                for ow in range(OW):
                    total = b[o]
                    for c in range(CG):
                        for kh in range(KH):
                            for kw in range(KW):
                                h, v = SH * oh + DH * kh - PH, SW * ow + DW * kw - PW
                                if 0 <= h < H and 0 <= v < W:
                                    total += w[o, c, kh, kw] * x[n, group * CG + c, h, v]
                    y[n, o, oh, ow] = total
    return y


def sizes(low, high):
    return st.tuples(st.integers(low, high), st.integers(low, high))


OPTIONS = st.fixed_dictionaries(
    {"kernel_size": sizes(1, 5), "stride": sizes(1, 3), "padding": sizes(0, 3), "dilation": sizes(1, 3)}
)


@settings(max_examples=25)
@given(
    st.fixed_dictionaries({"kernel_size": sizes(1, 3), "stride": sizes(1, 3), "padding": sizes(0, 2)}),
    sizes(1, 2),
    st.sampled_from([1, 2]),
    st.sampled_from(["im2col", "strips", "winograd2"]),  # F(4×4) evaluates at fractions, and rounds
    st.integers(0, 99),
)
def test_forward_is_the_seven_loops_exactly_on_integers(options, dilation, groups, algorithm, seed):
    rng = np.random.default_rng(seed)
    conv = Conv2d(2, 4, **options, dilation=dilation, groups=groups, algorithm=algorithm, dtype=np.float64)
    for p in conv.parameters():
        p.data[...] = rng.integers(-4, 5, p.shape)
    x = rng.integers(-4, 5, (2, 2, 6, 5)).astype(np.float64)
    wanted = seven_loops(x, conv.weight.data, conv.bias.data, options["stride"], options["padding"], dilation, groups)
    np.testing.assert_array_equal(conv(x), wanted)


@settings(max_examples=60)
@given(
    OPTIONS,
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.sampled_from([1, 3, 40]),
    st.sampled_from(["auto", "strips"]),
    st.integers(0, 99),
)
def test_forward_and_all_gradients_are_pytorchs(options, groups, bias, N, algorithm, seed):
    rng = np.random.default_rng(seed)
    ours = Conv2d(4, 8, **options, groups=groups, bias=bias, algorithm=algorithm, rng=rng, dtype=np.float64)
    theirs = torch.nn.Conv2d(4, 8, **options, groups=groups, bias=bias, dtype=torch.float64)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    x = rng.standard_normal((N, 4, 13, 14))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = ours(x), theirs(x_torch)
    assert relative_error(y, y_torch.detach().numpy()) < 1e-12
    dy = rng.standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(ours.backward(dy), x_torch.grad.numpy()) < 1e-12
    assert relative_error(ours.weight.grad, theirs.weight.grad.numpy()) < 1e-12
    if bias:
        assert relative_error(ours.bias.grad, theirs.bias.grad.numpy()) < 1e-12


@pytest.mark.parametrize("algorithm", plan.ALGORITHMS)
def test_every_algorithm_is_the_seven_loops(algorithm):
    rng = np.random.default_rng(0)
    conv = Conv2d(3, 4, 3, padding=(1, 2), algorithm=algorithm, rng=rng, dtype=np.float64)
    x = rng.standard_normal((2, 3, 6, 5))
    wanted = seven_loops(x, conv.weight.data, conv.bias.data, (1, 1), (1, 2), (1, 1), 1)
    assert conv.chosen_algorithm(x.shape) == algorithm
    assert relative_error(conv(x), wanted) < 1e-13


def test_an_unknown_algorithm_is_refused():
    with pytest.raises(LayerError, match=r"algorithm must be 'auto' or one of .*got 'fft'"):
        Conv2d(3, 4, 3, algorithm="fft")


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # PyTorch's: it is slower then
@pytest.mark.parametrize("kernel_size", [1, 2, 3, (4, 3), (2, 5)])
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)])
def test_same_padding_is_pytorchs(kernel_size, dilation):
    rng = np.random.default_rng(0)
    ours = Conv2d(2, 3, kernel_size, padding="same", dilation=dilation, rng=rng, dtype=np.float64)
    theirs = torch.nn.Conv2d(2, 3, kernel_size, padding="same", dilation=dilation, dtype=torch.float64)
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    x = rng.standard_normal((2, 2, 7, 6))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = ours(x), theirs(x_torch)
    assert y.shape[2:] == x.shape[2:]
    y_torch.backward(torch.ones_like(y_torch))
    assert relative_error(y, y_torch.detach().numpy()) < 1e-12
    assert relative_error(ours.backward(np.ones_like(y)), x_torch.grad.numpy()) < 1e-12
    assert relative_error(ours.weight.grad, theirs.weight.grad.numpy()) < 1e-12


@given(OPTIONS, st.sampled_from([1, 2]), st.integers(0, 99))
def test_each_gradient_is_an_adjoint_exactly_on_integers(options, groups, seed):
    rng = np.random.default_rng(seed)
    conv = Conv2d(2, 4, **options, groups=groups, bias=False, dtype=np.float64)
    conv.weight.data[...] = rng.integers(-3, 4, conv.weight.shape)
    x = rng.integers(-3, 4, (2, 2, 13, 14)).astype(np.float64)
    y = conv(x)
    dy = rng.integers(-3, 4, y.shape).astype(np.float64)
    dx = conv.backward(dy)
    assert (y * dy).sum() == (x * dx).sum() == (conv.weight.data * conv.weight.grad).sum()


@pytest.mark.parametrize("algorithm", ["im2col", "strips"])
def test_the_patch_matrix_never_exists_for_the_whole_batch(algorithm):
    parallel.release_scratch()
    parallel.set_num_threads(1)
    conv = Conv2d(16, 16, 3, padding=1, algorithm=algorithm)
    x = np.ones((128, 16, 32, 32), np.float32)
    conv.backward(conv(x))
    scratch = sum(buffer.nbytes for buffer in parallel._local.scratch.values())
    whole = 9 * x.nbytes
    assert scratch < whole / 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 0}, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": (3, 3, 3)}, "kernel_size must be an integer or a pair"),
        ({"kernel_size": 2.5}, "kernel_size must be an integer or a pair"),
        ({"kernel_size": 3, "stride": 0}, "stride must be at least 1, got 0"),
        ({"kernel_size": 3, "stride": (1, -1)}, "stride must be at least 1"),
        ({"kernel_size": 3, "dilation": 0}, "dilation must be at least 1"),
        ({"kernel_size": 3, "padding": -1}, "padding must be at least 0"),
        ({"kernel_size": 3, "padding": "full"}, "'same' or 'valid', got 'full'"),
        ({"kernel_size": 3, "padding": "same", "stride": 2}, "padding='same' needs stride 1"),
        ({"kernel_size": 3, "groups": 0}, "groups must be an integer of at least 1, got 0"),
        ({"kernel_size": 3, "groups": 2.0}, "groups must be an integer of at least 1, got 2.0"),
        ({"kernel_size": 3, "groups": 3}, "multiples of groups=3"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(LayerError, match=message):
        Conv2d(4, 8, **arguments)


def test_bad_inputs_are_named():
    conv = Conv2d(4, 8, 3)
    with pytest.raises(LayerError, match=r"expected 4 channels on axis 1, got 3 in shape \(2, 3, 8, 8\)"):
        conv(np.ones((2, 3, 8, 8), np.float32))
    with pytest.raises(LayerError, match=r"expected an input of shape \(N, C, H, W\), got \(4, 8, 8\)"):
        conv(np.ones((4, 8, 8), np.float32))
    with pytest.raises(LayerError, match="input is float64, parameters are float32"):
        conv(np.ones((2, 4, 8, 8)))
    with pytest.raises(LayerError, match="window covers 3×3, the padded input only 2×9"):
        conv(np.ones((2, 4, 2, 9), np.float32))


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(Conv2d(3, 8, 3)) == "Conv2d(3, 8, 3)"
    assert repr(Conv2d(4, 8, (3, 1), 2, (1, 0), 2, 4, False)) == (
        "Conv2d(4, 8, (3, 1), stride=2, padding=(1, 0), dilation=2, groups=4, bias=False)"
    )


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_that_nobody_needs_are_not_computed(frozen, monkeypatch):
    conv = Conv2d(2, 3, 3)
    for p in conv.parameters():
        p.requires_grad = not frozen
    conv.require_dx(frozen)
    asked, backward = [], layers.conv.plan.backward
    monkeypatch.setattr(layers.conv.plan, "backward", lambda *a: (asked.append(a[-3:-1]), backward(*a))[1])
    dx = conv.backward(conv(np.ones((1, 2, 4, 4), np.float32)))
    assert asked == [(frozen, not frozen)]
    assert (dx is not None) == frozen
    assert any(p.grad.any() for p in conv.parameters()) != frozen


def test_a_gradient_of_another_type_is_refused():
    conv = Conv2d(2, 3, 3)
    y = conv(np.ones((1, 2, 4, 4), np.float32))
    for dy, message in [
        (y.astype(np.float64), "dL/dy is float64, parameters are float32"),
        (y.astype(int), "float32 or float64 array, got int64"),
        (None, "got NoneType"),
    ]:
        conv(np.ones((1, 2, 4, 4), np.float32))
        with pytest.raises(LayerError, match=message):
            conv.backward(dy)


def test_host_and_device_do_not_mix(monkeypatch):
    strict_cupy.install(monkeypatch)
    conv = Conv2d(2, 3, 3).to("cuda")
    with pytest.raises(LayerError, match="input is on the CPU, parameters are on GPU 0: move"):
        conv(np.ones((1, 2, 4, 4), np.float32))


def test_memory_order_survives_the_way_to_the_device_and_back(monkeypatch):
    strict_cupy.install(monkeypatch)
    conv = Conv2d(2, 3, (2, 4))
    before = conv.weight.data.copy()
    for device in ("cuda", "cpu"):
        conv.to(device)
        assert is_channels_last(conv.weight.data)
        assert is_channels_last(conv.weight.grad)
    np.testing.assert_array_equal(conv.weight.data, before)


def test_a_seed_will_do_for_a_generator():
    a, b = Conv2d(2, 3, 3, rng=7), Conv2d(2, 3, 3, rng=np.random.default_rng(7))
    np.testing.assert_array_equal(a.weight.data, b.weight.data)
