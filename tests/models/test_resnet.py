"""Residual networks for ImageNet: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_same_step, assert_step_is_torchs, stirred
from references import count
from references.resnet import ResNet, basic, bottleneck

from tinycnn import gradcheck
from tinycnn.models import architecture, basic_resnet, bottleneck_resnet, create, resnet

COUNTS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
PAPERS_STRIDE = {50: 3.858e9, 101: 7.570e9, 152: 11.282e9}
IMAGE = (3, 224, 224)


def reference(depth, **options):
    block = (basic if depth < 50 else bottleneck)(**options)
    return ResNet(block, 1 if depth < 50 else 4, COUNTS[depth])


@pytest.mark.parametrize("depth", COUNTS)
def test_costs_are_pytorchs(depth):
    known = architecture(f"resnet{depth}")
    with torch.device("meta"):
        assert count(reference(depth), IMAGE) == (known.parameters, known.macs)


@pytest.mark.parametrize("depth", PAPERS_STRIDE)
def test_costs_with_the_papers_stride(depth):
    model = create(f"resnet{depth}", stride_in="1x1", initialize=False)
    with torch.device("meta"):
        parameters, macs = count(reference(depth, paper=True), IMAGE)
    assert (model.num_parameters(), model.macs((1, *IMAGE))) == (parameters, macs)
    assert macs == pytest.approx(PAPERS_STRIDE[depth], abs=0.5e6)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_515_688), (34, 21_623_848)])
def test_option_a_has_no_projections(depth, parameters):
    model = create(f"resnet{depth}", shortcut="A", initialize=False)
    with torch.device("meta"):
        assert count(reference(depth, option="A"), IMAGE) == (parameters, model.macs((1, *IMAGE)))
    assert model.num_parameters() == parameters
    assert not any("downsample" in name for name in model.state_dict())


def torchvisions_names(depth):
    norm = [f".{what}" for what in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    names = ["conv1.weight", *(f"bn1{end}" for end in norm), "fc.weight", "fc.bias"]
    for i, blocks in enumerate(COUNTS[depth], start=1):
        for j in range(blocks):
            for k in range(1, 3 if depth < 50 else 4):
                names += [f"layer{i}.{j}.conv{k}.weight", *(f"layer{i}.{j}.bn{k}{end}" for end in norm)]
            if j == 0 and (i > 1 or depth >= 50):
                names += [f"layer{i}.{j}.downsample.0.weight", *(f"layer{i}.{j}.downsample.1{end}" for end in norm)]
    return names


@pytest.mark.parametrize(("depth", "entries"), [(18, 122), (34, 218), (50, 320), (101, 626), (152, 932)])
def test_names_are_torchvisions(depth, entries):
    names = list(create(f"resnet{depth}", initialize=False).state_dict())
    assert sorted(names) == sorted(torchvisions_names(depth))
    assert len(names) == entries
    with torch.device("meta"):
        parameters = [name for name, _ in reference(depth).named_parameters()]
    assert [name for name in names if name in parameters] == parameters


@pytest.mark.parametrize("options", [{}, {"shortcut": "A"}, {"shortcut": "A", "pad_where": "end"}])
def test_a_step_with_basic_blocks_is_pytorchs(options):
    ours = basic_resnet((2, 1, 2), 5, 2, width=6, **options)
    where = " end" if "pad_where" in options else ""
    theirs = ResNet(basic(options.get("shortcut", "B") + where), 1, (2, 1, 2), 5, 2, width=6)
    assert_step_is_torchs(*stirred(ours, theirs), images(3, 2, 45, 39), tolerance=1e-10)


@pytest.mark.parametrize("options", [{}, {"stride_in": "1x1"}, {"shortcut": "A"}])
def test_a_step_with_bottlenecks_is_pytorchs(options):
    ours = bottleneck_resnet((1, 2, 1, 2), 5, 2, width=4, **options)
    block = bottleneck(options.get("shortcut", "B"), "stride_in" in options)
    theirs = ResNet(block, 4, (1, 2, 1, 2), 5, 2, width=4)
    assert_step_is_torchs(*stirred(ours, theirs), images(3, 2, 70, 61), tolerance=1e-10)


def test_all_of_resnet18_is_pytorchs():
    ours, theirs = stirred(create("resnet18", 7), ResNet(basic(), 1, COUNTS[18], 7))
    assert_step_is_torchs(ours, theirs, images(2, 3, 40, 50), tolerance=1e-10)


@pytest.mark.parametrize("at", [(64, 256, 1), (1024, 2048, 2)])
def test_bottlenecks_of_full_width_are_pytorchs(at):
    C, OC, stride = at
    ours = resnet.bottleneck(resnet.Place(*at), rng=np.random.default_rng(0))
    assert_step_is_torchs(*stirred(ours, bottleneck()(C, OC // 4, stride)), images(2, C, 5, 4), tolerance=1e-10)


@pytest.mark.parametrize("at", [(4, 4, 1), (4, 8, 2)])
@pytest.mark.parametrize("kind", ["basic_block", "bottleneck"])
@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_gradients_of_a_block(kind, at, shortcut):
    block = getattr(resnet, kind)(resnet.Place(*at), shortcut=shortcut, rng=np.random.default_rng(3))
    report = gradcheck(block.astype(np.float64), images(2, 4, 5, 3))
    assert report.ok, str(report)


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def test_initial_values_are_the_papers():
    model = create("resnet50")
    for name, p in model.named_parameters():
        if p.data.ndim == 4:
            OC, _, KH, KW = p.shape
            assert p.data.std() == pytest.approx(np.sqrt(2 / (KH * KW * OC)), rel=0.05), name
            assert abs(p.data.mean()) < 5 * p.data.std() / np.sqrt(p.size), name
        elif p.data.ndim == 1 and name != "fc.bias":
            assert (p.data == name.endswith("weight")).all(), name
    for p in model["fc"].parameters():
        assert np.abs(p.data).max() == pytest.approx(1 / np.sqrt(2048), rel=0.01)


@pytest.mark.parametrize("build", [basic_resnet, bottleneck_resnet])
def test_blocks_can_start_as_the_identity(build):
    model = build((2, 2), 4, width=8, zero_init_residual=True)
    last = "bn2" if build is basic_resnet else "bn3"
    zeros = {name for name, p in model.named_parameters() if name.endswith("weight") and not p.data.any()}
    assert zeros == {f"layer{i}.{j}.{last}.weight" for i in (1, 2) for j in (0, 1)}
    x = np.abs(images(2, 8 if build is basic_resnet else 32, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(model["layer1"][1](x), x)


@pytest.mark.parametrize("build", [basic_resnet, bottleneck_resnet])
def test_checkpointing_changes_nothing(build):
    plain, kept = (build((2, 1), 4, width=8, checkpointed=checkpointed) for checkpointed in (False, True))
    assert_same_step(plain, kept, images(3, 3, 33, 40).astype(np.float32))
    assert sum("Checkpointed" in type(layer).__name__ for layer in kept.layers()) == 3


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet18", {"shortcut": "C"}, ValueError, r"shortcut must be 'A' \(zero channels\) or 'B' .* got 'C'"),
        ("resnet18", {"shortcut": "A", "pad_where": "front"}, ValueError, "must be 'both' or 'end', got 'front'"),
        ("resnet18", {"stride_in": "1x1"}, TypeError, "stride_in"),
        ("resnet50", {"stride_in": "5x5"}, ValueError, "stride_in must be '3x3' or, .* '1x1', got '5x5'"),
        ("resnet50", {"groups": 0}, ValueError, "groups, .* must be at least 1, got 0"),
        ("resnet50", {"width_per_group": 0}, ValueError, "width_per_group=0 leaves no channel"),
    ],
)
def test_bad_arguments_are_named(name, options, error, message):
    with pytest.raises(error, match=message):
        create(name, initialize=False, **options)


@pytest.mark.parametrize("counts", [(), (1, 0), (1, 1, 1, 1, 1)])
def test_bad_counts_are_named(counts):
    with pytest.raises(ValueError, match=r"counts must be the blocks, 1 or more, of at most 4 stages, got \("):
        basic_resnet(counts)
