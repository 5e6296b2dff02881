"""ResNeXt: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_same_step, assert_step_is_torchs, stirred
from references import count
from references.resnet import ResNet, ResNeXt29, resnext_block

from tinycnn import gradcheck
from tinycnn.models import architecture, bottleneck_resnet, create, resnext_cifar
from tinycnn.models.resnet import Place, bottleneck

NETS = {
    "resnext29_8x64d": lambda: ResNeXt29(8, 64),
    "resnext29_16x64d": lambda: ResNeXt29(16, 64),
    "resnext29_32x4d": lambda: ResNeXt29(32, 4),
    "resnext50_32x4d": lambda: ResNet(resnext_block(32, 4), 4, (3, 4, 6, 3)),
    "resnext101_32x8d": lambda: ResNet(resnext_block(32, 8), 4, (3, 4, 23, 3)),
}


@pytest.mark.parametrize("name", NETS)
def test_costs_and_names_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        module = NETS[name]()
        assert count(module, known.input_shape) == (known.parameters, known.macs)
    ours = create(name, initialize=False).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {
        key: tuple(value.shape) for key, value in module.state_dict().items()
    }
    assert len(ours) == {"resnext50_32x4d": 320, "resnext101_32x8d": 626}.get(name, 188)


@pytest.mark.parametrize(("G", "D"), [(3, 16), (4, 8)])
def test_a_step_for_small_images_is_pytorchs(G, D):
    ours = resnext_cifar(11, G, D, 5, 2, width=16)
    theirs = ResNeXt29(G, D, 5, 2, n=1, width=16)
    assert_step_is_torchs(*stirred(ours, theirs), images(3, 2, 14, 9), tolerance=1e-10)


def test_a_step_for_large_images_is_pytorchs():
    ours = bottleneck_resnet((1, 2, 1), 5, 2, groups=4, width_per_group=16, width=8)
    theirs = ResNet(resnext_block(4, 16), 4, (1, 2, 1), 5, 2, width=8)
    assert_step_is_torchs(*stirred(ours, theirs), images(3, 2, 45, 39), tolerance=1e-10)


@pytest.mark.parametrize(
    ("G", "D", "at", "size"),
    [(32, 8, (1024, 2048, 2), (4, 3)), (8, 64, (256, 512, 2), (6, 4)), (32, 4, (64, 256, 1), (5, 4))],
)
def test_blocks_of_full_width_are_pytorchs(G, D, at, size):
    C, OC, stride = at
    ours = bottleneck(Place(*at), groups=G, width_per_group=D, rng=np.random.default_rng(0))
    theirs = resnext_block(G, D)(C, OC // 4, stride)
    assert_step_is_torchs(*stirred(ours, theirs), images(2, C, *size), tolerance=1e-10)


def test_gradients_of_a_block():
    block = bottleneck(Place(4, 8, 2), groups=3, width_per_group=64, rng=np.random.default_rng(0))
    report = gradcheck(block.astype(np.float64), images(2, 4, 5, 3))
    assert report.ok, str(report)


def images(*shape):
    return np.random.default_rng(1).standard_normal(shape)


def test_initial_values_are_he_normal_on_fan_out():
    for name, p in create("resnext29_32x4d").named_parameters():
        if p.data.ndim == 4:  # the authors' code counts the outputs of all groups
            assert p.data.std() == pytest.approx(np.sqrt(2 / (p.shape[0] * p.shape[2] ** 2)), rel=0.06), name


def test_checkpointing_changes_nothing():
    plain, kept = (resnext_cifar(11, 2, 16, 4, width=16, checkpointed=on) for on in (False, True))
    assert_same_step(plain, kept, images(3, 3, 12, 9).astype(np.float32))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"depth must be 9n \+ 2 .* got 28"):
        resnext_cifar(28, 8, 64)
    with pytest.raises(ValueError, match="width_per_group=8 leaves no channel"):
        resnext_cifar(29, 2, 8, width=4)
