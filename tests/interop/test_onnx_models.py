"""Every architecture as an ONNX file, run by ONNX Runtime."""

import inspect

import numpy as np
import onnx
import pytest
from helpers import relative_error

from tinycnn import models
from tinycnn.layers import BatchNorm2d, Conv2d, Residual, ResidualNormReLU
from tinycnn.models.lenet import RBF, TABLE_I, SparseConv2d, Subsample2d


def small(name):
    """A network of that name and an input size, (C, H, W), that take little time and memory.

    Images are halved until they take less than 1.6 G multiply-adds, which leaves most as they are, and the wide
    linear layers are narrower.
    """
    known = models.architecture(name)
    (C, H, W), cost = known.input_shape, known.macs
    while cost > 1.6e9:
        H, W, cost = (H + 1) // 2, (W + 1) // 2, cost / 4
    narrower = {"hidden": 64} if "hidden" in inspect.signature(known.build).parameters else {}
    return models.create(name, initialize=False, **narrower), (C, H, W)


def fill(model):
    """Give a network random weights and running statistics with which signals keep their size, however deep it is.

    And rounding errors stay small with them: He's scale for filters, a bit more as there are zeros around images, and
    residual branches that add a little each.
    """
    rng = np.random.default_rng(3)
    pool = rng.standard_normal(1 << 16, np.float32)
    for name, p in model.named_parameters():
        values = np.resize(np.roll(pool, rng.integers(len(pool))), p.shape)
        if p.data.ndim > 1:
            p.data[...] = values * (2.2 * len(p.data) / p.size) ** 0.5
        else:
            p.data[...] = 0.01 * values + name.endswith("weight")
    layers = list(model.layers())
    for layer in layers:
        if isinstance(layer, BatchNorm2d):
            layer.running_mean[...] = 0.01 * rng.standard_normal(layer.num_features)
            layer.running_var[...] = rng.uniform(0.8, 1.2, layer.num_features)
    for layer in layers:
        if isinstance(layer, Residual | ResidualNormReLU):
            main, *others = layer.children()
            convs = [part for part in main.layers() if isinstance(part, Conv2d)]
            last = convs[-1] if isinstance(layer, Residual) else others[0]
            last.weight.data[...] *= 0.1


@pytest.mark.parametrize("name", models.names())
def test_every_architecture(name, exported):
    model, shape = small(name)
    fill(model)
    x = np.random.default_rng(4).standard_normal((3, *shape), np.float32)
    x *= np.float32([1, 3, 0.3])[:, None, None, None]  # (many layers make images of one size all alike)
    y = model.eval()(x)
    assert np.abs(y - y[:1]).max() > 0.01 * np.abs(y).max() > 0
    path, run = exported(model, shape)
    del model  # memory for the others that hold its weights now
    assert relative_error(run(x), y) < 1e-4
    assert relative_error(run(x[:1]), y[:1]) < 1e-4
    graph = onnx.load(path).graph
    assert not {"Identity", "Transpose"} & {node.op_type for node in graph.node}
    assert all(value.type.tensor_type.HasField("shape") for value in graph.value_info)


def test_heads_are_left_out(exported):
    model = models.create("googlenet", initialize=False, aux_heads=True)
    graph = onnx.load(exported(model, (3, 64, 64))[0]).graph
    named = {i.name for i in graph.initializer} | {node.name for node in graph.node}
    assert {name.split(".")[0] for name in model.state_dict()} >= {"aux1", "aux2"}
    assert not [name for name in named if name.startswith("aux")]


def test_the_1998_network_has_dense_filters_with_zeros(exported):
    rng = np.random.default_rng(0)
    layer = SparseConv2d(TABLE_I, 3, rng=rng)
    graph = onnx.load(exported(layer, (6, 5, 5))[0]).graph
    assert [node.op_type for node in graph.node] == ["Conv"]
    dense, bias = map(onnx.numpy_helper.to_array, graph.initializer)
    assert [i.name for i in graph.initializer] == ["dense_weight", "bias"]
    seen = {(o, c) for o, inputs in enumerate(TABLE_I) for c in inputs}
    assert {(o, c) for o in range(16) for c in range(6) if dense[o, c].any()} == seen
    np.testing.assert_array_equal(dense[0, 2], layer.weight.data[2])
    assert bias.shape == (16,)


def test_subsampling_is_one_convolution(exported):
    graph = onnx.load(exported(Subsample2d(3), (3, 4, 6))[0]).graph
    assert [node.op_type for node in graph.node] == ["Conv"]


def test_distances_to_patterns_do_not_cancel(exported):
    """Far from 0 and near a pattern: x² − 2xp + p² would lose all digits."""
    patterns = np.float32([[1000, 1001], [1002, 1000]])
    _, run = exported(RBF(patterns), (2,))
    np.testing.assert_array_equal(run(np.float32([[1000, 1000]])), [[-1, -4]])
