"""The errors of convolutions in float32."""

import numpy as np
import pytest
import torch

import tinycnn
from tinycnn import BatchNorm2d, Conv2d, Dropout, ReLU, Sequential
from tinycnn.kernels.conv import plan

SHAPE = (3, 5, 8, 7)


def network():
    return Sequential(Conv2d(5, 6, 3, padding=1, rng=0), BatchNorm2d(6), ReLU(), Dropout(rng=1), Conv2d(6, 4, 2, rng=2))


def image():
    return np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)


def test_errors_are_those_against_pytorch_in_float64():
    model, x = network(), image()
    row = tinycnn.conv_errors(model, x).rows[0]
    conv = model[0]
    theirs = torch.nn.Conv2d(5, 6, 3, padding=1).double()
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in conv.state_dict().items()})
    dy = np.random.default_rng(0).standard_normal((3, 6, 8, 7), np.float32)
    x_torch = torch.from_numpy(x.astype(np.float64)).requires_grad_()
    y_torch = theirs(x_torch)
    y_torch.backward(torch.from_numpy(dy.astype(np.float64)))
    exact = [y_torch.detach(), x_torch.grad, theirs.weight.grad]
    for name, found in row.errors.items():
        other = Conv2d(5, 6, 3, padding=1, algorithm=name)
        other.load_state_dict(conv.state_dict())
        ours = [other(x), other.backward(dy), other.weight.grad]
        for a, b, error in zip(ours, exact, found, strict=True):
            b = b.numpy()
            assert error == pytest.approx(np.linalg.norm(a - b) / np.linalg.norm(b), rel=1e-6)
            assert 1e-8 < error < 1e-5


def test_every_convolution_has_a_row_of_what_it_gets():
    report = tinycnn.conv_errors(network(), image())
    assert [(row.path, row.input_shape) for row in report.rows] == [("0", SHAPE), ("4", (3, 6, 8, 7))]
    assert [list(row.errors) for row in report.rows] == [["im2col", "winograd2", "winograd4"], ["im2col"]]
    with plan.prefer("strips"):
        assert [row.algorithm for row in tinycnn.conv_errors(network(), image()).rows] == ["strips", "strips"]


def test_it_leaves_the_model_as_it_was():
    model = network()
    before, streams = model.state_dict(), model.random_state()
    first = tinycnn.conv_errors(model, image())
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert model.random_state() == streams
    assert all(layer.saving and layer.training and "forward" not in layer.__dict__ for layer in model.layers())
    assert not any(p.grad.any() for p in model.parameters())
    assert tinycnn.conv_errors(model, image()) == first, "and says the same again"


def test_nothing_in_and_nothing_out_is_no_error():
    model = Sequential(Conv2d(2, 3, 3, bias=False, rng=0))
    assert tinycnn.conv_errors(model, np.zeros((1, 2, 5, 5), np.float32)).rows[0].errors["winograd4"][0] == 0


def test_the_table():
    report = tinycnn.conv_errors(network(), image())
    over, head, first, second = str(report).splitlines()
    assert over.split() == ["y", "dx", "dw"]
    assert head.split() == ["layer", "input", "algorithm", *["im2col", "F(2×2)", "F(4×4)"] * 3]
    assert first.split()[:2] == ["0", "3×5×8×7"]
    assert [float(word) for word in first.split()[3:]] == pytest.approx(
        [errors[i] for i in range(3) for errors in report.rows[0].errors.values()], rel=0.06
    )
    assert len(second.split()) == 6
    assert report.to_dict()["layers"][1]["path"] == "4"
