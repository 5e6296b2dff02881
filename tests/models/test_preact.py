"""Pre-activation residual networks: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_same_step, assert_step_is_torchs, stirred
from references import count
from references.preact import Block, PreAct

from tinycnn import gradcheck
from tinycnn.models import architecture, create, preact, preact_resnet
from tinycnn.models.resnet import Place, way_past

NETS = {110: (18, False, "A"), 164: (18, True, "B"), 1001: (111, True, "B")}


@pytest.mark.parametrize("depth", NETS)
def test_costs_and_names_are_pytorchs(depth):
    known = architecture(f"preact_resnet{depth}")
    with torch.device("meta"):
        module = PreAct(*NETS[depth])
        assert count(module, known.input_shape) == (known.parameters, known.macs)
    ours = create(f"preact_resnet{depth}", initialize=False).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }


def test_there_is_nothing_between_the_stem_and_the_first_block():
    names = [name for name, _ in create("preact_resnet164", initialize=False).named_parameters()]
    block = [f"layer1.0.{kind}{i}.{what}" for i in (1, 2, 3) for kind, what in PARTS]
    assert names[:11] == ["conv1.weight", *block, "layer1.0.downsample.0.weight"]
    assert names[-4:] == ["bn.weight", "bn.bias", "fc.weight", "fc.bias"]


PARTS = (("bn", "weight"), ("bn", "bias"), ("conv", "weight"))


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"shortcut": "A"}, "A"),
        ({"shortcut": "A", "pad_where": "end"}, "A end"),
        ({"shortcut": "B"}, "B"),
    ],
)
def test_a_step_is_pytorchs(block, options, option):
    n = 2
    ours = preact_resnet(3 * n * (2 if block == "basic" else 3) + 2, 5, 2, block=block, **options)
    theirs = PreAct(n, block == "bottleneck", option, 5, 2)
    assert_step_is_torchs(*stirred(ours, theirs), images(3, 2, 14, 10), tolerance=1e-10)


def test_a_step_of_56_layers_is_pytorchs():
    ours, theirs = stirred(preact_resnet(56), PreAct(6, True, "B"))
    assert_step_is_torchs(ours, theirs, images(2, 3, 12, 8), tolerance=1e-9)


@pytest.mark.parametrize(
    ("block", "C", "OC", "stride"), [("basic", 3, 3, 1), ("basic", 3, 5, 2), ("bottleneck", 4, 8, 2)]
)
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_a_block(block, C, OC, stride, shared):
    at, rng = Place(C, OC, stride), np.random.default_rng(0)
    make = preact.preact_basic if block == "basic" else preact.preact_bottleneck
    layer = make(at, way_past(at, "B", "both", rng, norm=False), shared=shared, rng=rng)
    report = gradcheck(layer.astype(np.float64), images(2, C, 5, 3))
    assert report.ok, str(report)


@pytest.mark.parametrize("shared", [False, True])
def test_where_the_ways_part(shared):
    """A block whose main branch is 0 shows its shortcut alone."""
    layer = preact.preact_basic(Place(4, 4), None, shared=shared, rng=np.random.default_rng(0)).astype(np.float64)
    layer.conv2.weight.data[...] = 0
    x = images(2, 4, 5, 6)
    y = torch.nn.functional.relu(torch.nn.BatchNorm2d(4, dtype=torch.float64)(torch.from_numpy(x)))
    np.testing.assert_allclose(layer(x), y.detach().numpy() if shared else x, rtol=1e-12, atol=1e-12)


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("C", [64, 256])
def test_blocks_of_full_width_are_pytorchs(C):
    at = Place(C // 2, C, 2)
    rng = np.random.default_rng(0)
    make = preact.preact_basic if C == 64 else preact.preact_bottleneck
    ours = make(at, way_past(at, "B", "both", rng, norm=False), shared=True, rng=rng)
    channels, kernels = ((C // 2, C, C), (3, 3)) if C == 64 else ((C // 2, C // 4, C // 4, C), (1, 3, 1))
    theirs = Block(channels, kernels, 2, True, "B", "downsample")
    assert_step_is_torchs(*stirred(ours, theirs), images(2, C // 2, 6, 5), tolerance=1e-10)


def test_initial_values_are_he_normal_on_fan_out():
    for name, p in create("preact_resnet164").named_parameters():
        if p.data.ndim == 4 and p.size > 4000:
            assert p.data.std() == pytest.approx(np.sqrt(2 / (p.shape[0] * p.shape[2] ** 2)), rel=0.06), name
        elif "bn" in name:
            assert (p.data == name.endswith("weight")).all(), name


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_checkpointing_changes_nothing(block):
    depth = 14 if block == "basic" else 11
    plain, kept = (preact_resnet(depth, block=block, checkpointed=checkpointed) for checkpointed in (False, True))
    assert_same_step(plain, kept, images(3, 3, 12, 9).astype(np.float32))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"with bottleneck blocks depth must be 9n \+ 2, got 111"):
        preact_resnet(111)
    with pytest.raises(ValueError, match=r"with basic blocks depth must be 6n \+ 2, got 2"):
        preact_resnet(2, block="basic")
    with pytest.raises(ValueError, match="block must be 'basic' or 'bottleneck', got 'wide'"):
        preact_resnet(164, block="wide")
    with pytest.raises(ValueError, match=r"shortcut must be 'A' .* got 'none'"):
        create("preact_resnet110", shortcut="none")
