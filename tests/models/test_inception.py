"""Inception-v4 and Inception-ResNet-v2: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, stirred
from references import count
from references.inception import InceptionResNetV2, InceptionV4

from tinycnn import BatchNormReLU2d, Conv2d, gradcheck
from tinycnn.models import architecture, create, inception

NETS = {"inception_v4": InceptionV4, "inception_resnet_v2": InceptionResNetV2}
BOTH = pytest.mark.parametrize("name", NETS)


@BOTH
def test_costs_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        assert count(NETS[name](), known.input_shape) == (known.parameters, known.macs)


@BOTH
def test_names_are_the_ports(name):
    with torch.device("meta"):
        wanted = NETS[name]().state_dict()
    ours = create(name, initialize=False).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {k: tuple(v.shape) for k, v in wanted.items()}


def test_names_as_written_elsewhere():
    """A few of the published ones, by hand."""
    keys = create("inception_v4", initialize=False).state_dict().keys()
    for place in ("0.conv.weight", "3.conv.bn.bias", "4.branch1.3.conv.weight", "9.branch3.1.bn.running_var"):
        assert f"features.{place}" in keys
    for place in (
        "10.branch1.2.conv",
        "11.branch2.4.conv",
        "18.branch0.1.conv",
        "19.branch2_3b.conv",
        "21.branch0.conv",
    ):
        assert f"features.{place}.weight" in keys
    assert {"last_linear.weight", "last_linear.bias"} < keys
    assert len(keys) == 149 * 6 + 2
    keys = create("inception_resnet_v2", initialize=False).state_dict().keys()
    for place in ("conv2d_1a.conv", "mixed_5b.branch3.1.conv", "repeat.9.conv2d", "repeat_1.19.branch1.2.bn"):
        assert f"{place}.weight" in keys
    assert {"repeat_2.8.conv2d.bias", "block8.conv2d.bias", "mixed_7a.branch2.2.bn.num_batches_tracked"} < keys
    assert len(keys) == 204 * 6 + 40 * 2 + 2


@BOTH
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_step_is_pytorchs(name, mode):
    """With few blocks, but two of those that repeat, at full width."""
    blocks, image = ((1, 1, 1), (79, 108)) if mode == "train" else ((2, 1, 2), (75, 76))
    ours = create(name, 7, in_channels=2, blocks=blocks, dropout=0.0)
    model, module = stirred(ours, NETS[name](blocks, 7, 2, dropout=0.0))
    if mode == "eval":
        model.eval(backward=True)
        module.eval()
    x = np.random.default_rng(0).standard_normal((2, 2, *image))
    # nothing but a 1×1 convolution lies between the last block, without its ReLU, and a normalisation
    vanishing = ["block8.conv2d.bias"] if mode == "train" else []
    assert_step_is_torchs(model, module, x, tolerance=1e-9, vanishing=vanishing)


def test_sizes_are_the_papers():
    """Figures 3, 9 and 15, as far as they hold for the released networks."""
    features, shape, v4 = create("inception_v4", initialize=False)["features"], (1, 3, 299, 299), {}
    for layer in features:
        shape = layer.output_shape(shape)
        v4[layer.path.removeprefix("features.")] = shape[1:]
    stem = [(32, 149, 149), (32, 147, 147), (64, 147, 147), (160, 73, 73), (192, 71, 71), (384, 35, 35)]
    assert [v4[str(i)] for i in range(6)] == stem
    assert (v4["9"], v4["17"], v4["21"]) == ((384, 35, 35), (1024, 17, 17), (1536, 8, 8))
    model, shape, sizes = create("inception_resnet_v2", initialize=False), (1, 3, 299, 299), {}
    for layer in model:
        shape = layer.output_shape(shape)
        sizes[layer.path] = shape[1:]
    assert (sizes["repeat"], sizes["repeat_1"], sizes["block8"]) == ((320, 35, 35), (1088, 17, 17), (2080, 8, 8))
    assert (sizes["conv2d_7b"], sizes["flatten"]) == ((1536, 8, 8), (1536,))


BLOCKS = {
    "A": (inception.inception_a, 384),
    "B": (inception.inception_b, 1024),
    "C": (inception.inception_c, 1536),
    "reduction": (lambda rng: inception.reduction_a(384, (192, 224, 256), rng), 384),
    "35": (inception.block35, 320),
    "17": (inception.block17, 1088),
    "8": (inception.block8, 2080),
    "last": (lambda rng: inception.block8(rng, 1.0, relu=False), 2080),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients_of_every_block(kind, monkeypatch):
    """With an eighth of the channels."""
    monkeypatch.setattr(inception, "Conv2d", lambda C, OC, *args, **kw: Conv2d(C // 8, OC // 8, *args, **kw))
    monkeypatch.setattr(inception, "BatchNormReLU2d", lambda C, **kw: BatchNormReLU2d(C // 8, **kw))
    make, C = BLOCKS[kind]
    rng = np.random.default_rng(0)
    block = make(rng).astype(np.float64)
    report = gradcheck(block, rng.standard_normal((2, C // 8, 4, 5)), directions=1, jacobian_entries=0)
    assert report.ok, str(report)


@BOTH
def test_recomputation_changes_no_bit(name):
    results = []
    for checkpointed in (False, True):
        model = create(name, 3, blocks=(1, 1, 1), checkpointed=checkpointed)
        x = np.random.default_rng(0).standard_normal((2, 3, 75, 75)).astype(np.float32)
        y = model(x)
        results.append([y, model.backward(np.ones_like(y)), *(p.grad for p in model.parameters()), *model.buffers()])
        keys = list(model.state_dict())
    assert keys == list(create(name, 3, blocks=(1, 1, 1), initialize=False).state_dict())
    for plain, repeated in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, repeated)


@BOTH
def test_initial_values_are_the_released_networks(name):
    for path, p in create(name, num_classes=500, blocks=(1, 1, 1)).named_parameters():
        if p.data.ndim == 4:
            std = np.sqrt(2 / np.prod(p.shape[1:]))
            assert p.data.std() == pytest.approx(std, rel=0.02 if p.size > 20_000 else 0.1), path
            assert abs(p.data).max() <= 2 * np.sqrt(1.3) * std * (1 + 1e-6), path
        elif p.data.ndim == 2:
            bound = np.sqrt(6 / (1536 + 500))
            assert 0.99 * bound < abs(p.data).max() <= bound * (1 + 1e-6)
        else:
            assert (p.data == (1 if path.endswith("bn.weight") else 0)).all(), path


@BOTH
def test_bad_arguments_are_named(name):
    with pytest.raises(ValueError, match=r"blocks must be three numbers from 1, one for each stage, got \(1, 0, 2\)"):
        create(name, blocks=(1, 0, 2))
    with pytest.raises(ValueError, match=r"p is the probability of dropping, from 0 to 1, got 1\.2"):
        create(name, blocks=(1, 1, 1), dropout=1.2, initialize=False)
    with pytest.raises(ValueError, match="use larger images"):
        create(name, blocks=(1, 1, 1), initialize=False)(np.zeros((1, 3, 74, 80), np.float32))
