"""Files of weights that others published, or of their names and shapes."""

import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import reference
import torch

from tinycnn import models
from tinycnn.interop import CheckpointError, load_network, load_weights, read_weights


def zeros(shapes):
    """A state dict of such shapes that takes no room: each tensor is one number, over and over."""
    return {name: torch.zeros((), dtype=_dtype(name)).expand(shape) for name, shape in shapes.items()}


def _dtype(name):
    return torch.int64 if name.endswith("num_batches_tracked") else torch.float32


def shapes_of(model):
    named = {name: p.data for name, p in model.named_parameters()} | dict(model.named_buffers())
    return {name: tuple(x.shape) for name, x in named.items()}


def trained(net, seed=0):
    """Give a PyTorch network random parameters and statistics."""
    generator = torch.Generator().manual_seed(seed)
    for x in net.state_dict().values():
        if x.dtype == torch.float32:
            x.uniform_(0.5, 1.5, generator=generator)
    return net


RESNET20 = Path(os.environ.get("TINYCNN_DATA", "nowhere")) / "weights" / "resnet20-12fca82f.th"
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None  # an import of it fails
from tinycnn import interop, models
path, name = sys.argv[1:]
weights = interop.read_weights(path)
model = models.create(name).eval()
left = interop.load_weights(model, path, rename={"linear": "fc"})
sums = {n: float(abs(x).sum(dtype="f8")) for n, x in model.state_dict().items()}
print(json.dumps({"extra": weights.extra, "left": left, "sums": sums}))
"""


def load_without_torch(path, name):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, path, name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_files_of_the_kind_of_akamasters_load_without_torch(depth, tmp_path):
    """ResNets for CIFAR-10 by akamaster/pytorch_resnet_cifar10: old streams, ``module.``, a classifier ``linear``."""
    net = trained(reference.ResNetCifar(depth))
    state = {f"module.{k.replace('fc.', 'linear.')}": v for k, v in net.state_dict().items()}
    state = OrderedDict((k, v) for k, v in state.items() if not k.endswith("num_batches_tracked"))
    path = tmp_path / f"resnet{depth}-12345678.th"
    torch.save({"state_dict": state, "best_prec1": 92.63}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"X\3\0\0\0cpu", b"X\6\0\0\0cuda:0"))
    found = load_without_torch(path, f"resnet{depth}")
    assert found["extra"] == {"best_prec1": 92.63}
    assert found["left"] == [[], []]
    for name, x in net.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert found["sums"][name] == pytest.approx(float(x.double().abs().sum()), rel=1e-12), name


@pytest.mark.slow
@pytest.mark.skipif(not RESNET20.exists(), reason="TINYCNN_DATA has no weights/resnet20-12fca82f.th")
def test_a_published_checkpoint_is_read_as_pytorch_reads_it():
    """The ResNet-20 of akamaster/pytorch_resnet_cifar10; `tests.cli.test_convert` measures its accuracy."""
    assert load_without_torch(RESNET20, "resnet20")["extra"] == {"best_prec1": 91.78000183105469}
    model = models.create("resnet20").eval()
    assert load_weights(model, RESNET20, rename={"linear": "fc"}) == ([], [])
    state = torch.load(RESNET20, map_location="cpu", weights_only=True)["state_dict"]
    for name, x in state.items():
        ours = model.state_dict()[name.removeprefix("module.").replace("linear.", "fc.")]
        np.testing.assert_array_equal(ours, x.numpy())


BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def bn(name):
    return [f"{name}.{part}" for part in BN]


def layer(name):
    return [f"{name}.weight", f"{name}.bias"]


def resnet_keys(blocks, convolutions):
    keys = ["conv1.weight", *bn("bn1")]
    for stage, count in enumerate(blocks, 1):
        for i in range(count):
            block = f"layer{stage}.{i}"
            for n in range(1, convolutions + 1):
                keys += [f"{block}.conv{n}.weight", *bn(f"{block}.bn{n}")]
            if i == 0 and (stage > 1 or convolutions == 3):
                keys += [f"{block}.downsample.0.weight", *bn(f"{block}.downsample.1")]
    return [*keys, *layer("fc")]


def googlenet_keys():
    def conv(name):
        return [f"{name}.conv.weight", *bn(f"{name}.bn")]

    keys = [*conv("conv1"), *conv("conv2"), *conv("conv3")]
    for block in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        for branch in ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"):
            keys += conv(f"inception{block}.{branch}")
    return [*keys, *layer("fc")]


def googlenet_heads():
    def head(name):
        return [f"{name}.conv.conv.weight", *bn(f"{name}.conv.bn"), *layer(f"{name}.fc1"), *layer(f"{name}.fc2")]

    return [*head("aux1"), *head("aux2")]


def densenet_keys(blocks):
    keys = ["features.conv0.weight", *bn("features.norm0")]
    for b, count in enumerate(blocks, 1):
        for i in range(1, count + 1):
            for n in (1, 2):
                one = f"features.denseblock{b}.denselayer{i}"
                keys += [*bn(f"{one}.norm{n}"), f"{one}.conv{n}.weight"]
        if b < len(blocks):
            keys += [*bn(f"features.transition{b}.norm"), f"features.transition{b}.conv.weight"]
    return [*keys, *bn("features.norm5"), *layer("classifier")]


def indexed(features, classifier, norms=()):
    keys = [key for i in features for key in layer(f"features.{i}") + (bn(f"features.{i + 1}") if norms else [])]
    return keys + [key for i in classifier for key in layer(f"classifier.{i}")]


TORCHVISION = {  # name: keys, how many, how many of old files that lack the batch counters
    "resnet18": (resnet_keys([2, 2, 2, 2], 2), 122, 102),
    "resnet50": (resnet_keys([3, 4, 6, 3], 3), 320, 267),
    "alexnet": (indexed([0, 3, 6, 8, 10], [1, 4, 6]), 16, 16),
    "vgg16": (indexed([0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28], [0, 3, 6]), 32, 32),
    "vgg16_bn": (indexed([0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40], [0, 3, 6], BN), 97, 84),
    "googlenet": (googlenet_keys(), 344, 287),
    "densenet121": (densenet_keys([6, 12, 24, 16]), 727, 606),
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvisions_names_are_ours(name, old, tmp_path):
    keys, new_count, old_count = TORCHVISION[name]
    model = models.create(name, initialize=False)
    shapes = shapes_of(model)
    if old:
        keys = [key for key in keys if not key.endswith("num_batches_tracked")]
    assert len(keys) == (old_count if old else new_count)
    state = zeros({key: shapes.get(key, (1,)) for key in keys})
    torch.save(state, tmp_path / "m.pth", _use_new_zipfile_serialization=not old)
    if model.num_parameters() > 30e6:  # to fill it takes long, and tells no more
        assert {n for n in shapes if not (old and n.endswith("num_batches_tracked"))} == set(keys)
    else:
        assert load_weights(model, tmp_path / "m.pth") == ([], [])


@pytest.mark.parametrize("name", [name for name in models.names() if "1202" not in name and "1001" not in name])
def test_every_networks_file_fits_it(name, tmp_path):
    model = models.create(name, initialize=False)
    torch.save(zeros(shapes_of(model)), tmp_path / "m.pth")
    found = read_weights(tmp_path / "m.pth")
    assert {n: x.shape for n, x in found.items()} == shapes_of(model)
    if model.num_parameters() < 3e6:
        assert load_weights(model, found) == ([], [])


def test_auxiliary_heads_are_left_out_where_the_network_has_none(tmp_path):
    model = models.create("googlenet", initialize=False)
    keys = [*googlenet_keys(), *googlenet_heads()]
    assert len(keys) == 364
    torch.save(zeros({key: shapes_of(model).get(key, (2, 3)) for key in keys}), tmp_path / "m.pth")
    assert load_weights(model, tmp_path / "m.pth") == ([], googlenet_heads())
    assert load_weights(model, tmp_path / "m.pth", drop="aux*") == ([], [])
    assert load_network(tmp_path / "m.pth", "googlenet").left_out == googlenet_heads()


def test_auxiliary_heads_are_loaded_where_the_network_has_them(tmp_path):
    model = models.create("googlenet", initialize=False, aux_heads=True)
    assert set(model.state_dict()) == {*googlenet_keys(), *googlenet_heads()}
    state = {name: torch.full(x.shape, 2, dtype=torch.float32) for name, x in model.state_dict().items()}
    torch.save(state, tmp_path / "m.pth")
    assert load_weights(model, tmp_path / "m.pth") == ([], [])
    assert (model.aux2.fc2.weight.data == 2).all()
    del state["aux2.fc2.weight"]
    torch.save(state, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"missing aux2\.fc2\.weight"):
        load_weights(model, tmp_path / "m.pth")


def test_densenets_old_names(tmp_path):
    model = models.create("densenet121", initialize=False)
    old = {}
    for key, shape in shapes_of(model).items():
        if "denselayer" in key and not key.endswith("num_batches_tracked"):
            key = key.replace("norm1", "norm.1").replace("norm2", "norm.2")
            key = key.replace("conv1", "conv.1").replace("conv2", "conv.2")
        old |= {} if key.endswith("num_batches_tracked") else {key: shape}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert len(old) == 606
    torch.save(zeros(old), tmp_path / "m.pth")
    assert load_weights(model, tmp_path / "m.pth") == ([], [])
