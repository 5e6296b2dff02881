"""Formula and lines of every layer: the real ones, escaped."""

import html
import re
from pathlib import Path

import numpy as np
import pytest

import tinycnn
from tinycnn import contract
from tinycnn.explain.source import describe, to_html
from tinycnn.layers import BatchNorm2d, Conv2d, ReLU

ROOT = Path(tinycnn.__file__).parent.parent


@pytest.mark.parametrize("name", contract.CASES)
def test_lines_are_those_of_the_file(name):
    told = describe(type(contract.CASES[name].build(np.random.default_rng(0))))
    assert len(told["parts"]) >= 2
    for part in told["parts"]:
        lines = (ROOT / part["file"]).read_text().splitlines()
        code = part["code"].splitlines()
        there = lines[part["line"] - 1 : part["line"] - 1 + len(code)]
        assert [line.strip() for line in there] == [line.strip() for line in code]
    tags = r"</?(?:p|pre|ul|li|strong|em|code|table|tr|td|div)(?: class=\"\w+\")?>"
    assert "<" not in re.sub(tags, "", told["doc"])


def test_the_formula_and_both_ways_are_there():
    told = describe(Conv2d)
    assert "dx = col2im(dy w)" in html.unescape(told["doc"])
    names = [part["name"] for part in told["parts"]]
    assert names[:2] == ["Conv2d.forward", "Conv2d.backward"]
    assert {"conv2d_forward", "conv2d_backward", "im2col", "scatter"} <= set(names)
    assert "mean(dy·x̂)" in describe(BatchNorm2d)["doc"]
    assert describe(ReLU)["parts"][0]["name"] == "Activation.forward"


def test_markup_in_a_docstring_is_text():
    assert to_html("a <b> & ``c<d``") == "<p>a &lt;b&gt; &amp; <code>c&lt;d</code></p>"
