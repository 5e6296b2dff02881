"""Charts: ticks, places and what they tell."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinycnn.report import charts
from tinycnn.report.charts import Axis, Line

SVG = re.compile(r"<svg.*</svg>", re.DOTALL)


def drawing(figure):
    return ET.fromstring(SVG.search(figure)[0])  # elements of SVG are all ended: it is XML


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10))
def test_ticks_are_round_and_within(low, size, most):
    high = low + size
    if not high - low > 1e-9 * abs(low):
        return
    ticks = charts.linear_ticks(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    slack = 1e-8 * max(abs(low), abs(high), size)
    assert all(low - slack <= tick <= high + slack for tick in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        digits = float(f"{step:.6e}".split("e")[0])
        assert min(abs(digits - d) for d in (1, 2, 5, 10)) < 1e-2


@given(st.floats(-8, 4), st.floats(0.02, 10), st.integers(3, 8))
def test_logarithmic_ticks(low, decades, most):
    low, high = 10**low, 10 ** (low + decades)
    ticks = charts.log_ticks(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low * 0.999 <= tick <= high * 1.001 for tick in ticks)
    assert ticks == sorted(set(ticks))


def test_places_on_an_axis():
    assert [Axis(2, 4, 100, 0)(v) for v in (2, 3, 4)] == [100, 50, 0]
    log = Axis(0.01, 1, 0, 100, log=True)
    assert [log(v) for v in (0.01, 0.1, 1)] == pytest.approx([0, 50, 100])
    assert log(0) == 0  # what has no logarithm lies at the end


def test_a_line_goes_through_its_points():
    figure = charts.of_epochs("Loss", [Line("training", "training", {1: 4.0, 2: 2.0, 4: 1.0})], log=True, mark=2)
    svg = drawing(figure)
    (points,) = (e.get("points") for e in svg.iter("polyline"))
    x, y = zip(*(map(float, place.split(",")) for place in points.split()), strict=True)
    assert (x[1] - x[0]) * 2 == pytest.approx(x[2] - x[1], abs=0.05)
    assert y[1] - y[0] == pytest.approx(y[2] - y[1], abs=0.05)  # halved each time
    assert y[0] < y[1] < y[2]
    (mark,) = (e for e in svg.iter("line") if e.get("class") == "mark")
    assert float(mark.get("x1")) == x[1]
    titles = [e.text for e in svg.iter("title")]
    assert titles == ["epoch 1 · training 4", "epoch 2 · training 2", "epoch 4 · training 1"]


@pytest.mark.parametrize(
    "points",
    [{1: 0.5}, {1: 0.0}, {3: 1.0, 4: 1.0}, {1: 0.0, 2: 0.0}, {1: -1.0, 2: 1e30}, dict.fromkeys(range(1, 2000), 0.1)],
)
@pytest.mark.parametrize("log", [False, True])
def test_any_numbers_are_drawn(points, log):
    svg = drawing(charts.of_epochs("<title>", [Line("<a>", "training", points)], log=log))
    places = next(svg.iter("polyline")).get("points")
    for place in places.split():
        x, y = map(float, place.split(","))
        assert 0 <= x <= charts.WIDTH
        assert 0 <= y <= charts.HEIGHT
    assert len(list(svg.iter("title"))) <= charts.POINTED_AT
    assert all(math.isfinite(float(e.get("y"))) for e in svg.iter("text"))


def test_two_lines_have_a_legend_and_one_has_none():
    lines = [Line("training", "training", {1: 1.0, 2: 0.5}), Line("validation", "validation", {2: 0.7})]
    both = charts.of_epochs("Loss", lines, words=charts.percent)
    assert both.count('class="name"') == 2
    assert "epoch 2 · training 50 % · validation 70 %" in both
    assert 'class="name"' not in charts.of_epochs("Loss", lines[:1])


def test_bars_are_as_high_as_the_accuracy():
    svg = drawing(charts.of_calibration("Sure", [(0.5, 0.75, 0.6, 0.5, 4), (0.75, 1.0, 0.9, 1.0, 1200)]))
    low, high = (e for e in svg.iter("rect") if e.get("class") == "bar")
    assert float(high.get("height")) == 2 * float(low.get("height"))
    assert float(high.get("y")) == charts.TOP
    titles = [e.text for e in svg.iter("title")]
    assert titles[1] == "1,200 images of which it is 90 % sure on average: 100 % are right"


def test_numbers_in_words():
    assert [charts.number(v) for v in (0.00012344, 12, 1234567)] == ["0.0001234", "12", "1.235e+06"]
    assert [charts.percent(v) for v in (0.98765, 0.5, 1)] == ["98.77 %", "50 %", "100 %"]
