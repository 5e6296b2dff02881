"""The table of a network."""

import numpy as np
import pytest

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
