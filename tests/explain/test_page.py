"""The file: whole, by itself, small enough, and with nothing in it that a text could turn into markup."""

import json
import re

import numpy as np
import pytest

from tinycnn import models
from tinycnn.explain import study_network, write
from tinycnn.explain.page import ASSETS, SCRIPTS, page
from tinycnn.explain.study import Example

HARMFUL = "</script><script>alert(1)</script><!--"


def test_texts_stay_texts(model, examples):
    study = study_network(model, examples[:1], (HARMFUL, "b", "c", "d"), HARMFUL, checks=False)
    text = page(study)
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S).group(1)
    assert json.loads(data)["classes"][0] == HARMFUL


def test_nothing_is_asked_from_elsewhere(model, examples):
    text = page(study_network(model, examples[:1], "abcd", "small", checks=False))
    assert not re.findall(r"""(?:src|href)\s*=|@import|url\(|fetch\(|XMLHttpRequest|https?://""", text)


def test_every_asset_is_used_and_none_is_long():
    assert {p.name for p in ASSETS.iterdir()} == {*SCRIPTS, "explain.html", "explain.css"}
    assert all(len(p.read_text().splitlines()) <= 400 for p in ASSETS.iterdir())


@pytest.mark.parametrize(("name", "shape"), [("lenet5", (1, 32, 32)), ("resnet20", (3, 32, 32))])
def test_known_networks_are_there_whole(name, shape, tmp_path):
    x = np.random.default_rng(0).standard_normal((1, *shape)).astype(np.float32)
    study = study_network(models.create(name), [Example(x, 3, "noise")], "0123456789", name, checks=False)
    assert all(layer["shown"] for layer in study.data["layers"])
    path = write(study, tmp_path / "a" / "page.html")
    assert path.stat().st_size < 5_000_000
