"""The table of a network."""

import numpy as np
import pytest

from tinycnn import Conv2d, Linear, set_algorithms
from tinycnn.kernels.conv.plan import ALGORITHMS, prefer
from tinycnn.kernels.precision import precision
from tinycnn.layers.base import LayerError
from tinycnn.models import create


def test_lenet_by_hand():
    summary = create("lenet5").summary((2, 1, 32, 32))
    assert summary.parameters == 61_706
    assert summary.macs == 2 * 416_520
    rows = {row.path: row for row in summary.rows}
    assert rows["conv1"].output_shape == (2, 6, 28, 28)
    assert rows["conv1"].macs == 2 * 6 * 28 * 28 * 25
    assert rows["conv1"].activation_bytes == 4 * 2 * 6 * 28 * 28
    assert rows["fc1"].parameters == 400 * 120 + 120
    text = str(summary)
    assert "61,706" in text
    assert "Conv2d(1, 6, 5)" in text
    assert summary.to_dict()["layers"][0]["path"] == "conv1"


def test_convolutions_say_how_they_are_computed():
    model = create("resnet20")
    set_algorithms(model, {"layer1.0.conv1": "winograd2", "layer1.0.conv2": "im2col", "layer2.0.conv1": "winograd4"})
    table = model.summary((2, 3, 32, 32))
    rows = {row.path: row for row in table.rows}
    names = [rows[f"layer{path}"].algorithm for path in ("1.0.conv1", "1.0.conv2", "2.0.conv1")]
    assert names == ["winograd2", "im2col", "im2col"], "what is taken, which is not always what was asked for"
    assert rows["conv1"].algorithm == model["conv1"].chosen_algorithm((2, 3, 32, 32)) in ALGORITHMS
    assert rows["bn1"].algorithm == rows["fc"].algorithm == ""
    assert table.to_dict()["layers"][2]["algorithm"] == "winograd2"
    head, line = (str(table).splitlines()[i] for i in (1, 5))
    assert head.split()[-4:] == ["algorithm", "parameters", "multiply-adds", "activations"]
    assert line.index("winograd2") == head.index("algorithm")
    assert line.startswith("layer1.0.conv1")
    assert line.count("winograd2") == 1
    assert "Conv2d(16, 32, 3, stride=2, padding=1, bias=False, algorithm='winograd4')" in str(table), "asked, not taken"


def test_what_is_preferred_shows():
    conv = Conv2d(4, 4, 3, algorithm="auto")
    with prefer("strips"):
        assert conv.summary((2, 4, 8, 8)).rows[0].algorithm == "strips"
    assert create("lenet5_1998").summary((2, 1, 32, 32)).to_dict()["layers"][0]["algorithm"] in ALGORITHMS


def test_without_convolutions_there_is_no_such_column():
    text = str(Linear(3, 4).summary((2, 3)))
    assert "algorithm" not in text
    assert text.splitlines()[3].split()[-4:] == ["16", "24", "32", "B"]


def test_it_leaves_the_model_as_it_was():
    model = create("resnet20")
    before = model.state_dict()
    model["bn1"].training = False
    model.summary((1, 3, 32, 32))
    assert not model["bn1"].training
    assert model["conv1"].training
    assert "forward" not in model["conv1"].__dict__
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_shape_that_does_not_fit_is_an_error():
    with pytest.raises(LayerError, match="expected 3 channels"):
        create("resnet20").summary((1, 1, 32, 32))


def test_parameters_of_a_composites_own_are_counted():
    from tinycnn import Linear, Parameter
    from tinycnn.layers.base import Layer

    class Scaled(Layer):
        def __init__(self):
            super().__init__()
            self.scale, self.inner = Parameter(np.ones(3)), Linear(3, 3, dtype=np.float64)

        def forward(self, x):
            return self.inner(x) * self.scale.data

    assert Scaled().summary((1, 3)).parameters == Scaled().num_parameters() == 15


def test_the_precision_is_said(gpu):
    assert str(Conv2d(1, 2, 3).summary((1, 1, 4, 4))).startswith("input (1, 1, 4, 4), float32\n")
    assert Conv2d(1, 2, 3, dtype=np.float64).summary((1, 1, 4, 4)).precision == "float64"
    with precision("tf32"):  # which means nothing on a CPU, nor to float64
        assert Conv2d(1, 2, 3).summary((1, 1, 4, 4)).precision == "float32"
        assert Conv2d(1, 2, 3, dtype=np.float64).to("cuda").summary((1, 1, 4, 4)).precision == "float64"
        assert Conv2d(1, 2, 3).to("cuda").summary((1, 1, 4, 4)).to_dict()["precision"] == "tf32"
