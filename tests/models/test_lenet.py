"""LeNet-5: counts, PyTorch parity, the 1998 parts."""

import numpy as np
import pytest
import reference
import torch
from helpers import relative_error

from tinycnn.models import create
from tinycnn.models.lenet import TABLE_I, digit_bitmaps


def test_1998_counts_are_the_papers():
    model = create("lenet5_1998")
    counts = {
        name: sum(p.size for p in model[name].parameters()) for name in ("c1", "s2", "c3", "s4", "c5", "f6", "output")
    }
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}


def test_1998_connections_are_the_papers():
    """340,908 in all: each multiply-add and each bias is a connection, four inputs and a bias in a subsampling."""
    rows = {row.path: row for row in create("lenet5_1998").summary((1, 1, 32, 32)).rows}
    outputs = {name: int(np.prod(rows[name].output_shape)) for name in rows}
    weighted = sum(rows[name].macs + outputs[name] for name in ("c1", "c3", "c5", "f6"))
    subsampled = 5 * (outputs["s2"] + outputs["s4"])
    assert weighted + subsampled + 10 * 84 == 340_908


def test_table_one_is_as_printed():
    seen = [[c in inputs for inputs in TABLE_I] for c in range(6)]
    assert tuple("".join("X" if cell else "." for cell in row) for row in seen) == reference.LeNet1998.TABLE


def test_the_modern_net_is_pytorchs():
    ours = create("lenet5").astype(np.float64)
    theirs = reference.load(reference.LeNet5().double(), ours)
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32))
    y, y_torch = ours(x), theirs(torch.from_numpy(x))
    assert relative_error(y, y_torch.detach().numpy()) < 1e-12


def test_the_1998_net_is_pytorchs():
    ours = create("lenet5_1998").astype(np.float64)
    theirs = reference.LeNet1998(torch.from_numpy(digit_bitmaps())).double()
    state = ours.state_dict()
    with torch.no_grad():
        for name in ("c1", "c5", "f6"):
            getattr(theirs, name).weight.copy_(torch.from_numpy(state[f"{name}.weight"]))
            getattr(theirs, name).bias.copy_(torch.from_numpy(state[f"{name}.bias"]))
        for name in ("s2", "s4"):
            getattr(theirs, name).weight.copy_(torch.from_numpy(state[f"{name}.weight"])[:, None, None, None])
            getattr(theirs, name).bias.copy_(torch.from_numpy(state[f"{name}.bias"]))
        theirs.c3.weight[theirs.mask] = torch.from_numpy(state["c3.weight"])
        theirs.c3.bias.copy_(torch.from_numpy(state["c3.bias"]))
    x = np.random.default_rng(0).standard_normal((3, 1, 32, 32))
    x_torch = torch.from_numpy(x.copy()).requires_grad_()
    y, y_torch = ours(x), theirs(x_torch)
    assert relative_error(y, y_torch.detach().numpy()) < 1e-12
    dy = np.random.default_rng(1).standard_normal(y.shape)
    y_torch.backward(torch.from_numpy(dy))
    assert relative_error(ours.backward(dy), x_torch.grad.numpy()) < 1e-11
    wanted = reference.gradients(theirs)
    for name, p in ours.named_parameters():
        grad = wanted[name][theirs.mask.numpy()] if name == "c3.weight" else wanted[name].reshape(p.shape)
        assert relative_error(p.grad, grad) < 1e-11, name


def test_the_drawn_digits_differ_enough():
    patterns = digit_bitmaps()
    assert patterns.shape == (10, 84)
    assert set(np.unique(patterns)) == {-1.0, 1.0}
    different = (patterns[:, None] != patterns).sum(axis=2) + 100 * np.eye(10)
    assert different.min() >= 4


def test_there_are_ten_drawn_digits():
    with pytest.raises(ValueError, match="use lenet5"):
        create("lenet5_1998", num_classes=11)


def test_subsampling_needs_even_sizes():
    with pytest.raises(ValueError, match="height and width must be even"):
        create("lenet5_1998")["s2"](np.zeros((1, 6, 5, 4), np.float32))


def test_1998_fills_are_the_papers():
    """U(±2.4/fan_in), with the fan-in of each output channel."""
    model = create("lenet5_1998")
    fan_in = 25 * np.array([len(TABLE_I[o]) for o in model.c3.rows])
    scaled = np.abs(model.c3.weight.data) * fan_in[:, None, None]
    assert 2.3 < scaled.max() <= 2.4
    assert 0 <= model.s2.weight.data.min() <= model.s2.weight.data.max() <= 0.6
    assert 2.3 < (np.abs(model.c5.weight.data) * 400).max() <= 2.4


def test_a_window_that_does_not_fit_is_named_where_it_is():
    with pytest.raises(ValueError, match=r"c3 \(SparseConv2d.* window covers 5×5"):
        create("lenet5_1998")(np.zeros((1, 1, 8, 8), np.float32))
