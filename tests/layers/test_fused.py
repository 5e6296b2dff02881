"""Fused convolutions and residual blocks against PyTorch's convolution, normalisation, sum and ReLU one by one."""

import numpy as np
import pytest
import strict_cupy
import torch
from helpers import is_channels_last, relative_error

from tinycnn import BatchNorm2d, Conv2d, Identity, LayerError, Sequential
from tinycnn.layers.fused import FusedConv2d, FusedResidual

OPTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (0, 1), "dilation": (1, 2), "bias": False},
    {"kernel_size": 1, "groups": 2},
]


def pair(options, relu, seed=0):
    """A fused convolution, and PyTorch's convolution and norm that it stands for."""
    rng = np.random.default_rng(seed)
    conv = Conv2d(4, 6, rng=rng, dtype=np.float64, **options)
    module, norm = torch.nn.Conv2d(4, 6, **options).double(), torch.nn.BatchNorm2d(6, eps=1e-3).double().eval()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in conv.state_dict().items()})
    for value in (*norm.parameters(), norm.running_mean, norm.running_var):
        value.data.copy_(torch.from_numpy(rng.uniform(0.5, 2, 6)))
    gamma, beta, mean, var = (v.detach().numpy() for v in (norm.weight, norm.bias, norm.running_mean, norm.running_var))
    gain = gamma / np.sqrt(var + 1e-3)
    return FusedConv2d(conv, gain, beta - mean * gain, relu), lambda x: norm(module(x))


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_convolution_norm_sum_and_relu(options, relu):
    fused, theirs = pair(options, relu)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((3, 4, 9, 8))
    wanted = theirs(torch.from_numpy(x)).detach().numpy()
    shortcut = rng.standard_normal(wanted.shape)
    for s in (None, shortcut):
        y = fused(x) if s is None else fused(x, s)
        expected = wanted if s is None else wanted + s
        assert relative_error(y, np.maximum(expected, 0) if relu else expected) < 1e-13
        assert is_channels_last(y)
    assert y.shape == fused.output_shape(x.shape)


def test_what_is_folded_is_rounded_once():
    conv = Conv2d(3, 5, 3)
    gain, shift = np.random.default_rng(0).uniform(0.1, 3, (2, 5))
    fused = FusedConv2d(conv, gain, shift)
    w, b = conv.weight.data.astype(np.float64), conv.bias.data.astype(np.float64)
    np.testing.assert_array_equal(fused.weight.data, (w * gain[:, None, None, None]).astype(np.float32))
    np.testing.assert_array_equal(fused.bias.data, (b * gain + shift).astype(np.float32))


def test_filters_are_its_own_frozen_and_read_only():
    conv = Conv2d(3, 5, 3)
    fused = FusedConv2d(conv)
    x = np.ones((1, 3, 6, 6), np.float32)
    before = fused(x)
    conv.weight.data[...] = 0
    np.testing.assert_array_equal(fused(x), before)
    assert not any(p.requires_grad for p in fused.parameters())
    for p in fused.parameters():
        with pytest.raises(ValueError, match="read-only"):
            p.data[...] = 0


def test_other_filters_are_made_ready_anew():
    fused, theirs = pair(OPTIONS[0], True)
    fused.algorithm = "winograd4"
    x = np.random.default_rng(1).standard_normal((2, 4, 9, 8))
    wanted = np.maximum(theirs(torch.from_numpy(x)).detach().numpy(), 0)
    assert fused.kept_bytes == 0
    fused(x)
    assert fused.kept_bytes == 4 * fused.weight.data.nbytes
    fused.astype(np.float32)
    y = fused(x.astype(np.float32))
    assert y.dtype == np.float32
    assert relative_error(y, wanted) < 1e-5
    assert fused.kept_bytes == 4 * fused.weight.data.nbytes


def test_there_is_no_way_back():
    fused, _ = pair(OPTIONS[0], True)
    y = fused(np.ones((1, 4, 5, 5)))
    with pytest.raises(LayerError, match=r"no backward: train the network that was fused, and call fuse\(\) again"):
        fused.backward(y)


@pytest.mark.parametrize("shape", [(1, 6, 5, 4), (2, 6, 5, 5), (1, 5, 5, 5)])
def test_a_shortcut_must_fit(shape):
    fused, _ = pair(OPTIONS[0], True)
    with pytest.raises(LayerError, match=r"shortcut must be float64 of the output's shape \(1, 6, 5, 5\)"):
        fused(np.ones((1, 4, 5, 5)), np.ones(shape))
    with pytest.raises(LayerError, match="float32"):
        fused(np.ones((1, 4, 5, 5)), np.ones((1, 6, 5, 5), np.float32))


def test_inputs_are_checked_as_a_convolutions():
    fused, _ = pair(OPTIONS[0], True)
    for x in (np.ones((1, 3, 5, 5)), np.ones((4, 5, 5)), np.ones((1, 4, 5, 5), np.float32)):
        with pytest.raises(LayerError):
            fused(x)
    fused, _ = pair(OPTIONS[1], True)
    with pytest.raises(LayerError, match="the window covers"):
        fused(np.ones((1, 4, 2, 2)))


def test_its_repr_says_relu():
    fused, _ = pair(OPTIONS[0], True)
    assert repr(fused) == "FusedConv2d(4, 6, 3, padding=1, relu=True)"


@pytest.mark.parametrize("relu", [False, True])
def test_on_a_device(relu, monkeypatch):
    strict_cupy.install(monkeypatch)
    from tinycnn import to_device, to_numpy

    fused, _ = pair(OPTIONS[0], relu)
    rng = np.random.default_rng(0)
    x, s = rng.standard_normal((2, 4, 6, 5)), rng.standard_normal((2, 6, 6, 5))
    here = fused(x), fused(x, s)
    fused.to("cuda")
    x, s = to_device(x, "cuda"), to_device(s, "cuda")
    there = fused(x), fused(x, s)
    for a, b in zip(here, there, strict=True):
        assert relative_error(to_numpy(b), a) < 1e-13
    np.testing.assert_array_equal(fused.to("cpu")(to_numpy(x)), here[0])


def test_a_residual_block_gives_its_sum_to_the_last_convolution():
    rng = np.random.default_rng(0)
    first, last = (FusedConv2d(Conv2d(4, 4, 3, padding=1, rng=rng, dtype=np.float64), relu=r) for r in (True, True))
    short = Sequential(Conv2d(4, 4, 1, rng=rng, dtype=np.float64), BatchNorm2d(4, dtype=np.float64)).eval()
    block = FusedResidual(Sequential({"conv1": first, "": Sequential(Identity(), last)}), short)
    x = rng.standard_normal((2, 4, 6, 5))
    plain = FusedConv2d(last, relu=False)
    wanted = np.maximum(plain(first(x)) + short(x), 0)
    assert relative_error(block(x), wanted) < 1e-14
    assert set(block.state_dict()) >= {"conv1.weight", "1.weight", "downsample.0.weight"}
    assert block.output_shape(x.shape) == x.shape
    with pytest.raises(LayerError):
        block.backward(x)
