"""The page in a browser: pointed at and clicked, its numbers compared with loops in NumPy."""

import re

import numpy as np
import pytest
from headless import chromium, visit
from pointing import number, open_layer, point, shown

from tinycnn import CrossEntropyLoss
from tinycnn.explain import record, study_network, write

DIGITS = 2e-4  # five digits are shown
CLASSES = ("ant", "bee", "cat", "<dog>")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, model, examples, tmp_path_factory):
    study = study_network(model, examples, CLASSES, "small")
    path = write(study, tmp_path_factory.mktemp("page") / "small.html")
    with visit(browser, path) as page:
        page.wait_for_selector("body[data-ready=yes]")
        yield page


@pytest.fixture(scope="module")
def passes(model, examples):
    """What the page should show: the first image with its own class, 2, and with class 1."""

    def visits(label):
        return record(model, examples[0].x, lambda y: CrossEntropyLoss()(y, np.array([label]))[1])

    return {label: visits(label) for label in (2, 1)}


def pixel(x, c, h, w):
    inside = 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
    return float(x[0, c, h, w]) if inside else 0.0


@pytest.mark.parametrize(("o", "c", "oh", "ow"), [(0, 0, 0, 0), (4, 1, 2, 5), (5, 0, 4, 9)])
def test_a_convolutions_output(page, model, passes, o, c, oh, ow):
    """Stride (2, 1), padding (1, 2), dilation (1, 2), and a window of 3×2."""
    v, conv = passes[2][model.conv], model.conv
    open_layer(page, "conv")
    sums, recorded = point(page, "y", oh, ow, [("y", o), ("x", c)])
    w, b = conv.weight.data.astype(np.float64), conv.bias.data.astype(np.float64)
    expected = b[o]
    patch = np.zeros((3, 2))
    for channel in range(2):
        for kh in range(3):
            for kw in range(2):
                x = pixel(v.x, channel, 2 * oh + kh - 1, ow + 2 * kw - 2)
                expected += w[o, channel, kh, kw] * x
                if channel == c:
                    patch[kh, kw] = x
    assert sums == pytest.approx([expected], rel=DIGITS)
    assert recorded == pytest.approx([v.y[0, o, oh, ow]], rel=DIGITS)
    cells = [number(t) for t in page.locator("#said .grids > div").nth(0).locator("td").all_inner_texts()]
    np.testing.assert_allclose(np.reshape(cells, (3, 2)), patch, rtol=DIGITS)
    row = page.locator("#said .rows").last.locator("tr").nth(4).locator("td").all_inner_texts()
    assert row[:2] == ["3", "0, 1, 1"]  # k counts kernel row, kernel column, channel
    assert number(row[3]) == pytest.approx(w[o, 1, 0, 1], rel=DIGITS)


@pytest.mark.parametrize(("c", "h", "w"), [(0, 0, 0), (1, 3, 4), (0, 8, 7)])
@pytest.mark.parametrize("role", ["x", "dx"])
def test_a_convolutions_input(page, model, passes, role, c, h, w):
    v, weights = passes[2][model.conv], model.conv.weight.data.astype(np.float64)
    open_layer(page, "conv")
    sums, recorded = point(page, role, h, w, [("x", c)])
    expected, meetings = 0.0, 0
    for oh in range(v.dy.shape[2]):
        for ow in range(v.dy.shape[3]):
            for kh in range(3):
                for kw in range(2):
                    if (2 * oh + kh - 1, ow + 2 * kw - 2) == (h, w):
                        meetings += 1
                        expected += sum(float(v.dy[0, o, oh, ow]) * weights[o, c, kh, kw] for o in range(6))
    assert sums == pytest.approx([expected], rel=DIGITS, abs=1e-9)
    assert recorded == pytest.approx([v.dx[0, c, h, w]], rel=DIGITS, abs=1e-9)
    assert page.locator("#said .rows tr").count() == meetings + 1


@pytest.mark.parametrize(("o", "c", "kh", "kw"), [(0, 0, 0, 0), (3, 1, 2, 1)])
def test_a_convolutions_weight(page, model, passes, o, c, kh, kw):
    v = passes[2][model.conv]
    open_layer(page, "conv")
    sums, recorded = point(page, "w", kh, kw, [("y", o), ("x", c)])
    expected = 0.0
    for oh in range(v.dy.shape[2]):
        for ow in range(v.dy.shape[3]):
            expected += float(v.dy[0, o, oh, ow]) * pixel(v.x, c, 2 * oh + kh - 1, ow + 2 * kw - 2)
    assert sums == pytest.approx([expected], rel=DIGITS)
    assert recorded == pytest.approx([v.gradients["weight"][o, c, kh, kw]], rel=DIGITS)
    terms = page.locator("#said .rows").last.locator("tr").all()[1:]
    sizes = [abs(number(term.locator("td").last.inner_text())) for term in terms]
    assert len(sizes) == v.dy[0, 0].size
    assert sizes == sorted(sizes, reverse=True)


def test_groups_see_their_own_channels(page, model, passes):
    conv = next(layer for layer in model.layers() if getattr(layer, "groups", 1) == 2)
    v, w = passes[2][conv], conv.weight.data.astype(np.float64)
    open_layer(page, conv.path)
    sums, _ = point(page, "y", 1, 2, [("y", 4)])
    assert "channel 3 of" in page.inner_text('[data-role="x"] .stepper')
    expected = float(conv.bias.data[4])
    for c in range(3):
        for kh in range(3):
            for kw in range(3):
                expected += w[4, c, kh, kw] * pixel(v.x, 3 + c, 1 + kh - 1, 2 + kw - 1)
    assert sums == pytest.approx([expected], rel=DIGITS)


def test_the_pools(page, model, passes):
    v = passes[2][model.max]
    open_layer(page, "max")
    windows = {}
    for oh in range(v.y.shape[2]):
        for ow in range(v.y.shape[3]):
            cells = [(h, w) for h in range(2 * oh - 1, 2 * oh + 2) for w in range(2 * ow - 1, 2 * ow + 2)]
            cells = [(h, w) for h, w in cells if 0 <= h < v.x.shape[2] and 0 <= w < v.x.shape[3]]
            windows[oh, ow] = max(cells, key=lambda cell: v.x[0, 1][cell])
    sums, _ = point(page, "y", 1, 2, [("x", 1)])
    assert sums == pytest.approx([v.x[0, 1][windows[1, 2]]], rel=DIGITS)
    h, w = windows[1, 2]
    assert f"the winner is x[1, {h}, {w}]" in page.inner_text("#said")
    for h, w in (windows[1, 2], (3, 7), (1, 5), (1, 1)):  # the last three are seen by four windows
        sums, recorded = point(page, "x", h, w)
        expected = sum(float(v.dy[0, 1][o]) for o, won in windows.items() if won == (h, w))
        assert sums == pytest.approx([expected], rel=DIGITS)
        assert recorded == pytest.approx([v.dx[0, 1, h, w]], rel=DIGITS)

    v = passes[2][model.avg]
    open_layer(page, "avg")
    sums, _ = point(page, "y", 0, 1)  # half of the window is padding, which does not count
    assert sums == pytest.approx([v.x[0, 0, 0, :2].mean()], rel=DIGITS)
    sums, _ = point(page, "x", 0, 0)
    expected = v.dy[0, 0, 0, 0] / 1 + v.dy[0, 0, 0, 1] / 2 + v.dy[0, 0, 1, 0] / 2 + v.dy[0, 0, 1, 1] / 4
    assert sums == pytest.approx([expected], rel=DIGITS)


def test_the_three_terms_of_a_normalisation(page, model, passes):
    v = passes[2][model.bn]
    open_layer(page, "bn")
    x, dy = v.x[0, 2].astype(np.float64), v.dy[0, 2].astype(np.float64)
    sigma = np.sqrt(x.var() + 1e-5)
    hat, gamma = (x - x.mean()) / sigma, float(model.bn.weight.data[2])
    point(page, "x", 3, 1, [("x", 2)])
    rows = page.locator("#said .rows").nth(1).locator("tr").all()
    terms = [number(row.locator("td").last.inner_text()) for row in rows[1:]]
    a = gamma / sigma
    expected = [a * dy[3, 1], -a * dy.mean(), -a * hat[3, 1] * (dy * hat).mean()]
    assert terms == pytest.approx(expected, rel=DIGITS, abs=1e-8)
    sums, recorded = shown(page)
    assert sums[:2] == pytest.approx([gamma * hat[3, 1] + model.bn.bias.data[2], sum(expected)], rel=5e-4, abs=1e-7)
    assert recorded[1] == pytest.approx(v.dx[0, 2, 3, 1], rel=5e-4, abs=1e-7)


def test_a_normalisation_with_shortcut_and_relu(page, model, passes):
    norm = model.block.bn2
    v = passes[2][norm]
    open_layer(page, norm.path)
    x, s, y, dy = (a[0, 1].astype(np.float64) for a in (v.x, v.shortcut, v.y, v.dy))
    sigma = np.sqrt(x.var() + 1e-5)
    hat, gamma, beta = (x - x.mean()) / sigma, float(norm.weight.data[1]), float(norm.bias.data[1])
    g = np.where(gamma * hat + beta + s > 0, dy, 0)
    dx = gamma / sigma * (g - g.mean() - hat * (g * hat).mean())
    for open_gate in (True, False):
        h, w = (int(k) for k in np.argwhere((y > 0) == open_gate)[3])
        sums, recorded = point(page, "y", h, w, [("x", 1)])
        expected = [max(gamma * hat[h, w] + beta + s[h, w], 0), dx[h, w], g.sum(), (g * hat).sum(), g[h, w]]
        assert sums == pytest.approx(expected, rel=5e-4, abs=1e-7)
        assert recorded == pytest.approx(expected, rel=5e-4, abs=1e-6)


def test_relu_and_dropout(page, model, passes):
    v = passes[2][model.relu]
    open_layer(page, "relu")
    for want in (True, False):
        h, w = np.argwhere((v.x[0, 0] > 0) == want)[0]
        _, recorded = point(page, "y", int(h), int(w), [("x", 0)])
        assert ("The gate is open" in page.inner_text("#said")) == want
        assert recorded == pytest.approx([max(v.x[0, 0, h, w], 0), v.dy[0, 0, h, w] * want], rel=DIGITS)
    v = passes[2][model.drop]
    open_layer(page, "drop")
    for i in (int(np.flatnonzero(v.y[0] == 0)[0]), int(np.flatnonzero(v.y[0])[0])):
        sums, _ = point(page, "x", i // 20, i % 20)
        kept = v.y[0, i] != 0
        assert sums == pytest.approx([kept * v.x[0, i] / 0.6, kept * v.dy[0, i] / 0.6], rel=DIGITS)


def test_the_ways_of_blocks(page, model, passes):
    for name in ("block", "sum", "cat"):
        layer = getattr(model, name)
        open_layer(page, name)
        point(page, "x", 2, 3, [("x", 1)])
        rows = page.locator("#said .rows tr").all_inner_texts()[1:]
        branches = [b for b in layer.children() if b is not getattr(layer, "bn2", None)]
        parts = [passes[2][b].dx for b in branches]
        assert len(rows) == 2
        for row, part in zip(rows, parts, strict=True):
            _, here, norm = row.split()
            assert number(here) == pytest.approx(part[0, 1, 2, 3], rel=DIGITS)
            assert number(norm) == pytest.approx(np.sqrt((part.astype(float) ** 2).sum()), rel=DIGITS)
        sums, _ = shown(page)
        assert sums == pytest.approx([sum(float(part[0, 1, 2, 3]) for part in parts)], rel=5e-4)


def test_linear_and_loss(page, model, passes):
    v, w = passes[2][model.fc], model.fc.weight.data.astype(np.float64)
    open_layer(page, "fc")
    sums, _ = point(page, "y", 0, 3)
    assert sums == pytest.approx([model.fc.bias.data[3] + (w[3] * v.x[0]).sum()], rel=DIGITS)
    sums, recorded = point(page, "w", 2, 5)  # of output 3, as that was pointed at before
    assert sums == pytest.approx([v.dy[0, 3] * v.x[0, 45]], rel=DIGITS, abs=1e-12)
    assert recorded == pytest.approx([v.gradients["weight"][3, 45]], rel=DIGITS, abs=1e-12)
    sums, _ = point(page, "x", 2, 5)
    assert sums == pytest.approx([(v.dy[0] * w[:, 45]).sum()], rel=DIGITS)
    page.locator("#strip button").last.click()
    x = v.y[0].astype(np.float64)
    p = np.exp(x) / np.exp(x).sum()
    for k in range(4):
        cells = page.locator(f'#said tr[data-class="{k}"] td').all_inner_texts()
        assert cells[0] == CLASSES[k]
        assert [number(t) for t in cells[1:]] == pytest.approx(
            [x[k], p[k], float(k == 2), p[k] - (k == 2), v.dy[0, k]], rel=1e-3
        )


def test_another_class_another_gradient(page, model, passes):
    page.select_option("#class", "1")
    open_layer(page, "conv")
    _, recorded = point(page, "x", 4, 4, [("x", 0)])
    assert recorded == pytest.approx([passes[1][model.conv].dx[0, 0, 4, 4]], rel=DIGITS)
    raised = np.exp(passes[1][model.fc].y[0].astype(np.float64))
    loss = -np.log(raised[1] / raised.sum())
    assert number(page.inner_text("#loss")) == pytest.approx(loss, rel=DIGITS)
    page.select_option("#class", "2")
    page.select_option("#sample", "1")
    assert page.input_value("#class") == "0"  # its own
    assert "ant (true)" in page.inner_text("#class")
    page.select_option("#sample", "0")


def test_by_keyboard(page, model, passes):
    page.locator("#strip button").first.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#name").startswith("bn ")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#name").startswith("conv ")
    page.locator('[data-role="y"] .stage').focus()
    page.keyboard.press("ArrowLeft")
    before = page.inner_text("#said .formula")
    page.keyboard.press("ArrowDown")
    after = page.inner_text("#said .formula")
    (_, oh, ow), (_, oh2, ow2) = (map(int, re.match(r"y\[(\d+), (\d+), (\d+)\]", t).groups()) for t in (before, after))
    assert (oh2, ow2) == (oh + 1, ow)


def test_ways_stand_one_below_the_other_before_the_place_where_they_meet(page, model):
    def box(path):
        return page.locator(f'#strip button[title^="{path}:"]').last.bounding_box()

    norm, shortcut = (layer.path for layer in list(model.block.children())[1:])
    assert box(norm)["y"] + box(norm)["height"] <= box(shortcut)["y"]
    assert max(box(norm)["x"], box(shortcut)["x"]) < box("block")["x"]
    first, second = (layer.path for layer in model.cat.children())
    assert box(first)["y"] + box(first)["height"] <= box(second)["y"]
    assert box(first)["x"] == box(second)["x"]


def test_arrow_keys_reach_every_layer(page):
    page.locator("#strip button").first.focus()
    page.keyboard.press("Home")
    count, seen = page.locator("#strip button").count(), []
    for _ in range(count):
        seen.append(page.inner_text("#name"))
        page.keyboard.press("ArrowRight")
    assert len(set(seen)) == count
    assert seen[-1].startswith("loss")
    page.keyboard.press("Home")
    assert page.inner_text("#name").startswith("conv ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_its_window(browser, model, examples, tmp_path, width, scheme):
    path = write(study_network(model, examples[:1], CLASSES, "small", checks=False), tmp_path / "a.html")
    with visit(browser, path, width, scheme=scheme) as page:
        page.wait_for_selector("body[data-ready=yes]")
        for button in page.locator("#strip button").all():
            button.click()
            assert page.evaluate("document.documentElement.scrollWidth") == width
        assert "<dog>" in page.inner_text("#class")


def test_tab_goes_past_the_other_layers(page, model):
    open_layer(page, "conv")
    page.locator("#strip [aria-current=true]").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('figure').dataset.role") == "x"


def test_a_second_click_lets_go(page, model):
    open_layer(page, "conv")
    stage = page.locator("[data-role=y] .stage")
    stage.click(position={"x": 5, "y": 5})
    held = page.evaluate("state.point")
    stage.hover(position={"x": 60, "y": 60})
    assert page.evaluate("[state.pinned, state.point]") == [True, held]
    stage.click(position={"x": 5, "y": 5})
    stage.hover(position={"x": 60, "y": 60})
    assert page.evaluate("state.pinned") is False
    assert page.evaluate("state.point") != held


def test_the_bar_of_the_layer_shown_stands_out(page, model):
    for path in ("conv", "bn"):
        open_layer(page, path)
        marked = page.evaluate("[...document.querySelectorAll('#chart rect[fill*=mark]')].map((r) => +r.dataset.layer)")
        assert set(marked) == {page.evaluate("state.layer")}


@pytest.mark.parametrize("role", ["x", "dy", "w"])
def test_on_a_phone_the_map_and_what_is_said_of_it_are_both_in_sight(browser, model, examples, tmp_path, role):
    path = write(study_network(model, examples, CLASSES, "small"), tmp_path / "small.html")
    with visit(browser, path, 390, 844) as page:
        page.wait_for_selector("body[data-ready=yes]")
        open_layer(page, "conv")
        page.locator(f"[data-role={role}] .stage").click(position={"x": 20, "y": 20})
        map_, panel = (page.locator(s).bounding_box() for s in (f"[data-role={role}] .stage", "#said"))
        assert map_["y"] >= 0
        assert map_["y"] + map_["height"] <= panel["y"]
        assert panel["y"] + 100 <= 844
