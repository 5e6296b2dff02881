"""Names in the graph, and layers that tinycnn does not know."""

import numpy as np
import onnx
import pytest

from tinycnn.interop import to_onnx
from tinycnn.interop.onnx_graph import Graph
from tinycnn.layers import (
    BatchNorm2d,
    BatchNormReLU2d,
    Conv2d,
    Layer,
    LayerError,
    Linear,
    ReLU,
    Residual,
    ResidualNormReLU,
    Sequential,
)
from tinycnn.models.network import Network
from tinycnn.parameter import Parameter


def block():
    rng = np.random.default_rng(0)
    main = Sequential({"conv1": Conv2d(3, 3, 1, rng=rng), "relu": ReLU()})
    way = Sequential(Conv2d(3, 3, 1, bias=False, rng=rng), BatchNorm2d(3))
    return Sequential(
        {"stem": BatchNormReLU2d(3), "layer1": Sequential(ResidualNormReLU(main, BatchNormReLU2d(3), way))}
    )


def test_nodes_are_called_by_path_and_initializers_as_in_the_state_dict(exported):
    model = block()
    graph = onnx.load(exported(model, (3, 4, 5))[0]).graph
    assert [node.name for node in graph.node] == [
        "stem/BatchNormalization",
        "stem/Relu",
        "layer1.0.conv1/Conv",
        "layer1.0.relu/Relu",
        "layer1.0.downsample.0/Conv",
        "layer1.0.downsample.1/BatchNormalization",
        "layer1.0.bn2/BatchNormalization",
        "layer1.0/Add",
        "layer1.0/Relu",
    ]
    assert [list(node.output) for node in graph.node[:-1]] == [[node.name] for node in graph.node[:-1]]
    state = {name: value for name, value in model.state_dict().items() if not name.endswith("tracked")}
    assert {i.name for i in graph.initializer} == state.keys()
    for i in graph.initializer:
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(i), state[i.name])


def test_names_of_a_part_of_a_network_are_its_own(exported):
    """As its state dict: the path within the whole network has no part in them."""
    part = block()["layer1"]
    graph = onnx.load(exported(part, (3, 4, 5))[0]).graph
    assert graph.node[0].name == "0.conv1/Conv"
    assert {i.name for i in graph.initializer} < part.state_dict().keys()


def test_layers_may_be_called_as_the_graph_calls_its_ends(exported):
    rng = np.random.default_rng(0)
    model = Sequential({"input": Linear(3, 3, rng=rng), "output": Linear(3, 2, rng=rng), "Relu": Sequential(ReLU())})
    x = rng.standard_normal((2, 3)).astype(np.float32)
    _, run = exported(model, (3,))
    np.testing.assert_allclose(run(x), model(x), atol=1e-6)


class Twice(Layer):
    """Two nodes of one operator, and a parameter called as one of them."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(np.float32([2.0]))

    def forward(self, x):
        return self.weight.data * (x + x)


@pytest.fixture
def registered():
    """Implementations for the layers of these tests, gone after each."""
    known = dict(to_onnx.registry)

    @to_onnx.register(Twice)
    def twice(layer, graph, x):
        assert graph.state("weight") == graph.state("weight")
        factor = graph.add("Add", x, x)
        return graph.add("Mul", graph.add("Add", factor, graph.constant("weight", np.zeros(1))), graph.state("weight"))

    yield
    registry = next(
        cell.cell_contents
        for cell in to_onnx.register.__closure__
        if isinstance(cell.cell_contents, dict) and object in cell.cell_contents
    )
    for cls in set(registry) - set(known):
        del registry[cls]
    to_onnx._clear_cache()


def test_no_two_values_have_one_name(exported, registered):
    path, run = exported(Sequential(Twice(), Twice()), (3,))
    graph = onnx.load(path).graph
    names = [i.name for i in graph.initializer] + [name for node in graph.node for name in node.output]
    assert len(set(names)) == len(names) == 4 + 6
    np.testing.assert_array_equal(run(np.float32([[1, 2, 3]])), np.float32([[16, 32, 48]]))


class Mish(Layer):
    def forward(self, x):
        return x * np.tanh(np.log1p(np.exp(x)))


def test_a_layer_without_exporter_is_named(exported):
    with pytest.raises(LayerError) as error:
        exported(Sequential({"a": ReLU(), "b": Sequential(Mish())}), (3,))
    assert str(error.value) == (
        "b.0 (Mish()): Mish has no ONNX exporter: write one and register it with "
        "@tinycnn.interop.to_onnx.register(Mish)"
    )


class ReLU6(ReLU):
    def value(self, x, y):
        np.clip(x, 0, 6, out=y)


class Doubled(Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Named(Residual):
    """Another __init__, the same function."""

    def __init__(self):
        super().__init__(Sequential(ReLU()))


@pytest.mark.parametrize("layer", [ReLU6(), Doubled(3, 3)])
def test_a_subclass_that_computes_something_else_is_not_written_as_its_base(exported, layer):
    kind, base, method = type(layer), type(layer).__base__, "value" if isinstance(layer, ReLU) else "forward"
    words = f"{kind.__name__} overrides {method} of {base.__name__}, so that its ONNX exporter does not fit"
    with pytest.raises(LayerError, match=words):
        exported(Sequential(layer), (3,))


def test_a_subclass_that_computes_the_same_is_written_as_its_base(exported):
    x = np.float32([[-1, 2, 3]])
    assert isinstance(Network({"a": ReLU()}, features="a", classifier="a"), Sequential)
    np.testing.assert_array_equal(exported(Named(), (3,))[1](x), [[-1, 4, 6]])


def test_an_exporter_whose_shape_is_wrong_is_found(exported, registered):
    @to_onnx.register(Mish)
    def mish(layer, graph, x):
        return graph.add("Concat", x, x, axis=1)

    with pytest.raises(LayerError, match=r"0/Concat: its nodes in ONNX make \('N', 6\), the layer makes \('N', 3\)"):
        exported(Sequential(Mish(), ReLU()), (3,))


def test_nodes_that_do_not_fit_are_found(exported, registered):
    @to_onnx.register(Mish)
    def mish(layer, graph, x):
        return graph.add("Add", x, graph.constant("b", np.ones(4)))

    with pytest.raises(LayerError, match=r"the nodes that were written do not fit together: .*Add"):
        exported(Mish(), (3,))


def test_an_unknown_operator_is_found(exported, registered):
    @to_onnx.register(Mish)
    def mish(layer, graph, x):
        return graph.add("Mishmash", x)

    with pytest.raises(LayerError, match=r"the nodes that were written do not fit together: .*Mishmash"):
        exported(Mish(), (3,))


def test_constants_are_int64_or_of_the_graphs_dtype():
    graph = Graph(Sequential(), (1, 3), np.float64, 18)
    kinds = {"int64": ([1, 2], np.arange(3), np.uint8(4)), "float64": ([1.0], np.float32(2), np.ones(2))}
    names = []
    for dtype, constants in kinds.items():
        for values in constants:
            names.append(graph.constant("c", values))
            assert graph.initializers[names[-1]].dtype == dtype
    assert len(set(names)) == 6
    assert not {graph.constant("input", 1), graph.constant("output", 1)} & {"input", "output"}
