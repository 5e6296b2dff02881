"""Network in network: costs, names, initial values, PyTorch parity."""

import numpy as np
import pytest
import torch
from helpers import assert_step_is_torchs, stirred
from references import count
from references.nin import CIFAR, IMAGENET, NiN

from tinycnn import Sequential, gradcheck
from tinycnn.models import architecture, create

TABLES = {"nin_cifar": (CIFAR, 10), "nin_imagenet": (IMAGENET, 1000)}


@pytest.mark.parametrize("name", TABLES)
def test_costs_are_pytorchs(name):
    known = architecture(name)
    with torch.device("meta"):
        assert count(NiN(*TABLES[name]), known.input_shape) == (known.parameters, known.macs)


@pytest.mark.parametrize("name", TABLES)
def test_names_are_the_authors(name):
    assert list(create(name, initialize=False).state_dict()) == list(NiN(*TABLES[name]).state_dict())


@pytest.mark.parametrize(("name", "image"), [("nin_cifar", (20, 13)), ("nin_imagenet", (67, 103))])
def test_a_step_is_pytorchs(name, image):
    """On sizes at which every pool has a last window that is not full."""
    model, module = stirred(create(name, 7, in_channels=2), NiN(TABLES[name][0], 7, 2))
    model.eval(backward=True)
    module.eval()
    assert_step_is_torchs(model, module, np.random.default_rng(0).standard_normal((2, 2, *image)), tolerance=1e-10)


def test_sizes_are_the_authors():
    shapes = {}
    for name, size in (("nin_cifar", 32), ("nin_imagenet", 224)):
        rows = create(name, initialize=False).summary((1, 3, size, size)).rows
        shapes[name] = [row.output_shape[1:] for row in rows if row.path.startswith("pool")]
    assert shapes["nin_cifar"] == [(96, 16, 16), (192, 8, 8), (10, 1, 1)]
    assert shapes["nin_imagenet"] == [(96, 27, 27), (256, 13, 13), (384, 6, 6), (1000, 1, 1)]


def test_other_sizes_pass():
    assert create("nin_cifar", 3)(np.zeros((2, 3, 9, 40), np.float32)).shape == (2, 3)
    assert create("nin_imagenet", 3)(np.zeros((1, 3, 39, 40), np.float32)).shape == (1, 3)


def test_dropout_is_drawn_in_training_only():
    for name, places, size in (("nin_cifar", ["drop1", "drop2"], 8), ("nin_imagenet", ["drop3"], 64)):
        model = create(name, num_classes=4)
        assert [path for path, layer in model.named_layers() if "Dropout" in repr(layer) and path] == places
        x = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
        assert (model(x) != model(x)).any()
        model.eval()
        assert (model(x) == model(x)).all()


def test_gradients_of_the_last_block():
    """From the means of the second block to the scores."""
    layers = list(create("nin_cifar", num_classes=3, seed=1))
    start = next(i for i, layer in enumerate(layers) if layer.path == "pool2")
    block = Sequential(*layers[start:]).astype(np.float64)
    report = gradcheck(block, np.random.default_rng(0).standard_normal((2, 192, 4, 5)))
    assert report.ok, str(report)


@pytest.mark.parametrize(("name", "narrow"), [("nin_cifar", ()), ("nin_imagenet", ("conv1", "conv3", "cccp8"))])
def test_initial_values_are_the_authors(name, narrow):
    for path, p in create(name).named_parameters():
        if path.endswith("bias"):
            assert (p.data == 0).all(), path
        else:
            std = 0.01 if path.startswith(narrow or "none") else 0.05
            assert p.data.std() == pytest.approx(std, rel=0.05), path


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="p is the probability of dropping, from 0 to 1, got 2"):
        create("nin_cifar", dropout=2)
    with pytest.raises(ValueError, match="use larger images"):
        create("nin_imagenet")(np.zeros((1, 3, 38, 64), np.float32))
