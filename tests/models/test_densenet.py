"""DenseNets: costs, names, initial values, dropout, PyTorch parity."""

from functools import partial

import numpy as np
import pytest
import torch
from helpers import assert_same_step, assert_step_is_torchs, stirred
from references import count
from references import densenet as reference

from tinycnn import DenseBlock, Dropout, gradcheck
from tinycnn.models import architecture, create, densenet, densenet_cifar
from tinycnn.models.densenet import transition

NETS = {
    **{f"densenet{depth}": partial(reference.imagenet, depth) for depth in (121, 169, 201)},
    "densenet_bc_100_12": reference.bc_100_12,
    "densenet_40_12": reference.plain_40_12,
}


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape)


@pytest.mark.parametrize("name", NETS)
def test_costs_and_names_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        module = NETS[name]()
        assert count(module, known.input_shape) == (known.parameters, known.macs)
    ours = create(name, initialize=False).state_dict()
    theirs = module.state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}


def test_the_state_dict_of_densenet121_is_torchvisions():
    keys = list(create("densenet121", initialize=False).state_dict())
    assert len(keys) == 727
    assert len([key for key in keys if not key.endswith("num_batches_tracked")]) == 606
    for part in ("conv0", "norm0", "denseblock4.denselayer16.norm2", "transition3.conv", "transition1.norm", "norm5"):
        assert f"features.{part}.weight" in keys
    assert {"classifier.weight", "classifier.bias"} < set(keys)


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_step_for_imagenet_is_pytorchs(evaluate):
    """All 121 layers, of an eighth of their width."""
    ours = densenet(121, 7, 2, growth_rate=4, compression=0.4)
    theirs = reference.DenseNet(reference.BLOCKS[121], 4, "imagenet", 8, theta=0.4, in_channels=2, num_classes=7)
    ours, theirs = stirred(ours, theirs)
    if evaluate:
        ours.eval(backward=True)
        theirs.eval()
    assert_step_is_torchs(ours, theirs, images(3, 2, 67, 40), tolerance=1e-9)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {"k": 5, "width": 10, "bottleneck": 4, "theta": 0.5}),
        ({"compression": 1.0}, {"k": 5, "width": 16, "bottleneck": 4, "theta": 1.0}),
        ({"bottleneck": False}, {"k": 5, "width": 16, "bottleneck": None, "theta": 0.5}),
        ({"bottleneck": False, "compression": 1.0}, {"k": 5, "width": 16, "bottleneck": None, "theta": 1.0}),
    ],
)
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_step_for_small_images_is_pytorchs(options, theirs, checkpointed):
    """DenseNet, -B, -C and -BC of two layers in a block."""
    depth = 16 if options.get("bottleneck", True) else 10
    ours = densenet_cifar(depth, 7, 2, growth_rate=5, checkpointed=checkpointed, **options)
    module = reference.DenseNet((2, 2, 2), stem="cifar", in_channels=2, num_classes=7, **theirs)
    assert_step_is_torchs(*stirred(ours, module), images(3, 2, 14, 11), tolerance=1e-9)


@pytest.mark.parametrize(("C", "L", "bottleneck"), [(64, 6, 4), (896, 2, 4), (16, 12, None)])
def test_a_block_of_full_width_is_pytorchs(C, L, bottleneck):
    k = 32 if bottleneck else 12
    ours, theirs = stirred(DenseBlock(C, k, L, bottleneck), reference.Block(C, k, L, bottleneck))
    assert_step_is_torchs(ours, theirs, images(2, C, 5, 4), tolerance=1e-9)


def test_gradients_of_a_transition():
    rng = np.random.default_rng(0)
    layer = transition(4, 2, 0.3, rng).astype(np.float64)
    for p in layer.parameters():
        p.data[...] += rng.uniform(0.1, 0.4, p.shape)
    report = gradcheck(layer, images(2, 4, 4, 7))
    assert report.ok, str(report)


def test_initial_values_are_he_normal_and_torchvisions():
    model = create("densenet121")
    for name, p in model.named_parameters():
        if p.data.ndim == 4 and p.size > 4000:
            assert p.data.std() == pytest.approx(np.sqrt(2 / p.data[0].size), rel=0.07), name
        elif name.startswith("features") and p.data.ndim == 1:
            assert (p.data == name.endswith("weight")).all(), name
    bound = 1024**-0.5
    w = model.classifier.weight.data
    assert abs(w).max() <= bound
    assert w.std() == pytest.approx(bound / np.sqrt(3), rel=0.01)
    assert not model.classifier.bias.data.any()


def test_checkpointed_gives_the_same_bits():
    a, b = (
        densenet_cifar(16, 5, growth_rate=4, dropout=0.2, checkpointed=c, rng=np.random.default_rng(0))
        for c in (False, True)
    )
    assert_same_step(a, b, images(2, 3, 12, 9).astype(np.float32))


def test_dropout_is_behind_every_convolution_but_the_first():
    """With the masks that were drawn, put behind the convolutions of the reference."""
    ours = densenet_cifar(16, 7, growth_rate=3, dropout=0.2, rng=np.random.default_rng(0))
    module = reference.DenseNet((2, 2, 2), 3, "cifar", 6, num_classes=7)
    ours, theirs = stirred(ours, module)
    modules, drops = dict(theirs.named_modules()), 0
    for path, layer in ours.named_layers():
        if isinstance(layer, Dropout):
            again = Dropout(0.2)
            again.stream.set_state(layer.stream.state())
            modules[path.replace("drop", "conv")].register_forward_hook(
                lambda _, x, y, drop=again: y * torch.from_numpy(drop(np.ones(y.shape)))
            )
            drops += 1
    assert drops == 6 * 2 + 2
    assert_step_is_torchs(ours, theirs, images(3, 3, 12, 9), tolerance=1e-9)


def test_growth_and_compression_set_the_widths():
    model = create("densenet121", 5, 1, initialize=False, growth_rate=48, compression=0.7)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes["features.conv0.weight"] == (96, 1, 7, 7)
    assert shapes["features.transition1.conv.weight"] == (268, 384, 1, 1)  # 96 + 6·48, and ⌊0.7 · 384⌋
    assert shapes["features.denseblock2.denselayer2.conv1.weight"] == (192, 316, 1, 1)
    assert densenet(161, growth_rate=48).num_parameters() == 28_681_000
    assert densenet(121)(np.zeros((2, 3, 29, 29), np.float32)).shape == (2, 1000)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="depth must be one of 121, 161, 169, 201, 264, got 100"):
        densenet(100)
    with pytest.raises(ValueError, match=r"depth must be 6n \+ 4 with bottlenecks \(10, 16, 22, …\), got 40001"):
        densenet_cifar(40001)
    with pytest.raises(ValueError, match=r"depth must be 3n \+ 4 without bottlenecks \(7, 10, 13, …\), got 4"):
        densenet_cifar(4, bottleneck=False)
    for options in ({"growth_rate": 0}, {"compression": 1.2}, {"compression": 0}, {"dropout": 1.0}):
        (name,) = options
        for build in (partial(densenet, 121), partial(densenet_cifar, 100)):
            with pytest.raises(ValueError, match=f"{name} must be"):
                build(**options)
