"""Layers that normalise by themselves, dense blocks and sparse connections, pointed at: their numbers are PyTorch's."""

import numpy as np
import pytest
import torch
from headless import chromium, visit
from pointing import number, open_layer, point, shown
from torch.nn import functional as F

from tinycnn import Conv2d, CrossEntropyLoss, Flatten, Linear, Sequential
from tinycnn.explain import record, study_network, write
from tinycnn.explain.study import Example
from tinycnn.layers import DenseBlock, GroupNorm, InstanceNorm2d, LayerNorm, LocalResponseNorm
from tinycnn.models.lenet import TABLE_I, SparseConv2d

SIX = 1e-3  # sums of sums, of which five digits are shown
X = np.random.default_rng(1).standard_normal((1, 4, 7, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    rng = np.random.default_rng(0)
    model = Sequential(
        {
            "group": GroupNorm(2, 4),
            "instance": InstanceNorm2d(4, affine=True),
            "running": InstanceNorm2d(4, track_running_stats=True).eval(),
            "layer": LayerNorm((4, 7, 6)),
            "rows": LayerNorm(6),
            "response": LocalResponseNorm(4, alpha=0.5, k=1.5),
            "dense": DenseBlock(4, 3, 2, 2, rng=rng),
            "conv": Conv2d(10, 6, 1, rng=rng),
            "sparse": SparseConv2d(TABLE_I, 3, rng=rng),
            "flat": Flatten(),
            "fc": Linear(320, 4, rng=rng),
        }
    )
    for p in model.parameters():
        p.data[...] += rng.uniform(-0.3, 0.3, p.shape)
    model.running.running_mean[...] = rng.standard_normal(4)
    model.running.running_var[...] = rng.uniform(0.5, 2, 4)
    return model


@pytest.fixture(scope="module")
def page(model, tmp_path_factory):
    study = study_network(model, [Example(X, 2, "noise")], "abcd", "norms", training=False)
    path = write(study, tmp_path_factory.mktemp("page") / "norms.html")
    with chromium() as browser, visit(browser, path) as page:
        page.wait_for_selector("body[data-ready=yes]")
        yield page


@pytest.fixture(scope="module")
def visits(model):
    model.eval(backward=True)
    return record(model, X, lambda y: CrossEntropyLoss()(y, np.array([2]))[1])


def by_pytorch(v, function, *parameters):
    """y, dx and the parameters' gradients of a function in float64, at what came to a layer."""
    leaves = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in (v.x, *parameters)]
    y = function(*leaves)
    y.backward(torch.tensor(v.dy.astype(np.float64)))
    return [y.detach().numpy(), *(leaf.grad.numpy() for leaf in leaves)]


def terms(page):
    rows = page.locator("#said .rows").nth(1).locator("tr").all()[1:]
    return [number(row.locator("td").last.inner_text()) for row in rows]


@pytest.mark.parametrize(("c", "h", "w"), [(0, 0, 0), (3, 6, 2)])
@pytest.mark.parametrize("name", ["group", "instance"])
def test_norms_with_a_gain_for_each_channel(page, model, visits, name, c, h, w):
    layer = getattr(model, name)
    v, G = visits[layer], {"group": 2, "instance": 4}[name]
    parameters = [p.data for p in (layer.weight, layer.bias)]
    y, dx, dw, db = by_pytorch(v, lambda x, w, b: F.group_norm(x, G, w, b), *parameters)
    open_layer(page, name)
    sums, recorded = point(page, "y", h, w, [("y", c)])
    expected = [y[0, c, h, w], dx[0, c, h, w], db[c], dw[c]]
    assert sums == pytest.approx(expected, rel=SIX, abs=1e-6)
    assert recorded == pytest.approx(expected, rel=SIX, abs=1e-6)
    assert sum(terms(page)) == pytest.approx(dx[0, c, h, w], rel=SIX, abs=1e-6)
    first = c // (4 // G) * (4 // G)
    piece = np.s_[0, first : first + 4 // G]
    sigma = np.sqrt(v.x[piece].astype(float).var() + 1e-5)
    gain = parameters[0][first : first + 4 // G, None, None]
    expected = [gain[c - first, 0, 0] * v.dy[0, c, h, w] / sigma, -(gain * v.dy[piece]).mean() / sigma]
    assert terms(page)[:2] == pytest.approx(expected, rel=SIX, abs=1e-7)


def test_running_statistics_leave_the_direct_way_alone(page, model, visits):
    v, layer = visits[model.running], model.running
    open_layer(page, "running")
    point(page, "x", 2, 5, [("x", 3)])
    direct, *others = terms(page)
    assert direct == pytest.approx(v.dy[0, 3, 2, 5] / np.sqrt(layer.running_var[3] + 1e-5), rel=SIX)
    assert others == [0, 0]
    sums, _ = shown(page)
    hat = (v.x[0, 3, 2, 5] - layer.running_mean[3]) / np.sqrt(layer.running_var[3] + 1e-5)
    assert sums[0] == pytest.approx(hat, rel=SIX)


@pytest.mark.parametrize(("name", "shape"), [("layer", (4, 7, 6)), ("rows", (6,))])
def test_norms_with_a_gain_for_each_feature(page, model, visits, name, shape):
    layer = getattr(model, name)
    v, parameters = visits[layer], [layer.weight.data, layer.bias.data]
    y, dx, dw, db = by_pytorch(v, lambda x, w, b: F.layer_norm(x, shape, w, b), *parameters)
    open_layer(page, name)
    sums, _ = point(page, "dx", 4, 1, [("x", 2)])
    expected = [y[0, 2, 4, 1], dx[0, 2, 4, 1]]
    if name == "layer":  # elsewhere other rows have a part in them
        expected += [db[2, 4, 1], dw[2, 4, 1]]
    assert sums == pytest.approx(expected, rel=SIX, abs=1e-6)
    assert sum(terms(page)) == pytest.approx(dx[0, 2, 4, 1], rel=SIX, abs=1e-6)


@pytest.mark.parametrize("c", range(4))
def test_competing_channels(page, model, visits, c):
    v = visits[model.response]
    y, dx = by_pytorch(v, lambda x: F.local_response_norm(x, 4, 0.5, 0.75, 1.5))
    open_layer(page, "response")
    sums, recorded = point(page, "y", 3, 3, [("y", c)])
    assert sums == pytest.approx([y[0, c, 3, 3], dx[0, c, 3, 3]], rel=SIX, abs=1e-7)
    assert recorded == pytest.approx([y[0, c, 3, 3], dx[0, c, 3, 3]], rel=SIX, abs=1e-7)


def test_a_dense_block(page, model, visits):
    v, layers = visits[model.dense], list(model.dense.children())
    open_layer(page, "dense")
    for c, words, expected in (
        (1, "y[1] is x[1]", v.x[0, 1, 2, 2]),
        (5, "channel 1 of what denselayer1", visits[layers[0]].y[0, 1, 2, 2]),
        (9, "channel 2 of what denselayer2", visits[layers[1]].y[0, 2, 2, 2]),
    ):
        sums, recorded = point(page, "y", 2, 2, [("y", c)])
        assert words in page.inner_text("#said")
        assert sums == pytest.approx([expected], rel=SIX)
        assert recorded == pytest.approx([v.y[0, c, 2, 2]], rel=SIX)
    point_at_input(page)
    rows = page.locator("#said .rows tr").all()[1:]
    direct, through, whole = (number(row.locator("td").last.inner_text()) for row in rows)
    assert direct == pytest.approx(v.dy[0, 0, 1, 4], rel=SIX)
    assert whole == pytest.approx(v.dx[0, 0, 1, 4], rel=SIX)
    assert through == pytest.approx(v.dx[0, 0, 1, 4] - v.dy[0, 0, 1, 4], rel=SIX, abs=1e-7)


def point_at_input(page):
    page.locator('[data-role="x"] .stage').hover()
    page.evaluate("point('x', 1, 4, true)")


def test_the_norm_within_a_dense_layer_has_its_terms(page, model, visits):
    """What it sends back is added up in place, and so is not recorded; it is worked out."""
    norm = next(model.dense.children()).norm1
    assert visits[norm].dx is None
    open_layer(page, norm.path)
    page.evaluate("point('x', 1, 4, true)")
    assert "not recorded in this page, worked out here" in page.inner_text("#said")


def test_sparse_connections(page, model, visits):
    v, layer = visits[model.sparse], model.sparse
    rows, w = list(zip(layer.rows, layer.columns, strict=True)), layer.weight.data.astype(float)
    open_layer(page, "sparse")
    o, h, k = 7, 2, 1
    sums, _ = point(page, "y", h, k, [("y", o)])
    patch = v.x[0, :, h : h + 3, k : k + 3]
    expected = layer.bias.data[o] + sum((w[i] * patch[c]).sum() for i, (oo, c) in enumerate(rows) if oo == o)
    assert sums == pytest.approx([expected], rel=SIX)
    seen, unseen = TABLE_I[o][0], next(c for c in range(6) if c not in TABLE_I[o])
    sums, recorded = point(page, "w", 1, 2, [("x", seen)])
    H, W = v.dy.shape[2:]
    expected = (v.dy[0, o].astype(float) * v.x[0, seen, 1 : 1 + H, 2 : 2 + W]).sum()
    assert sums == pytest.approx([expected], rel=SIX)
    assert recorded == pytest.approx([v.gradients["weight"][rows.index((o, seen)), 1, 2]], rel=SIX)
    while f"channel {unseen} of" not in page.inner_text('[data-role="x"] .stepper'):
        page.click('[data-role="x"] [aria-label="next channel"]')
    page.evaluate("point('w', 1, 2, true)")
    assert f"output {o} does not see channel {unseen}" in page.inner_text("#said")


def test_blocks_are_checked_whole(page):
    open_layer(page, "dense")
    assert "gradient check passed" in page.inner_text("#proof")
    assert "denselayer2.conv2.weight" in page.inner_text("#proof")


def test_layers_within_a_block_say_to_which_part_they_belong(page):
    parts = page.locator("#strip .ways small.part").all_inner_texts()
    assert parts == ["denselayer1"] * 4 + ["denselayer2"] * 4
