"""The slider over a training: what is embedded, what is left out, and what a browser then shows at each step."""

import base64
import json
import time
import zlib

import numpy as np
import pytest
from headless import chromium, visit
from small_runs import settings

from tinycnn import models
from tinycnn.explain import study_network, training_of, write
from tinycnn.explain.study import Example
from tinycnn.train import Run, read_records
from tinycnn.train.recorder import RECORDS, Records


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = Run.new(settings(epochs=2, record=9), tmp_path_factory.mktemp("run") / "a")
    run.fit()
    return run.folder


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def page(browser, run, tmp_path_factory):
    x = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    study = study_network(models.create("lenet5"), [Example(x, 3, "noise")], "0123456789", "run", checks=False)
    study.training = training_of(run)
    path = write(study, tmp_path_factory.mktemp("page") / "run.html")
    with visit(browser, path) as page:
        page.wait_for_selector("body[data-ready=yes]")
        yield page


def pictures_in(found):
    """Undo what the page undoes."""
    content = np.frombuffer(zlib.decompress(base64.b64decode(found["bytes"])), np.int8)
    first, arrays = 0, {}
    for one in found["pictures"]:
        shape = (len(found["steps"]), *one["shape"])
        arrays[one["name"]] = content[first : first + np.prod(shape)].reshape(shape)
        first += int(np.prod(shape))
    assert first == len(content)
    return arrays


def test_numbers_and_pictures_are_the_records(run):
    records, found = read_records(run), training_of(run)
    json.dumps(found, allow_nan=False)
    assert found["steps"] == records.arrays["steps"].tolist()
    assert found["batch_loss"][0] is None
    np.testing.assert_allclose(found["p"], records.arrays["p"], rtol=1e-5)
    assert list(pictures_in(found)) == ["filters/conv1", "maps/conv1", "filters/conv2", "maps/conv2"]
    for name, array in pictures_in(found).items():
        np.testing.assert_array_equal(array, records.arrays[name])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert found["validation"] == [[21, rows[0]["val_loss"]], [42, rows[1]["val_loss"]]]


def test_where_room_is_short_steps_are_left_out(run):
    whole = training_of(run)
    some = training_of(run, room=len(whole["bytes"]) // 2)
    assert some["steps"][0] == 0
    assert some["steps"][-1] == 42
    assert 2 <= len(some["steps"]) < len(whole["steps"])
    assert some["left_out"] == len(whole["steps"]) - len(some["steps"])
    records = read_records(run)
    kept = np.isin(records.arrays["steps"], some["steps"])
    for name, array in pictures_in(some).items():
        np.testing.assert_array_equal(array, records.arrays[name][kept])


def test_what_it_takes_is_counted_whole(tmp_path):
    """Images of 224×224 and beliefs in a thousand classes take more than the pictures, and the page has one size."""
    rng = np.random.default_rng(0)
    records = Records(
        {"x": rng.standard_normal((2, 3, 224, 224), np.float32), "labels": np.array([1, 2])},
        {"layers": ["conv"], "names": ["a", "b"], "classes": [f"Größe {k}" for k in range(1000)], "steps_per_epoch": 1},
    )
    for step in range(9):
        records.add(
            {
                **{"steps": np.int64(step), "batch_loss": np.float32(1), "gradients": np.ones(1, np.float32)},
                **{"loss": np.ones(2, np.float32), "p": rng.random((2, 1000), np.float32)},
                **{"maps/conv": np.ones((2, 1, 2, 2), np.int8), "maps/conv/scale": np.float32(1)},
            }
        )
    records.write(tmp_path / RECORDS)
    found = training_of(tmp_path)
    size = len(json.dumps(found, separators=(",", ":"), ensure_ascii=False).encode())
    assert size - 20 <= found["room"] <= size
    assert found["room"] > 500_000
    less = training_of(tmp_path, room=found["room"] - 50_000)
    assert less["room"] <= found["room"] - 50_000
    assert less["steps"] == [0, 2, 4, 6, 8]


def test_what_was_not_recorded(run, tmp_path):
    assert training_of(tmp_path) is None
    assert training_of(run / "last.safetensors") is None


def shown(records, folder):
    """Return a study of a network with these records of a training, without its arrays, as a page."""
    records.write(folder / RECORDS)
    x = np.zeros((1, 1, 32, 32), np.float32)
    study = study_network(models.create("lenet5"), [Example(x, 3, "none")], "0123456789", "run", checks=False)
    study.training = training_of(folder)
    return write(study, folder / "page.html")


def test_step_0_alone(browser, run, tmp_path):
    """As ``--record 1`` has it."""
    records = read_records(run)
    records.drop_after(0)
    with visit(browser, shown(records, tmp_path)) as page:
        page.wait_for_selector("body[data-ready=yes]")
        assert "step 0, epoch 0.0" in page.inner_text("#when")
        assert page.get_attribute("#marker", "x1") == "40"
        assert "NaN" not in page.inner_html("#training")


def test_a_training_that_ran_away(browser, run, tmp_path):
    """What is infinite or not a number is told as none."""
    records = read_records(run)
    for name in ("batch_loss", "loss", "p", "gradients", "maps/conv1/scale"):
        records.arrays[name][-1] = np.nan
    records.arrays["gradients"][-2] = np.inf
    with visit(browser, shown(records, tmp_path)) as page:
        page.wait_for_selector("body[data-ready=yes]")
        assert page.inner_text("#loss-then") == "–"
        assert set(page.locator("#bars output").all_inner_texts()) == {"–"}
        for t in (0, len(records) - 2, len(records) - 1):
            page.evaluate(f"showMoment({t})")
            assert "NaN" not in page.inner_html("#training")


def number(text):
    return float(text.replace("−", "-").rstrip(" %"))


def test_every_step_shows_its_numbers(page, run):
    records = read_records(run).arrays
    page.locator("#step").focus()
    page.keyboard.press("Home")
    for t, step in enumerate(records["steps"]):
        assert f"step {step}, epoch {step / 21:.1f}" in page.inner_text("#when")
        for image in (0, 1):
            page.select_option("#watched", str(image))
            shown = [number(text) for text in page.locator("#bars output").all_inner_texts()]
            np.testing.assert_allclose(shown, 100 * records["p"][t, image], atol=0.051)
            assert number(page.inner_text("#loss-then")) == pytest.approx(records["loss"][t, image], rel=1e-4)
        norms = page.eval_on_selector_all("#gradients rect", "all => all.map((bar) => Number(bar.dataset.norm))")
        if step == 0:
            assert page.locator("#batch-loss").count() == 0
            assert norms == []
            assert "before the first batch" in page.inner_html("#gradients")
        else:
            assert number(page.inner_text("#batch-loss")) == pytest.approx(records["batch_loss"][t], rel=1e-4)
            np.testing.assert_allclose(norms, records["gradients"][t], rtol=1e-5)
            heights = page.eval_on_selector_all("#gradients rect", "all => all.map((bar) => bar.height.baseVal.value)")
            assert np.array_equal(np.argsort(heights), np.argsort(norms))
        page.locator("#step").focus()
        page.keyboard.press("ArrowRight")
    assert page.input_value("#step") == str(len(records["steps"]) - 1)


def pixels(page, picture, left, size):
    """A square of a picture, from its upper edge, read off a copy: Chromium warns of reading one that is drawn."""
    code = """([picture, left, size]) => {
        const copy = document.createElement("canvas").getContext("2d");
        copy.drawImage(document.querySelector(`[data-picture="${picture}"]`), -left, 0);
        return [...copy.getImageData(0, 0, size, size).data];
    }"""
    return np.reshape(page.evaluate(code, [picture, left, size]), (size, size, 4))


def test_a_filter_is_painted_as_it_was(page, run):
    """The first tile of conv1, cell by cell: blue below 0, orange above, the stronger the larger."""
    records = read_records(run).arrays
    for t in (0, len(records["steps"]) - 1):
        page.evaluate(f"showMoment({t})")
        rgb = pixels(page, 0, 0, 5)
        w = records["filters/conv1"][t, 0, 0].astype(float)
        redder = rgb[..., 0] - rgb[..., 2].astype(float)
        strong = np.abs(w) > 12
        assert np.array_equal(redder[strong] > 3, w[strong] > 0)
        above = w > 0
        assert np.corrcoef(np.sqrt(w[above]), redder[above])[0, 1] > 0.99


def test_a_map_is_that_of_the_image_and_the_step(page, run):
    records = read_records(run).arrays
    spans = {name: (records[f"{name}/scale"].max()) for name in ("maps/conv1",)}
    for t, image in ((1, 0), (len(records["steps"]) - 1, 1)):
        page.select_option("#watched", str(image))
        page.evaluate(f"showMoment({t})")
        rgb = pixels(page, 1, 29, 28)
        a = records["maps/conv1"][t, image, 1].astype(float) * records["maps/conv1/scale"][t] / spans["maps/conv1"]
        redder = rgb[..., 0] - rgb[..., 2].astype(float)
        assert np.corrcoef(np.sign(a) * np.sqrt(np.abs(a)), redder)[0, 1] > 0.97


PAPER, BLUE, ORANGE = ([252, 251, 248], [27, 92, 170], [200, 82, 20])


def painted(page, selector):
    """Return a picture's red, green and blue, (H, W, 3), read off a copy."""
    code = """(selector) => {
        const source = document.querySelector(selector), copy = document.createElement("canvas").getContext("2d");
        [copy.canvas.width, copy.canvas.height] = [source.width, source.height];
        copy.drawImage(source, 0, 0);
        return [source.height, source.width, [...copy.getImageData(0, 0, source.width, source.height).data]];
    }"""
    height, width, numbers = page.evaluate(code, selector)
    return np.reshape(numbers, (height, width, 4))[..., :3]


def colours(a, scale, most):
    """(H, W) of −127 … 127 -> (H, W, 3)"""
    share = np.sqrt(np.abs(a[..., None].astype(float)) * scale / (127 * most))
    return PAPER + share * (np.where(a[..., None] < 0, BLUE, ORANGE) - PAPER)


def tile(rgb, row, column, H, W):
    return rgb[row * (H + 1) : row * (H + 1) + H, column * (W + 1) : column * (W + 1) + W]


def test_every_picture_is_that_of_its_step_image_and_channel(browser, tmp_path):
    """Random numbers, which are like no others; colours to one of 255."""
    rng, T = np.random.default_rng(0), 3

    def random(*shape):
        return rng.integers(-127, 128, shape).astype(np.int8)

    arrays = {
        **{"x": rng.uniform(-1, 1, (2, 1, 6, 5)).astype(np.float32), "labels": np.array([1, 2])},
        **{"steps": np.array([0, 4, 9]), "batch_loss": np.array([np.nan, 2.5, 1.5], np.float32)},
        **{"loss": np.array([[3, 4], [2, 3.5], [1, 0.5]], np.float32), "p": rng.random((T, 2, 3), np.float32)},
        **{"gradients": rng.random((T, 2), np.float32)},
        **{"filters/a": random(T, 9, 3, 2, 3), "filters/a/scale": np.array([0.5, 1, 2], np.float32)},
        **{"filters/b": random(T, 2, 4, 3, 2), "filters/b/scale": np.array([1, 0.5, 0.25], np.float32)},
        **{"maps/a": random(T, 2, 10, 4, 3), "maps/a/scale": np.array([0.5, 4, 1], np.float32)},
    }
    about = {"layers": ["a", "b"], "names": ["one", "two"], "classes": ["u", "v", "w"], "steps_per_epoch": 3}
    with visit(browser, shown(Records(arrays, about), tmp_path)) as page:
        page.wait_for_selector("body[data-ready=yes]")
        for t, n in ((0, 0), (1, 1), (2, 0)):
            page.select_option("#watched", str(n))
            page.evaluate(f"showMoment({t})")
            rgb, w = painted(page, "[data-picture='0']"), arrays["filters/a"][t] * arrays["filters/a/scale"][t] / 2
            for o in range(9):  # eight in a row; three channels are red, green and blue
                found = tile(rgb, o // 8, o % 8, 2, 3)
                np.testing.assert_allclose(found, 127.5 + 127.5 / 127 * w[o].transpose(1, 2, 0), atol=0.51)
            rgb = painted(page, "[data-picture='2']")
            for o in range(2):  # a column for each filter
                for c in range(4):
                    expected = colours(arrays["filters/b"][t, o, c], arrays["filters/b/scale"][t], 1)
                    np.testing.assert_allclose(tile(rgb, c, o, 3, 2), expected, atol=0.51)
            rgb = painted(page, "[data-picture='1']")
            for c in range(10):
                expected = colours(arrays["maps/a"][t, n, c], arrays["maps/a/scale"][t], 4)
                np.testing.assert_allclose(tile(rgb, c // 8, c % 8, 4, 3), expected, atol=0.51)
            grey, x = painted(page, "#watched-image")[..., 0], arrays["x"][n, 0]
            assert np.corrcoef(grey.ravel(), x.ravel())[0, 1] < -0.999  # from paper to ink
            check_curves(page, arrays, n)


def check_curves(page, arrays, image):
    """Points of the losses: the higher, the larger; one above the other at the same step."""
    points = {}
    for what in ("soft", "accent"):
        code = "all => all.map((c) => [c.cx.baseVal.value, c.cy.baseVal.value])"
        points[what] = np.array(page.eval_on_selector_all(f'#loss-curve circle[fill="var(--{what})"]', code))
    steps, batch, own = arrays["steps"], arrays["batch_loss"], arrays["loss"][:, image]
    most = max(np.nanmax(batch), own.max())
    width = float(page.evaluate("CURVE.width"))
    for found, values, at in ((points["soft"], batch[1:], steps[1:]), (points["accent"], own, steps)):
        np.testing.assert_allclose(found[:, 0], 40 + np.log1p(at) / np.log(10) * (width - 52), atol=0.06)
        np.testing.assert_allclose(found[:, 1], 10 + (1 - values / most) * 158, atol=0.06)


def test_the_curve_and_the_buttons(page, run):
    steps = read_records(run).arrays["steps"]
    box = page.locator("#loss-curve svg").bounding_box()
    page.mouse.click(box["x"] + 3, box["y"] + 60)
    assert page.input_value("#step") == "0"
    page.mouse.click(box["x"] + box["width"] - 4, box["y"] + 60)
    assert page.input_value("#step") == str(len(steps) - 1)
    marker = page.get_attribute("#marker", "x1")
    page.click("#play")  # from the beginning, as this is the end
    assert page.input_value("#step") == "0"
    deadline = time.monotonic() + 30
    while page.input_value("#step") < "2" and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    page.click("#play")
    assert int(page.input_value("#step")) >= 2
    assert page.inner_text("#play") == "▶ play"
    assert float(page.get_attribute("#marker", "x1")) < float(marker)


def test_the_slider_is_quick(page, run):
    """What a step costs, painted and laid out: the median, as the machine may be busy."""
    times = page.evaluate(
        """() => [...Array(9).keys()].map((t) => {
             const start = performance.now();
             byId("step").value = t;
             byId("step").dispatchEvent(new Event("input"));
             document.body.getBoundingClientRect();
             return performance.now() - start;
           })"""
    )
    assert np.median(times) < 100
