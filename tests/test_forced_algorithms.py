"""Every algorithm of convolutions in turn, wherever it can do what is asked."""

import numpy as np
import pytest
import reference
import torch
from helpers import relative_error

from tinycnn import Conv2d, algorithms, gradcheck
from tinycnn.contract import CASES
from tinycnn.kernels.conv import plan
from tinycnn.models.lenet import SparseConv2d
from tinycnn.models.resnet_cifar import resnet_cifar

EACH = pytest.mark.parametrize("algorithm", plan.ALGORITHMS)


def has_convolutions(case):
    layers = list(case.build(np.random.default_rng(0)).layers())
    return any(isinstance(layer, Conv2d | SparseConv2d) for layer in layers)


ROWS = [name for name, case in CASES.items() if has_convolutions(case)]


def test_the_rows_are_found():
    assert {"Conv2d", "Conv2d groups", "Residual", "Concat", "Checkpointed", "SparseConv2d"} <= set(ROWS)


@EACH
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_the_contract_table(name, algorithm):
    rng = np.random.default_rng(1)
    layer = CASES[name].build(rng)
    x = CASES[name].input(rng)
    with plan.prefer(algorithm):
        report = gradcheck(layer, x, directions=1, jacobian_entries=500)
    assert report.ok, str(report)


@EACH
def test_a_resnet_is_pytorchs(algorithm):
    ours = resnet_cifar(8, 7, 2, shortcut="B", rng=np.random.default_rng(4)).astype(np.float64)
    theirs = reference.load(reference.ResNetCifar(8, "B", 2, 7).double(), ours)
    x = np.random.default_rng(0).standard_normal((4, 2, 20, 12))
    with plan.prefer(algorithm):
        taken = {row.algorithm for row in ours.summary(x.shape).rows if "Conv2d" in row.layer}
        y = ours(x)
        dy = np.random.default_rng(1).standard_normal(y.shape)
        dx = ours.backward(dy)
    assert taken == {algorithm, "im2col" if "winograd" in algorithm else algorithm}, "stride 2 is not Winograd's"
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y_torch = theirs(x_torch)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(y, y_torch.detach().numpy()) < 1e-11
    assert relative_error(dx, x_torch.grad.numpy()) < 1e-10
    wanted = reference.gradients(theirs)
    for name, p in ours.named_parameters():
        assert relative_error(p.grad, wanted[name]) < 1e-10, name
    assert set(algorithms(ours).values()) == {"auto"}
