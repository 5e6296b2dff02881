"""CIFAR residual and plain networks: counts, PyTorch parity."""

import numpy as np
import pytest
import reference
import torch
from helpers import relative_error

from tinycnn.models import create

MACS = {20: 40.55e6, 32: 68.86e6, 44: 97.17e6, 56: 125.49e6, 110: 252.89e6}


@pytest.mark.parametrize("depth", MACS)
def test_multiply_adds(depth):
    assert create(f"resnet{depth}").summary((1, 3, 32, 32)).macs == pytest.approx(MACS[depth], abs=0.006e6)


@pytest.mark.parametrize("depth", [20, 110])
def test_option_b_has_its_projections(depth):
    assert create(f"resnet{depth}", shortcut="B").num_parameters() == create(f"resnet{depth}").num_parameters() + 2752


@pytest.mark.parametrize(
    ("options", "shortcut"),
    [
        ({}, "A"),
        ({"pad_where": "end"}, "A end"),
        ({"shortcut": "B"}, "B"),
        ({"shortcut": "none"}, "none"),
    ],
)
def test_forward_and_all_gradients_are_pytorchs(options, shortcut):
    ours = create("resnet20", num_classes=7, in_channels=2, seed=4, **options).astype(np.float64)
    theirs = reference.load(reference.ResNetCifar(20, shortcut, 2, 7).double(), ours)
    x = np.random.default_rng(0).standard_normal((4, 2, 20, 12))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = ours(x), theirs(x_torch)
    assert relative_error(y, y_torch.detach().numpy()) < 1e-11
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(ours.backward(dy), x_torch.grad.numpy()) < 1e-10
    wanted = reference.gradients(theirs)
    assert list(wanted) == [name for name, _ in ours.named_parameters()]
    for name, p in ours.named_parameters():
        assert relative_error(p.grad, wanted[name]) < 1e-10, name
    for (name, value), other in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        assert relative_error(value, other.numpy()) < 1e-12, name


def test_plain_is_without_shortcuts():
    assert list(create("plain20").state_dict()) == list(create("resnet20").state_dict())
    assert "Residual" not in repr(create("plain20"))


def test_initial_weights_are_he_normal_on_fan_out():
    for name, p in create("resnet56").named_parameters():
        if p.data.ndim == 4 and p.size > 4000:
            assert p.data.std() == pytest.approx(np.sqrt(2 / (9 * len(p.data))), rel=0.06), name


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="must be 'A', 'B' or 'none', got 'C'"):
        create("resnet20", shortcut="C")
    from tinycnn.models import resnet_cifar

    with pytest.raises(ValueError, match=r"6n \+ 2 .* got 21"):
        resnet_cifar(21)
