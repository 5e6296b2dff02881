"""Which nodes normalisation becomes; that they compute the same is in test_onnx_layers."""

import numpy as np
import onnx
import pytest

from tinycnn.contract import CASES
from tinycnn.layers import BatchNorm2d, GroupNorm, InstanceNorm2d, LayerNorm, LocalResponseNorm

GROUPED = "Reshape InstanceNormalization Reshape"


@pytest.mark.parametrize(
    ("layer", "operators"),
    [
        (BatchNorm2d(4), "BatchNormalization"),
        (BatchNorm2d(4, affine=False), "BatchNormalization"),
        (CASES["BatchNormReLU2d"].make(None), "BatchNormalization Relu"),
        (CASES["ResidualNormReLU"].make(None), "Conv Tanh Conv BatchNormalization Add Relu"),
        (InstanceNorm2d(4), "InstanceNormalization"),
        (InstanceNorm2d(4, track_running_stats=True), "BatchNormalization"),
        (LayerNorm((4, 7, 6)), "LayerNormalization"),
        (GroupNorm(2, 4, affine=False), GROUPED),
        (GroupNorm(2, 4), f"{GROUPED} Unsqueeze Mul Unsqueeze Add"),
        (LocalResponseNorm(5), "LRN"),
        (LocalResponseNorm(4), "Mul Conv Pow Mul"),
    ],
    ids=repr,
)
def test_nodes(exported, layer, operators):
    path, _ = exported(layer, (4, 7, 6))
    assert [node.op_type for node in onnx.load(path).graph.node] == operators.split()


def test_parameters_keep_their_names_and_shapes(exported):
    """Whatever is made of them in the graph: other programs find them as in the state dict."""
    for layer in (BatchNorm2d(4, track_running_stats=False), GroupNorm(2, 4), InstanceNorm2d(4, affine=True)):
        layer.weight.data[...] = [1, 2, 3, 4]
        graph = onnx.load(exported(layer, (4, 7, 6))[0]).graph
        found = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
        np.testing.assert_array_equal(found["weight"], [1, 2, 3, 4])
        np.testing.assert_array_equal(found["bias"], np.zeros(4))


@pytest.mark.parametrize("layer", [BatchNorm2d(4, eps=1), InstanceNorm2d(4, eps=1), LocalResponseNorm(3, 1, 1, 1)])
def test_whole_numbers_as_constants(exported, layer):
    """Attributes are floats in ONNX, whatever they were in Python."""
    x = np.random.default_rng(0).standard_normal((2, 4, 7, 6), np.float32)
    np.testing.assert_allclose(exported(layer, (4, 7, 6))[1](x), layer.eval()(x), atol=1e-5)
