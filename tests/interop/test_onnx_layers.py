"""Every layer alone in an ONNX file, run by ONNX Runtime (float32) and by ONNX's reference implementation (float64)."""

import numpy as np
import onnx
import pytest
from helpers import relative_error
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from tinycnn.contract import CASES, Case
from tinycnn.layers import (
    GELU,
    AdaptiveAvgPool2d,
    Add,
    AvgPool2d,
    BatchNorm2d,
    Concat,
    Conv2d,
    Dropout,
    Flatten,
    GroupNorm,
    Identity,
    InstanceNorm2d,
    LayerNorm,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    PadShortcut,
    Sequential,
    Softmax,
    Softplus,
    ZeroPad2d,
)

IMAGE = (3, 4, 7, 6)
FURTHER = {
    "MaxPool2d ceil, dilation": Case(lambda rng: MaxPool2d(2, stride=2, dilation=3, padding=1, ceil_mode=True), IMAGE),
    "AvgPool2d no padding": Case(lambda rng: AvgPool2d(3, stride=2), IMAGE),
    "AvgPool2d padding not counted": Case(
        lambda rng: AvgPool2d(3, stride=2, padding=1, count_include_pad=False), IMAGE
    ),
    "AvgPool2d ceil": Case(lambda rng: AvgPool2d(2, stride=2, ceil_mode=True), (2, 4, 7, 5)),
    "AvgPool2d ceil, padding counted": Case(lambda rng: AvgPool2d(3, 2, padding=1, ceil_mode=True), (2, 4, 8, 6)),
    "AvgPool2d ceil, much padding counted": Case(lambda rng: AvgPool2d(4, 2, padding=2, ceil_mode=True), (2, 4, 7, 5)),
    "AvgPool2d ceil, divisor": Case(
        lambda rng: AvgPool2d(3, 2, padding=1, ceil_mode=True, divisor_override=2), (2, 4, 8, 6)
    ),
    "AdaptiveAvgPool2d even": Case(lambda rng: AdaptiveAvgPool2d((2, 3)), (2, 4, 8, 6)),
    "AdaptiveAvgPool2d overlapping evenly": Case(lambda rng: AdaptiveAvgPool2d(2), (2, 4, 3, 5)),
    "AdaptiveAvgPool2d one axis": Case(lambda rng: AdaptiveAvgPool2d((None, 4)), IMAGE),
    "AdaptiveAvgPool2d row": Case(lambda rng: AdaptiveAvgPool2d((1, 4)), IMAGE),
    "AdaptiveAvgPool2d larger": Case(lambda rng: AdaptiveAvgPool2d(7), (2, 4, 2, 3)),
    "AdaptiveAvgPool2d same": Case(lambda rng: AdaptiveAvgPool2d((None, 6)), IMAGE),
    "LocalResponseNorm even": Case(lambda rng: LocalResponseNorm(4, 0.5, 0.6, 1.5), (2, 7, 3, 5)),
    "LocalResponseNorm as published": Case(
        lambda rng: LocalResponseNorm(5, 0.1, 0.75, 2, divide_alpha=False), (2, 7, 3, 5)
    ),
    "LayerNorm no bias": Case(lambda rng: LayerNorm((7, 6), bias=False), IMAGE),
    "LayerNorm no affine": Case(lambda rng: LayerNorm(6, elementwise_affine=False, eps=0.1), IMAGE),
    "GroupNorm features": Case(lambda rng: GroupNorm(2, 6, eps=0.1), (3, 6)),
    "GroupNorm no affine": Case(lambda rng: GroupNorm(4, 4, affine=False), IMAGE),
    "InstanceNorm2d no affine": Case(lambda rng: InstanceNorm2d(4, eps=0.1), IMAGE),
    "InstanceNorm2d running": Case(lambda rng: InstanceNorm2d(4, affine=True, track_running_stats=True), IMAGE),
    "BatchNorm2d no affine, batch statistics": Case(
        lambda rng: BatchNorm2d(4, affine=False, eps=0.1, track_running_stats=False), IMAGE
    ),
    "LeakyReLU steep": Case(lambda rng: LeakyReLU(1.5), IMAGE),
    "Softplus threshold": Case(lambda rng: Softplus(threshold=1.0), IMAGE),
    "Softplus threshold, beta": Case(lambda rng: Softplus(beta=3.0, threshold=2.0), IMAGE),
    "Softmax last": Case(lambda rng: Softmax(dim=-1), IMAGE),
    "Softmax batch": Case(lambda rng: Softmax(dim=0), IMAGE),
    "Flatten all": Case(lambda rng: Flatten(0), IMAGE),
    "Flatten pixels": Case(lambda rng: Flatten(2), IMAGE),
    "Flatten nothing": Case(lambda rng: Flatten(3), IMAGE),
    "PadShortcut channels only": Case(lambda rng: PadShortcut(4, 7, stride=1), IMAGE),
    "PadShortcut pixels only": Case(lambda rng: PadShortcut(4, 4, stride=(1, 3)), IMAGE),
    "ZeroPad2d nothing": Case(lambda rng: ZeroPad2d(0), IMAGE),
    "Add of three": Case(lambda rng: Add(Identity(), MaxPool2d(3, 1, 1), Dropout(0.5, rng=rng)), IMAGE),
    "Add of one": Case(lambda rng: Add(GELU()), IMAGE),
    "Concat of one": Case(lambda rng: Concat(GELU()), IMAGE),
    "Sequential of none": Case(lambda rng: Sequential(), IMAGE),
}
ALL = CASES | FURTHER
ROWS = pytest.mark.parametrize("case", ALL.values(), ids=ALL.keys())
OPSETS = pytest.mark.parametrize("opset", [18, 22])


def build(case, dtype):
    rng = np.random.default_rng(8)
    layer, x = case.build(rng, dtype), case.input(rng, dtype)
    return layer, x


@ROWS
@OPSETS
def test_onnx_runtime_computes_the_same(case, opset, exported):
    """For the batch of the table and for one of 1, through the same file."""
    layer, x = build(case, np.float32)
    _, run = exported(layer, x.shape[1:], opset=opset)
    layer.eval()
    for batch in (x, x[:1]):
        y = run(batch)
        assert y.dtype == np.float32
        assert relative_error(y, layer(batch)) < 1e-5


LRN_NODES = {"LocalResponseNorm", "LocalResponseNorm as published"}
"""Written as ONNX's LRN, for which the reference mixes up images and channels."""


@pytest.mark.parametrize("name", [name for name in ALL if name not in LRN_NODES])
@OPSETS
def test_the_reference_computes_the_same_in_float64(name, opset, exported):
    """To 1e-7, as attributes (ε, slopes) are float32 in ONNX."""
    layer, x = build(ALL[name], np.float64)
    C = x.shape[1]
    scale = Conv2d(C, C, 1, groups=C, rng=np.random.default_rng(0)) if x.ndim == 4 else LayerNorm(C)
    model = Sequential(scale.astype(np.float64), layer)  # a layer without parameters would be one of float32
    path, _ = exported(model, x.shape[1:], opset=opset)
    y = ReferenceEvaluator(str(path)).run(None, {"input": x})[0]
    assert y.dtype == np.float64
    assert relative_error(y, model.eval()(x)) < 1e-7


SIZES = st.integers(1, 9)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_pools_of_any_geometry(exported, data):
    H, W, K, S = (data.draw(sizes) for sizes in (st.integers(4, 9),) * 2 + (st.integers(1, 4), st.integers(1, 5)))
    P, ceil, count = data.draw(st.integers(0, K // 2)), data.draw(st.booleans()), data.draw(st.booleans())
    x = np.random.default_rng(0).standard_normal((2, 3, H, W)).astype(np.float32)
    for pool in (MaxPool2d(K, S, P, ceil_mode=ceil), AvgPool2d(K, S, P, ceil, count)):
        _, run = exported(pool, x.shape[1:])
        assert relative_error(run(x), pool(x)) < 1e-5


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, SIZES, st.integers(1, 9), st.integers(1, 9))
def test_bins_of_any_number(exported, H, W, OH, OW):
    x = np.random.default_rng(0).standard_normal((2, 3, H, W)).astype(np.float32)
    pool = AdaptiveAvgPool2d((OH, OW))
    _, run = exported(pool, x.shape[1:])
    assert relative_error(run(x), pool(x)) < 1e-5


@pytest.mark.parametrize(
    ("layer", "shape", "operators"),
    [
        (CASES["Checkpointed"].make, (4, 7, 6), "Conv BatchNormalization Tanh"),
        (CASES["Sequential"].make, (4, 7, 6), "Conv Tanh Flatten Gemm"),
        (lambda rng: AdaptiveAvgPool2d(7), (4, 7, 7), "Identity"),
        (lambda rng: AdaptiveAvgPool2d(3), (4, 6, 9), "AveragePool"),
        (lambda rng: AdaptiveAvgPool2d(1), (4, 7, 6), "GlobalAveragePool"),
        (lambda rng: AdaptiveAvgPool2d(4), (4, 7, 6), "MatMul MatMul"),
        (lambda rng: AvgPool2d(3, 2, 1, True), (4, 7, 7), "AveragePool"),
        (lambda rng: AvgPool2d(3, 2, 1, True), (4, 8, 8), "Pad AveragePool"),
        (lambda rng: PadShortcut(4, 4, stride=1), (4, 7, 6), "Identity"),
        (lambda rng: Softplus(), (4, 7, 6), "Softplus"),
    ],
    ids=lambda x: None if callable(x) else str(x),
)
def test_no_needless_nodes(exported, layer, shape, operators):
    path, _ = exported(layer(np.random.default_rng(0)), shape)
    assert [node.op_type for node in onnx.load(path).graph.node] == operators.split()


def test_gelu_is_one_node_where_there_is_an_operator(exported):
    for opset, count in ((19, 5), (20, 1)):
        path, _ = exported(GELU(), (4, 7, 6), opset=opset)
        assert len(onnx.load(path).graph.node) == count


@pytest.mark.parametrize(("dtype", "count"), [(np.float32, 2), (np.float64, 4)])
def test_the_threshold_of_softplus_is_there_where_it_can_be_seen(exported, dtype, count):
    """At 20 log(1 + e^x) is x in float32, and in float64 2·10⁻⁹ more."""
    model = Sequential(Linear(3, 3, rng=np.random.default_rng(0)), Softplus()).astype(dtype)
    path, _ = exported(model, (3,))
    assert len(onnx.load(path).graph.node) == count
