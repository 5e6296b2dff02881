"""AlexNet: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, relative_error, stirred
from references import count
from references.alexnet import AlexNet, AlexNet2012, compete

from tinycnn import Sequential, gradcheck
from tinycnn.models import architecture, create

NETS = {"alexnet": AlexNet, "alexnet_2012": AlexNet2012}


@pytest.mark.parametrize("name", NETS)
def test_costs_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        assert count(NETS[name](), known.input_shape) == (known.parameters, known.macs)


def test_names_are_torchvisions():
    wanted = [f"features.{i}.{kind}" for i in (0, 3, 6, 8, 10) for kind in ("weight", "bias")]
    wanted += [f"classifier.{i}.{kind}" for i in (1, 4, 6) for kind in ("weight", "bias")]
    assert list(create("alexnet", initialize=False).state_dict()) == wanted


def test_sizes_are_the_papers():
    model = create("alexnet_2012", initialize=False)
    shapes = {row.path: row.output_shape[1:] for row in model.summary((1, 3, 227, 227)).rows}
    convolutions = {"conv1": (96, 55, 55), "conv2": (256, 27, 27), "conv3": (384, 13, 13)}
    assert convolutions.items() <= shapes.items()
    assert (shapes["pool5"], shapes["flatten"]) == ((256, 6, 6), (9216,))
    kernels = [model[f"conv{i}"].weight.shape[1:] for i in range(1, 6)]
    assert kernels == [(3, 11, 11), (48, 5, 5), (256, 3, 3), (192, 3, 3), (192, 3, 3)]  # section 3.5


@pytest.mark.parametrize(("name", "image"), [("alexnet", (80, 99)), ("alexnet_2012", (227, 243))])
def test_a_step_is_pytorchs(name, image):
    ours = create(name, num_classes=7, in_channels=2, hidden=24)
    model, module = stirred(ours, NETS[name](7, 2, 24))
    model.eval(backward=True)
    module.eval()
    assert_step_is_torchs(model, module, np.random.default_rng(0).standard_normal((2, 2, *image)), tolerance=1e-11)


def test_dropout_is_where_it_belongs():
    """With the masks that were drawn, found again in what the next layer saw."""
    model, module = stirred(create("alexnet", 5, hidden=16), AlexNet(5, hidden=16))
    dropped = [layer for layer in model.layers() if type(layer).__name__ == "Dropout"]
    masks = []
    for layer in dropped:
        layer.forward = lambda x, forward=layer.forward: masks.append(forward(np.ones_like(x))) or masks[-1] * x
    module.classifier[0].forward = lambda x: x * torch.from_numpy(masks[0])
    module.classifier[3].forward = lambda x: x * torch.from_numpy(masks[1])
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64))
    y = model(x)
    assert [set(np.unique(mask)) for mask in masks] == [{0.0, 2.0}] * 2
    assert relative_error(y, module(torch.from_numpy(x)).detach().numpy()) < 1e-11


def test_channels_compete_as_in_the_paper():
    """With activities so large that α counts."""
    x = 100 * np.random.default_rng(0).standard_normal((2, 96, 3, 4))
    wanted = compete(torch.from_numpy(x)).numpy()
    assert relative_error(wanted, x / 2**0.75) > 0.3
    for name in ("norm1", "norm2"):
        assert relative_error(create("alexnet_2012", hidden=8)[name](x), wanted) < 1e-13


def test_gradients_of_the_first_blocks():
    layers = list(create("alexnet_2012", in_channels=2, hidden=4))
    rng = np.random.default_rng(0)
    for block, shape in ((layers[:4], (2, 2, 31, 27)), (layers[4:8], (1, 96, 5, 4))):
        report = gradcheck(Sequential(*block).astype(np.float64), rng.standard_normal(shape))
        assert report.ok, str(report)


def test_initial_values_of_the_paper():
    for name, p in create("alexnet_2012", hidden=64).named_parameters():
        if name.endswith("weight"):
            assert p.data.std() == pytest.approx(0.01, rel=0.02 if p.size > 5000 else 0.1), name
            assert abs(p.data.mean()) < 5 * 0.01 / np.sqrt(p.size), name
        else:
            one = name.startswith(("conv2", "conv4", "conv5", "fc6", "fc7"))
            assert (p.data == (1 if one else 0)).all(), name


def test_initial_values_of_pytorch():
    for name, p in create("alexnet", hidden=64).named_parameters():
        if name.endswith("weight"):
            bound = 1 / np.sqrt(np.prod(p.shape[1:]))
            assert 0.99 * bound < abs(p.data).max() <= bound * (1 + 1e-6), name


def test_one_group_joins_the_halves():
    assert create("alexnet_2012", groups=1, hidden=8).conv2.weight.shape == (256, 96, 5, 5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match=r"p is the probability of dropping, from 0 to 1, got 1\.5"):
        create("alexnet", dropout=1.5, hidden=8)
    with pytest.raises(ValueError, match="multiples of groups=3"):
        create("alexnet_2012", groups=3)
    with pytest.raises(ValueError, match="out_features"):
        create("alexnet", hidden=0)
    with pytest.raises(ValueError, match="use larger images"):
        create("alexnet", hidden=8)(np.zeros((1, 3, 40, 64), np.float32))
